// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the journal's format: superblocks and headers by themselves, and whole journals that the
// input changes before they are opened, replayed, used and opened again. Half of the runs make the
// checksums right after the changes, as only a forger would: of those no more is asked than that
// nothing crashes and all of it ends. Otherwise what comes back must be what was appended.

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "async/sim_loop.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "fuzz/input.h"
#include "journal/journal.h"
#include "sim/toy_sealer.h"

namespace usbd::fuzz {
namespace {

using journal::Entry;
using journal::Journal;
using journal::kBlock;
using journal::kRingStart;
using journal::Place;
using Image = std::vector<std::byte>;

constexpr uint64_t kRingBlocks = 32;
constexpr uint32_t kPayloadMax = 4;
/// Far behind all numbers that the images have.
constexpr uint64_t kNextNumber = uint64_t{1} << 40U;

/// A file in memory that answers at once.
class ImageFile final : public BlockFile {
 public:
  explicit ImageFile(Image& image) : image_(image) {}

  [[nodiscard]] std::string name() const override { return "image"; }
  [[nodiscard]] uint32_t block_size() const override { return 1; }
  [[nodiscard]] Result<uint64_t> size() const override { return image_.size(); }
  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    if (!fits(offset, data.size())) co_return Error(Errc::kIo, "the image ends before that");
    std::memcpy(data.data(), image_.data() + offset, data.size());
    co_return Result<void>();
  }
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags /*flags*/) override {
    promise(fits(offset, data.size()), "nothing is written outside of the file");
    std::memcpy(image_.data() + offset, data.data(), data.size());
    co_return Result<void>();
  }
  Task<Result<void>> datasync() override { co_return Result<void>(); }
  Task<Result<void>> allocate(ByteRange range) override {
    image_.resize(std::max<size_t>(image_.size(), range.end()));
    co_return Result<void>();
  }
  Task<Result<void>> punch(ByteRange /*range*/) override { co_return Errc::kNotSupported; }
  Task<Result<void>> zero(ByteRange /*range*/) override { co_return Errc::kNotSupported; }
  Task<Result<void>> truncate(uint64_t /*size*/) override { co_return Errc::kNotSupported; }
  Task<Result<uint64_t>> next_data(uint64_t offset) override { co_return offset; }
  Task<Result<uint64_t>> next_hole(uint64_t /*offset*/) override { co_return image_.size(); }
  Task<Result<void>> close() override { co_return Result<void>(); }

 private:
  [[nodiscard]] bool fits(uint64_t offset, uint64_t length) const {
    return offset <= image_.size() && length <= image_.size() - offset;
  }
  Image& image_;
};

Image payload_of(uint64_t number, uint32_t blocks) {
  Image bytes(blocks * kBlock);
  SeededRng(number).fill(bytes);
  return bytes;
}

journal::Options options_for(bool sealed) {
  journal::Options options;
  options.payload_blocks_max = kPayloadMax;
  if (sealed) options.sealer = sim::toy_sealer;
  return options;
}

/// A journal as some life left it, and all that was ever appended to it.
struct Base {
  Image image;
  std::map<uint64_t, Entry> entries;
  bool sealed = false;
};

Task<Result<std::unique_ptr<Journal>>> open(Image& image, Rng& rng, bool sealed) {
  auto file = std::make_unique<ImageFile>(image);
  co_return co_await Journal::open(std::move(file), rng, options_for(sealed));
}

Task<Result<void>> live(Base& base, Rng& rng, uint64_t entries, bool closes) {
  USBD_CO_TRY(const std::unique_ptr<Journal> life, co_await open(base.image, rng, base.sealed));
  USBD_CO_TRY_VOID(co_await life->replay([](const Entry&, const Place&) {}));
  uint64_t number = base.entries.empty() ? 1 : base.entries.rbegin()->first + 1;
  USBD_CO_TRY_VOID(co_await life->begin(1, number));
  for (; entries > 0; --entries, ++number) {
    const Entry entry{.number = number,
                      .block = rng.below(1000),
                      .blocks = static_cast<uint32_t>(rng.between(1, kPayloadMax)),
                      .kind = 1,
                      .has_payload = !rng.one_in(4)};
    const uint32_t blocks = entry.has_payload ? entry.blocks : 0;
    promise(life->has_room(blocks), "the base has room");
    life->append(entry, payload_of(number, blocks));
    base.entries[number] = entry;
    if (!rng.one_in(3)) USBD_CO_TRY_VOID(co_await life->sync());
    if (number > 4) life->release(number - 4);
    co_await Loop::current().sleep_for(Nanos(100'000));
  }
  const Image killed = base.image;
  const Result<void> closed = co_await life->close();
  if (!closes) base.image = killed;
  co_return closed;
}

Base make_base(uint64_t seed, bool sealed, std::initializer_list<uint64_t> lives, bool closes) {
  Base base{.image = {}, .entries = {}, .sealed = sealed};
  SimLoop loop({.seed = seed});
  SeededRng rng(seed);
  ImageFile file(base.image);
  const journal::Identity identity{.volume = {std::byte(1)}, .journal = {std::byte(2)}};
  const auto made = loop.run(Journal::format(file, identity, kRingBlocks * kBlock, 0));
  promise(made && *made, "a base can be made");
  for (const uint64_t entries : lives) {
    const auto lived = loop.run(live(base, rng, entries, closes));
    promise(lived && *lived, "a base can be used");
  }
  return base;
}

const std::vector<Base>& bases() {
  static const std::vector<Base> kAll = [] {
    std::vector<Base> made;
    made.push_back(make_base(1, false, {3}, true));
    made.push_back(make_base(2, false, {30, 5}, false));
    made.push_back(make_base(3, true, {12, 2, 3}, false));
    made.push_back(make_base(4, false, {}, true));
    return made;
  }();
  return kAll;
}

// --- changes
// --------------------------------------------------------------------------------------

bool starts_header(const Image& image, size_t at) {
  return std::memcmp(image.data() + at, "UBJR", 4) == 0;
}

/// Makes every checksum right that a reader will look at.
void repair(Image& image) {
  for (size_t at = 0; at < kRingStart; at += kBlock) {
    const MutableBytes block = MutableBytes(image).subspan(at, kBlock);
    constexpr size_t kCrc = offsetof(journal::DiskSuperblock, crc);
    std::memset(block.data() + kCrc, 0, sizeof(Le32));
    const Le32 crc = crc32c(block);
    std::memcpy(block.data() + kCrc, &crc, sizeof(crc));
  }
  for (size_t at = kRingStart; at < image.size(); at += kBlock) {
    if (!starts_header(image, at)) continue;
    const auto disk = wire_read<journal::DiskHeader>(Bytes(image).subspan(at));
    const size_t blocks = std::clamp<size_t>(disk.header_blocks, 1, journal::kHeaderBlocksMax);
    const size_t bytes = std::min(blocks * kBlock, image.size() - at);
    journal::finish_header(disk.tag, MutableBytes(image).subspan(at, bytes));
  }
}

size_t some_header(const Image& image, FuzzInput& input) {
  std::vector<size_t> headers;
  for (size_t at = kRingStart; at < image.size(); at += kBlock) {
    if (starts_header(image, at)) headers.push_back(at);
  }
  const size_t choice = input.byte();
  return headers.empty() ? 0 : headers[choice % headers.size()];
}

void change(Image& image, FuzzInput& input) {
  const size_t blocks = image.size() / kBlock;
  switch (input.byte() % 6) {
    case 0: {
      const size_t at = (input.byte() & 1U) * kBlock;
      image[at + input.byte() % 128U] = std::byte(input.byte());
      break;
    }
    case 1: {
      const size_t at = some_header(image, input);
      image[at + input.byte()] = std::byte(input.byte());
      break;
    }
    case 2: {
      const size_t at = some_header(image, input);
      image[at + input.word() % kBlock] ^= std::byte(input.byte());
      break;
    }
    case 3: {
      const size_t from = input.byte() % blocks * kBlock;
      const size_t to = input.byte() % blocks * kBlock;
      std::copy_n(Image(image.begin() + static_cast<ptrdiff_t>(from),
                        image.begin() + static_cast<ptrdiff_t>(from + kBlock))
                      .begin(),
                  kBlock, image.begin() + static_cast<ptrdiff_t>(to));
      break;
    }
    case 4: {
      const size_t at = input.byte() % blocks * kBlock + input.byte() % 8U * 512;
      std::fill_n(image.begin() + static_cast<ptrdiff_t>(at), 512, std::byte(input.byte()));
      break;
    }
    default:
      image.resize(image.size() - std::min<size_t>(image.size(), input.byte() * 512U));
      image.resize(std::max<size_t>(image.size(), 2 * kRingStart));
  }
}

// --- runs
// -----------------------------------------------------------------------------------------

class JournalRun {
 public:
  JournalRun(const Base& base, FuzzInput& input, bool forged)
      : base_(base), image_(base.image), forged_(forged) {
    for (unsigned i = 0; i < 24 && !input.empty(); ++i) change(image_, input);
    if (forged_) repair(image_);
  }

  Task<bool> run() {
    Result<std::unique_ptr<Journal>> opened = co_await open(image_, rng_, base_.sealed);
    if (!opened) co_return false;
    const std::unique_ptr<Journal> life = *std::move(opened);
    const bool usable = co_await replay(*life);
    if (!usable || !(co_await life->begin(9, kNextNumber))) {
      static_cast<void>(co_await life->close());
      co_return false;
    }
    const bool appended = life->has_room(1);
    if (appended) {
      life->append({.number = kNextNumber, .block = 1, .blocks = 1, .kind = 1, .has_payload = true},
                   payload_of(kNextNumber, 1));
      promise((co_await life->sync()).has_value(), "a sync of a sound file succeeds");
    }
    promise((co_await life->close()).has_value(), "a sound file can be closed");
    if (appended && !forged_) co_await find_again();
    co_return true;
  }

 private:
  Task<bool> replay(Journal& life) {
    std::vector<std::pair<Entry, Place>> found;
    const Journal::Visitor visitor = [&found](const Entry& entry, const Place& place) {
      found.emplace_back(entry, place);
    };
    const Result<journal::Replayed> replayed = co_await life.replay(visitor);
    if (!replayed) co_return false;
    promise(replayed->entries == found.size(), "replay counts what it gives");
    for (const auto& [entry, place] : found) {
      if (!forged_) check_entry(entry);
      if (entry.has_payload) co_await check_payload(life, entry, place);
    }
    const bool sound = replayed->damage.empty();
    co_return sound;
  }

  void check_entry(const Entry& entry) {
    const auto expected = base_.entries.find(entry.number);
    promise(expected != base_.entries.end() && expected->second == entry,
            "no entry is given that was not appended");
    promise(last_ == 0 || entry.number == last_ + 1, "entries come in order, without a gap");
    last_ = entry.number;
  }

  Task<void> check_payload(Journal& life, Entry entry, Place place) {
    if (entry.blocks > journal::kPayloadBlocksMax) broken("payload is bounded");
    Image bytes(entry.blocks * kBlock);
    const journal::Journal::Held held = life.hold(place);
    const Result<void> read = co_await life.read(held, bytes);
    if (!read || forged_) co_return;
    promise(bytes == payload_of(entry.number, entry.blocks), "an entry reads what was appended");
  }

  Task<void> find_again() {
    const Result<std::unique_ptr<Journal>> opened = co_await open(image_, rng_, base_.sealed);
    promise(opened.has_value(), "what was closed can be opened");
    Journal& life = **opened;
    uint64_t last = 0;
    const Journal::Visitor visitor = [&last](const Entry& entry, const Place& /*place*/) {
      last = entry.number;
    };
    const Result<journal::Replayed> replayed = co_await life.replay(visitor);
    promise(replayed && replayed->damage.empty(), "what was closed is not damaged");
    promise(last == kNextNumber, "what was synced is there");
    static_cast<void>(co_await life.close());
  }

  const Base& base_;
  Image image_;
  const bool forged_;
  SeededRng rng_{1};
  uint64_t last_ = 0;
};

void run_journal(FuzzInput& input, bool forged) {
  const Base& base = bases()[input.byte() % bases().size()];
  SimLoop loop({.seed = 1, .steps_max = 100'000});
  JournalRun run(base, input, forged);
  promise(loop.run(run.run()).has_value(), "a run ends");
  promise(loop.run_until_idle() == SimEnd::kIdle, "nothing is left behind");
}

/// A part of a journal by itself: what is taken is written again as it was.
void parse_alone(FuzzInput& input, bool forged) {
  const Base& base = bases()[input.byte() % bases().size()];
  Image image = base.image;
  const size_t header = some_header(image, input);
  for (unsigned i = 0; i < 8 && !input.empty(); ++i) {
    const size_t at = input.flip() ? header : 0;
    image[at + input.byte()] = std::byte(input.byte());
  }
  if (forged) repair(image);
  const Bytes first = Bytes(image).first(kBlock);
  if (const Result<journal::Superblock> one = journal::parse_superblock(first)) {
    Image again(kBlock);
    journal::encode(*one, again);
    promise(std::ranges::equal(again, first), "a superblock is written as it was read");
  }
  const auto identity = wire_read<journal::DiskHeader>(Bytes(image).subspan(header)).journal;
  const Bytes rest = Bytes(image).subspan(header);
  if (const Result<journal::Header> one = journal::parse_header(rest, identity)) {
    Image again(one->header_blocks * kBlock);
    journal::encode_unsealed(*one, identity, again);
    promise(journal::finish_header(one->tag, again) == one->crc, "its checksum is its own");
    promise(std::ranges::equal(again, rest.first(again.size())), "a header is written as read");
  }
}

}  // namespace
}  // namespace usbd::fuzz

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  usbd::log::set_sink([](usbd::log::Level, std::string_view) {});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  usbd::fuzz::FuzzInput input({data, size});
  const uint8_t mode = input.byte();
  const bool forged = (mode & 1U) != 0;
  if (mode % 8 < 2) {
    usbd::fuzz::parse_alone(input, forged);
  } else {
    usbd::fuzz::run_journal(input, forged);
  }
  return 0;
}

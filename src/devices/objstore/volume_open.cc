// SPDX-License-Identifier: Apache-2.0
//
// Opening a volume: which journal belongs to it, taking it, and learning where its blocks are. The
// order matters where a crash may come in between: a journal that is not the head's is put aside,
// and the one that will be is on disk, before the head names it.

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"
#include "devices/objstore/names.h"
#include "devices/objstore/snapshot_order.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {
namespace {

constexpr std::string_view kJournalPrefix = "journal-";
constexpr std::string_view kJournalSuffix = ".ring";
/// Being made: nothing is in it yet.
constexpr std::string_view kNewSuffix = ".new";
constexpr std::string_view kKeptSuffix = ".kept";

std::string journal_name(const Nonce& id) {
  return fmt::format("{}{}{}", kJournalPrefix, journal::to_hex(id), kJournalSuffix);
}

bool is_journal(const std::string& name) {
  return name.starts_with(kJournalPrefix) && name.ends_with(kJournalSuffix);
}

/// A journal, empty, with which a process died that was taking this epoch: what it had asked the
/// store for may still come, and then the head names it. Null: it is none.
Task<std::unique_ptr<journal::Journal>> open_unused(std::unique_ptr<BlockFile> file, Rng& rng,
                                                    journal::Options options, Head head) {
  Result<std::unique_ptr<journal::Journal>> opened =
      co_await journal::Journal::open(std::move(file), rng, std::move(options));
  if (!opened) co_return nullptr;
  const journal::Superblock& found = (*opened)->superblock();
  bool unused = found.volume == head.volume && found.epoch == head.epoch + 1;
  if (unused) {
    journal::Journal::Visitor nothing = [](const journal::Entry&, const journal::Place&) {};
    const Result<journal::Replayed> replayed = co_await (*opened)->replay(nothing);
    unused = replayed && replayed->damage.empty() && replayed->entries == 0;
  }
  if (unused) co_return *std::move(opened);
  static_cast<void>(co_await (*opened)->close());  // it was only read
  co_return nullptr;
}

}  // namespace

Task<Result<std::unique_ptr<Volume>>> Volume::open(VolumeParts parts, VolumeOptions options) {
  std::unique_ptr<Volume> volume(new Volume(std::move(parts), std::move(options)));
  Result<void> started = co_await volume->start();
  if (!started) {
    static_cast<void>(co_await volume->close(std::stop_token()));  // the first error matters
    co_return std::move(started).error();
  }
  co_return std::move(volume);
}

Volume::Volume(VolumeParts parts, VolumeOptions options)
    : parts_(std::move(parts)),
      options_(std::move(options)),
      home_(Loop::current()),
      keeper_(parts_.store, parts_.rng,
              {.name = head_name(options_.name), .key = parts_.key, .fencing = options_.fencing}) {}

Volume::~Volume() = default;

VolumeSeal Volume::seal() const {
  return {.volume = head().volume, .cipher = head().cipher, .key = parts_.key};
}

Task<Result<void>> Volume::start() {
  USBD_CO_TRY(const HeadKeeper::Found found, co_await find_or_create());
  USBD_CO_TRY_VOID(check_geometry(found.head));
  {
    const MutexLock lock(mutex_);
    size_ = found.head.size;
    live_ = std::make_unique<LiveMap>(blocks());
    pager_ = make_pager(*live_);
    live_->loaded(0);
    published_number_ = found.head.published_number;
    next_number_ = published_number_ + 1;
  }
  if (options_.read_only) {
    keeper_.look(found);
    make_reader();
    USBD_CO_TRY_VOID(co_await look_again());
    reader_->wait_for_store(options_.timeout);
    co_return Result<void>();
  }
  USBD_CO_TRY(seen_, co_await SeenHead::open(*parts_.folder));
  USBD_CO_TRY_VOID(seen_->check(found.head));
  USBD_CO_TRY_VOID(co_await choose_journal(found.head));
  co_await MapPager::remove_left_over(*parts_.folder);
  USBD_CO_TRY_VOID(co_await journal_->begin(found.head.epoch + 1, last_number() + 1));
  USBD_CO_TRY_VOID(co_await take(found));
  make_reader();
  USBD_CO_TRY_VOID(damage_if_gone(co_await load_map(*live_, pager_)));
  co_await open_cache(found.head);
  reader_->wait_for_store(options_.timeout);
  USBD_CO_TRY_VOID(adopt_replayed());
  journal_->on_change([this] { wake_writers(); });
  last_publish_ = home_.now();
  show_head();
  scope_.spawn(background());
  if (options_.space.sweeps) scope_.spawn(sweep());
  co_return Result<void>();
}

Task<Result<HeadKeeper::Found>> Volume::find_or_create() {
  Result<HeadKeeper::Found> found = co_await keeper_.read({});
  if (found && options_.create == CreatePolicy::kOnly) {
    co_return Error(Errc::kExists, options_.name + ": there is a volume of that name already");
  }
  if (found || !found.error().is(Errc::kNotFound)) co_return found;
  if (options_.create == CreatePolicy::kNever || options_.read_only) {
    co_return Error(Errc::kNotFound, fmt::format("{}: there is no volume of that name at {}",
                                                 options_.name, parts_.store.name()));
  }
  USBD_CO_TRY_VOID(co_await refuse_over_a_journal());
  Result<HeadKeeper::Found> made = co_await create();
  // What an earlier attempt, even of a dead process, had asked for may have come in between.
  const bool exists = !made && made.error().is(Errc::kExists);
  if (exists && options_.create == CreatePolicy::kAuto) co_return co_await keeper_.read({});
  co_return made;
}

/// A journal is made only after its volume: the head was lost, or the store is another one.
Task<Result<void>> Volume::refuse_over_a_journal() {
  USBD_CO_TRY(const std::vector<std::string> names, co_await parts_.folder->list());
  auto found = std::ranges::find_if(
      names, [](const std::string& name) { return name.starts_with(kJournalPrefix); });
  const bool journal = found != names.end();
  if (!journal) found = std::ranges::find(names, kSeenHeadFile);
  if (found == names.end()) co_return Result<void>();
  co_return Error(
      Errc::kExists,
      fmt::format("there is no volume {} at {}, but here is a {} of one: {} in {}. No new "
                  "volume is made in its place. If the old one is really gone, move its local "
                  "directory away",
                  options_.name, parts_.store.name(), journal ? "journal" : "trace", *found,
                  parts_.folder->name()));
}

Task<Result<HeadKeeper::Found>> Volume::create() {
  Head head;
  parts_.rng.fill(head.volume);
  head.logical_block_size = options_.logical_block_size;
  const uint64_t block = head.logical_block_size;
  head.size = (options_.size + block - 1) / block * block;
  head.cipher = options_.cipher;
  parts_.rng.fill(head.key_salt);
  if (head.cipher != crypto::CipherMode::kIdentity) {
    head.key_check = crypto::key_check(parts_.key, head.key_salt);
  }
  head.epoch = 1;
  head.clean = true;
  USBD_CO_TRY_VOID(co_await keeper_.create(head, {}));
  log::info("made the volume {} of {} bytes at {}", options_.name, head.size, parts_.store.name());
  created_ = true;
  co_return co_await keeper_.read({});
}

Result<void> Volume::check_geometry(const Head& head) const {
  const uint64_t block = head.logical_block_size;
  const bool same =
      options_.size == head.size || (options_.size + block - 1) / block * block == head.size;
  if (options_.size_is_explicit && !same) {
    return Error(Errc::kInvalid,
                 fmt::format("the volume {} has {} bytes, but {} were asked for: ask for no size, "
                             "or for that one, or name another volume",
                             options_.name, head.size, options_.size));
  }
  return {};
}

journal::Options Volume::journal_options() const {
  journal::Options options;
  options.sealer = parts_.journal_sealer;
  options.payload_blocks_max = options_.journal_payload_max;
  options.kept_bytes_max = options_.memory_bytes;
  options.broken_rule = options_.broken_journal_rule;
  return options;
}

Task<Result<std::unique_ptr<journal::Journal>>> Volume::open_journal(const std::string& name) {
  const Folder::OpenHow how{.create = CreatePolicy::kNever, .direct = true};
  USBD_CO_TRY(std::unique_ptr<BlockFile> file, co_await parts_.folder->open(name, how));
  co_return co_await journal::Journal::open(std::move(file), parts_.rng, journal_options());
}

Task<Result<void>> Volume::put_aside(const std::string& name) {
  uint64_t entries = 1;
  Result<std::unique_ptr<journal::Journal>> old = co_await open_journal(name);
  // A process that lives writes to it, though the volume is not its own any more.
  if (!old && old.error().is(Errc::kBusy)) co_return old.error();
  if (old) {
    journal::Journal::Visitor nothing = [](const journal::Entry&, const journal::Place&) {};
    const Result<journal::Replayed> replayed = co_await (*old)->replay(nothing);
    if (replayed && replayed->damage.empty()) entries = replayed->entries;
    static_cast<void>(co_await (*old)->close());  // it was only read
  }
  if (entries == 0) co_return co_await parts_.folder->remove(name);
  log::warning(
      "{} in {} does not belong to the volume's present epoch: it is kept as {}{} and not "
      "used. It may hold writes that were never published",
      name, parts_.folder->name(), name, kKeptSuffix);
  co_return co_await parts_.folder->rename(name, name + std::string(kKeptSuffix));
}

Error Volume::older_journal(const std::string& name, uint64_t epoch, uint64_t taken) const {
  return Error(
      Errc::kIo,
      fmt::format("{} in {} was last used in epoch {}, but the volume was taken with it in "
                  "epoch {}: it is damaged, or an older copy of it. Nothing was changed. "
                  "If the newer one is lost, -objstore-takeover goes on with what was "
                  "published, and keeps this file",
                  name, parts_.folder->name(), epoch, taken));
}

Task<Result<void>> Volume::choose_journal(const Head& head) {
  const std::string wanted = journal_name(head.journal);
  USBD_CO_TRY(const std::vector<std::string> names, co_await parts_.folder->list());
  const bool has_wanted = std::ranges::find(names, wanted) != names.end();
  // What was flushed may be in a journal and nowhere else.
  const bool elsewhere = !head.clean && options_.flush_mode == FlushMode::kLocal;
  for (const std::string& name : names) {
    if (name.starts_with(kJournalPrefix) && name.ends_with(kNewSuffix)) {
      USBD_CO_TRY_VOID(co_await parts_.folder->remove(name));
    }
    if (!is_journal(name)) continue;
    if (name != wanted && keeps(VolumeRule::kChoosesItsOwnJournal)) {
      if (!has_wanted && !journal_) {
        const Folder::OpenHow how{.create = CreatePolicy::kNever, .direct = true};
        Result<std::unique_ptr<BlockFile>> file = co_await parts_.folder->open(name, how);
        if (file) {
          journal_ = co_await open_unused(*std::move(file), parts_.rng, journal_options(), head);
        }
        if (journal_) continue;
      }
      USBD_CO_TRY_VOID(co_await put_aside(name));
      continue;
    }
    USBD_CO_TRY(journal_, co_await open_journal(name));
    const journal::Superblock& found = journal_->superblock();
    // The epoch is written before it is taken: a crash between the two leaves one more.
    const bool current = found.epoch == head.epoch || found.epoch == head.epoch + 1;
    const bool same = found.volume == head.volume && found.journal == head.journal;
    if ((!current || !same) && keeps(VolumeRule::kChoosesItsOwnJournal)) {
      const uint64_t epoch = found.epoch;
      USBD_CO_TRY_VOID(co_await journal_->close());
      journal_ = nullptr;
      // The epoch was written here before it was taken.
      if (same && elsewhere && !options_.takeover) co_return older_journal(name, epoch, head.epoch);
      USBD_CO_TRY_VOID(co_await put_aside(name));
      continue;
    }
    journal_id_ = found.journal;
    journal::Journal::Visitor visitor = [this](const journal::Entry& entry,
                                               const journal::Place& place) {
      replayed_.emplace_back(entry, place);
    };
    USBD_CO_TRY(const journal::Replayed replayed, co_await journal_->replay(visitor));
    if (!replayed.damage.empty()) {
      co_return Error(Errc::kIo, replayed.damage +
                                     ". The volume can be read as it was last published with "
                                     "-read-only; nothing was changed");
    }
    if (!replayed_.empty()) {
      const MutexLock lock(mutex_);
      next_number_ = std::max(next_number_, replayed_.back().first.number + 1);
    }
    co_return Result<void>();
  }
  if (elsewhere && !options_.takeover) {
    co_return Error(
        Errc::kBusy,
        fmt::format("the volume {} is open, or was not stopped, somewhere else: what was flushed "
                    "there may not be in the store yet (it is in journal {}). Stop it there; or, "
                    "if that journal is lost, give -objstore-takeover to go on with what was "
                    "published",
                    options_.name, journal::to_hex(head.journal)));
  }
  if (!journal_) co_return co_await make_journal(head.epoch + 1);
  journal_id_ = journal_->superblock().journal;
  co_return Result<void>();
}

Task<Result<void>> Volume::make_journal(uint64_t epoch) {
  parts_.rng.fill(journal_id_);
  const std::string name = journal_name(journal_id_);
  USBD_CO_TRY(const HeadKeeper::Found found, co_await keeper_.read({}));
  const journal::Identity identity{.volume = found.head.volume, .journal = journal_id_};
  const Folder::OpenHow how{.create = CreatePolicy::kOnly, .direct = true};
  const std::string unfinished = name + std::string(kNewSuffix);
  USBD_CO_TRY(std::unique_ptr<BlockFile> file, co_await parts_.folder->open(unfinished, how));
  const uint64_t bytes = options_.journal_bytes / journal::kBlock * journal::kBlock;
  const Result<void> formatted = co_await journal::Journal::format(*file, identity, bytes, epoch);
  const Result<void> closed = co_await file->close();
  USBD_CO_TRY_VOID(formatted);
  USBD_CO_TRY_VOID(closed);
  USBD_CO_TRY_VOID(co_await parts_.folder->rename(unfinished, name));
  USBD_CO_TRY(journal_, co_await open_journal(name));
  journal::Journal::Visitor nothing = [](const journal::Entry&, const journal::Place&) {};
  USBD_CO_TRY(const journal::Replayed replayed, co_await journal_->replay(nothing));
  USBD_ASSERT(replayed.entries == 0);
  co_return Result<void>();
}

Task<Result<void>> Volume::take(const HeadKeeper::Found& found) {
  Head next = found.head;
  next.clean = false;
  next.journal = journal_id_;
  if (next.root.covers_seq == next.last_seq) next.epochs.clear();
  const EpochStart start{.epoch = next.epoch + 1, .first_seq = next.last_seq + 1};
  if (!next.epochs.empty() && next.epochs.back().first_seq == start.first_seq) {
    next.epochs.pop_back();
  }
  // Nothing is published while the list is full, so there is always room for one more.
  if (next.epochs.size() == kEpochStartsMax) {
    co_return Error(Errc::kIo, "the head lists more epochs than any process writes");
  }
  next.epochs.push_back(start);
  USBD_CO_TRY_VOID(co_await keeper_.take(found, std::move(next), {}));
  co_await remember_head();
  const MutexLock lock(mutex_);
  next_seq_ = head().last_seq + 1;
  co_return Result<void>();
}

/// What is published is in the store, so that a local disk that fails here is no reason to stop.
Task<void> Volume::remember_head() {
  const bool synced = keeps(VolumeRule::kRemembersBeforeItAnswers);
  const Head now = head();
  const Result<void> noted = co_await seen_->remember(now, synced);
  if (noted || stop_.stop_requested() || std::exchange(seen_failed_, true)) co_return;
  log::warning("{}: if the store ever shows an older state than now, it may not be noticed here",
               noted.error().message());
}

// --- reading
// --------------------------------------------------------------------------------------

void Volume::make_reader() {
  reader_ = std::make_unique<ObjectReader>(ObjectReader::Parts{.store = parts_.store,
                                                               .volume = options_.name,
                                                               .seal = seal(),
                                                               .workers = parts_.workers,
                                                               .stop = stop_.get_token()});
  reader_->on_frame([this](const ReadPiece& piece, uint32_t frame, const FrameMemory& plain) {
    admit(piece, frame, plain);
  });
}

/// `found`: the head as it was before this process took the volume.
Task<void> Volume::open_cache(const Head& found) {
  if (options_.cache_bytes < kBlockBytes) co_return;
  const BlockCache::Options options{
      .volume = found.volume,
      .sealed = found.cipher != crypto::CipherMode::kIdentity,
      .key = parts_.key,
      .blocks_max = std::min(options_.cache_bytes / kBlockBytes, blocks()),
      .persist = options_.keeps_cache,
      .found = found.nonce,
      .workers = parts_.workers,
      .proves = keeps(VolumeRule::kProvesWhatItKept)};
  cache_ = co_await BlockCache::open(*parts_.folder, parts_.rng, options);
}

Task<void> Volume::close_reading() {
  if (reader_) co_await reader_->close();
  if (pager_) co_await pager_->close();
  if (!cache_) co_return;
  // Whoever has taken the volume may go on in another way than this process believes.
  const std::optional<CacheStamp> left =
      keeper_.fenced() ? std::nullopt : std::optional(head().nonce);
  co_await cache_->close(left);
}

Result<void> Volume::adopt_replayed() {
  const MutexLock lock(mutex_);
  const uint64_t published = published_number_;
  uint64_t expected = published + 1;
  for (const auto& [entry, place] : replayed_) {
    if (entry.number <= published) continue;
    const BlockRange blocks(entry.block, entry.blocks);
    const bool known = entry.kind >= static_cast<uint8_t>(ExtentKind::kData) &&
                       entry.kind <= static_cast<uint8_t>(ExtentKind::kZero);
    if (!known || entry.block > this->blocks() || blocks.end() > this->blocks()) {
      return Error(Errc::kIo,
                   fmt::format("entry {} of the journal is none of this volume's", entry.number));
    }
    if (entry.number != expected++) {
      return Error(Errc::kIo,
                   fmt::format("the journal goes on with write {}, but the store ends with write "
                               "{}: the store shows an older state than this host has published",
                               entry.number, published));
    }
    add_change({.blocks = blocks,
                .number = entry.number,
                .kind = static_cast<ExtentKind>(entry.kind),
                .place = place});
  }
  replayed_.clear();
  if (!batches_.empty()) close_batch();
  journal_->release(published);
  return {};
}

}  // namespace usbd::objstore

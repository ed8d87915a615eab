// SPDX-License-Identifier: Apache-2.0
//
// A whole volume, of which one thing is not as it was left: an object of any kind, the head, the
// journal, the cache. Each change is either refused, at opening or by a read of what cannot be
// proven, or harmless: no read ever gives a wrong byte. USBD_MUTATIONS (1500, with a sanitizer 150)
// is how many are tried on each of two volumes, one that was stopped and one that was killed;
// USBD_SEED says which.

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "base/sanitized.h"
#include "devices/objstore/journal_sealer.h"
#include "devices/objstore/memory_folder_testing.h"
#include "devices/objstore/volume.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

using ByteVector = std::vector<std::byte>;
using Objects = std::map<std::string, objects::MemoryContainer::Object, std::less<>>;
using Files = std::map<std::string, ByteVector>;

constexpr uint64_t kBlocks = 192;

/// All that is left of a volume at some moment.
struct Remains {
  Objects objects;
  Files files;
  ByteVector image;
};

enum class Change : uint8_t {
  kFlippedBit,
  kOtherByte,
  kTruncated,
  kLengthened,
  kLostRange,
  kRotated,
  kSwapped,
  kSpliced,
  kOlder,
  kOlderPart,
  kGone
};
constexpr std::array kNames = {
    "flipped bit", "other byte", "truncated",   "lengthened",          "lost range", "rotated",
    "swapped",     "spliced",    "older state", "part of older state", "gone"};

struct Outcome {
  uint64_t tried = 0;
  uint64_t refused = 0;
  uint64_t partly = 0;
  uint64_t harmless = 0;
};

uint64_t number_from(const char* name, uint64_t fallback) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : fallback;
}

class VolumeMutations : public ::testing::Test {
 protected:
  VolumeMutations() : image(kBlocks * kBlockBytes) {
    options.name = "vol";
    options.size = kBlocks * kBlockBytes;
    options.object_bytes = 16 * kBlockBytes;
    options.journal_bytes = 1U << 20;
    options.journal_payload_max = 8;
    options.cache_bytes = kBlocks * kBlockBytes;
    options.keeps_cache = true;
    options.space.clean = {.target = 1.2,
                           .round_bytes = 24 * kBlockBytes,
                           .waste_min = 8 * kBlockBytes,
                           .small_bytes = 0,
                           .small_objects = 0};
    options.space.checkpoint_data_bytes = 32 * kBlockBytes;
    options.space.sweeps = false;
    SeededRng(4).fill(key);
  }

  template <typename T>
  T run(Task<T> task) {
    std::optional<T> result = loop.run(std::move(task));
    EXPECT_TRUE(result.has_value()) << "it hangs";
    return *std::move(result);
  }
  Result<void> open() {
    const VolumeParts parts{.store = store,
                            .folder = &folder,
                            .rng = rng,
                            .key = key,
                            .journal_sealer = journal_sealers(key)};
    USBD_TRY(volume, run(Volume::open(parts, options)));
    return {};
  }
  void end() {
    if (!volume) return;
    volume->abandon();
    static_cast<void>(run(volume->close({})));
    loop.run_until_idle();
    volume.reset();
  }
  void write(uint64_t block, uint64_t count) {
    const MutableBytes bytes =
        MutableBytes(image).subspan(block * kBlockBytes, count * kBlockBytes);
    rng.fill(bytes);
    ASSERT_TRUE(run(volume->write(block, bytes)));
  }
  void overwrite_at_random(int writes) {
    for (int i = 0; i < writes; ++i) {
      write(rng.below(kBlocks - 4), rng.between(1, 4));
      ASSERT_TRUE(run(volume->flush()));
      loop.run_for(Nanos(300'000'000));
    }
  }
  void read_everything() {
    ByteVector out(image.size());
    ASSERT_TRUE(run(volume->read(0, out)));
    ASSERT_EQ(out, image);
    loop.run_for(Nanos(1'000'000'000));
  }
  /// Log objects, copies, checkpoints; part of it was overwritten.
  void make_a_volume() {
    ASSERT_TRUE(open());
    for (uint64_t at = 0; at < kBlocks; at += 8) write(at, 8);
    ASSERT_TRUE(run(volume->publish_all()));
    overwrite_at_random(60);
    ASSERT_TRUE(run(volume->publish_all()));
    loop.run_for(Nanos(10'000'000'000));
    read_everything();
    EXPECT_GT(volume->state().objects_cleaned, 0U);
    EXPECT_GT(volume->state().checkpoints_made, 1U);
  }
  [[nodiscard]] Remains remains() const {
    Remains all{.objects = bucket->objects, .files = {}, .image = image};
    for (const auto& [name, file] : disk.files) all.files[name] = *file;
    return all;
  }
  void put_back(const Remains& all) {
    bucket->objects = all.objects;
    bucket->bytes = 0;
    for (const auto& [name, object] : all.objects) bucket->bytes += object.data.size();
    disk.files.clear();
    for (const auto& [name, file] : all.files) {
      disk.files[name] = std::make_shared<ByteVector>(file);
    }
  }

  [[nodiscard]] static std::string kind_of(const std::string& name) {
    for (const std::string_view part : {"/d/", "/g/", "/m/"}) {
      if (name.contains(part)) return std::string(part.substr(1, 1));
    }
    return name.ends_with("/head") ? "head" : name.substr(0, name.find_first_of("-.")) + " file";
  }

  /// Every kind of thing is as likely as another.
  ByteVector& choose(SeededRng& choices, std::string& name) {
    std::map<std::string, std::vector<std::pair<std::string, ByteVector*>>> kinds;
    for (auto& [one, object] : bucket->objects) kinds[kind_of(one)].emplace_back(one, &object.data);
    for (auto& [one, file] : disk.files) {
      if (!file->empty()) kinds[kind_of(one)].emplace_back(one, file.get());
    }
    auto kind = kinds.begin();
    std::advance(kind, static_cast<ptrdiff_t>(choices.below(kinds.size())));
    auto& [found, bytes] = kind->second[choices.below(kind->second.size())];
    name = found;
    return *bytes;
  }
  /// Of the same kind.
  ByteVector* another(SeededRng& choices, const std::string& name) {
    std::vector<ByteVector*> others;
    for (auto& [one, object] : bucket->objects) {
      if (one != name && kind_of(one) == kind_of(name)) others.push_back(&object.data);
    }
    return others.empty() ? nullptr : others[choices.below(others.size())];
  }
  static const ByteVector* older_of(const Remains& older, const std::string& name) {
    if (const auto found = older.objects.find(name); found != older.objects.end()) {
      return &found->second.data;
    }
    const auto found = older.files.find(name);
    return found == older.files.end() ? nullptr : &found->second;
  }

  /// Without a head there is no volume; without a journal it is what was published.
  bool remove(const std::string& name) {
    if (kind_of(name) == "head" || kind_of(name) == "journal file") return false;
    return bucket->objects.erase(name) + disk.files.erase(name) > 0;
  }
  /// Returns whether anything was changed.
  bool change(SeededRng& choices, Change how, const Remains& older, std::string& name) {
    ByteVector& bytes = choose(choices, name);
    const ByteVector before = bytes;
    const uint64_t at = choices.below(bytes.size());
    const auto from = bytes.begin() + static_cast<ptrdiff_t>(at);
    const bool is_object = name.contains('/');
    const ByteVector* const past = older_of(older, name);
    switch (how) {
      case Change::kFlippedBit:
        bytes[at] ^= static_cast<std::byte>(1U << choices.below(8));
        break;
      case Change::kOtherByte:
        bytes[at] = static_cast<std::byte>(choices.below(256));
        break;
      case Change::kTruncated:
        bytes.resize(at);
        break;
      case Change::kLengthened:
        bytes.resize(bytes.size() + choices.between(1, 5000), std::byte(choices.below(256)));
        break;
      case Change::kLostRange: {
        // The last record that was synced and the mark behind it, which says so, may be lost
        // together: nothing is left then that tells. One block of a journal at a time.
        const uint64_t end = kind_of(name) == "journal file" ? at / 4096 * 4096 + 4096 : UINT64_MAX;
        const uint64_t longest = std::min<uint64_t>(bytes.size(), end) - at;
        std::fill_n(from, std::min(longest, choices.between(1, 8192)), std::byte{0});
        break;
      }
      case Change::kRotated:
        std::rotate(bytes.begin(), from, bytes.end());
        break;
      case Change::kSwapped:
        if (ByteVector* const other = another(choices, name)) std::swap(bytes, *other);
        break;
      case Change::kSpliced:
        if (const ByteVector* const other = another(choices, name)) {
          bytes.resize(at);
          const uint64_t rest = std::min<uint64_t>(at, other->size());
          bytes.insert(bytes.end(), other->begin() + static_cast<ptrdiff_t>(rest), other->end());
        }
        break;
      case Change::kOlder:
        // A ring that is wholly of an earlier moment is that of an earlier crash.
        if (past != nullptr && kind_of(name) != "journal file") bytes = *past;
        break;
      case Change::kOlderPart:
        if (past != nullptr && !is_object) {
          const uint64_t first = at / 4096 * 4096;
          if (first + 4096 <= std::min(past->size(), bytes.size())) {
            std::copy_n(past->begin() + static_cast<ptrdiff_t>(first), 4096,
                        bytes.begin() + static_cast<ptrdiff_t>(first));
          }
        }
        break;
      case Change::kGone:
        return remove(name);
    }
    return bytes != before;
  }

  /// Whether all that can be read is right. `refused`: blocks that cannot.
  [[nodiscard]] bool reads_right(const Remains& all, uint64_t& refused) {
    bool right = true;
    ByteVector out(kBlockBytes);
    for (uint64_t block = 0; block < kBlocks; ++block) {
      if (!run(volume->read(block, out))) {
        ++refused;
        continue;
      }
      const Bytes expected = Bytes(all.image).subspan(block * kBlockBytes, kBlockBytes);
      right = right && std::ranges::equal(out, expected);
    }
    return right;
  }

  void try_all(const char* what, const Remains& all, const Remains& older) {
    const uint64_t seed = number_from("USBD_SEED", 1);
    const uint64_t count = number_from("USBD_MUTATIONS", sanitized() ? 150 : 1500);
    std::map<std::string, Outcome> outcomes;
    uint64_t tried = 0;
    for (uint64_t i = 0; tried < count; ++i) {
      SeededRng choices(seed + i);
      const auto how = static_cast<Change>(choices.below(kNames.size()));
      put_back(all);
      std::string name;
      if (!change(choices, how, older, name)) continue;
      ++tried;
      Outcome& outcome = outcomes[kind_of(name)];
      ++outcome.tried;
      const std::string which = fmt::format("seed {}: {}: {} of {}", seed + i, what,
                                            kNames[static_cast<size_t>(how)], name);
      if (const Result<void> opened = open(); !opened) {
        ++outcome.refused;
        loop.run_until_idle();
        continue;
      }
      uint64_t refused = 0;
      EXPECT_TRUE(reads_right(all, refused)) << which;
      ++(refused > 0 ? outcome.partly : outcome.harmless);
      end();
      if (HasFailure()) break;
    }
    for (const auto& [kind, one] : outcomes) {
      GTEST_LOG_(INFO) << fmt::format(
          "{}, {}: {} changes: {} refused at opening, {} in part, {} harmless", what, kind,
          one.tried, one.refused, one.partly, one.harmless);
    }
  }

  SimLoop loop{{.seed = 1}};
  std::shared_ptr<objects::MemoryContainer> bucket = std::make_shared<objects::MemoryContainer>();
  objects::MemoryStore store{bucket};
  MemoryDisk disk;
  MemoryFolder folder{disk};
  SeededRng rng{9};
  std::array<std::byte, 32> key{};
  VolumeOptions options;
  ByteVector image;
  std::unique_ptr<Volume> volume;
};

TEST_F(VolumeMutations, OfAStoppedVolumeGiveNoWrongByte) {
  make_a_volume();
  const Remains older = remains();
  overwrite_at_random(20);
  read_everything();
  ASSERT_TRUE(run(volume->close({})));
  loop.run_until_idle();
  volume.reset();
  const Remains all = remains();
  ASSERT_TRUE(all.files.contains("cache.blocks"));
  try_all("stopped", all, older);
}

TEST_F(VolumeMutations, OfAKilledVolumeGiveNoWrongByte) {
  make_a_volume();
  overwrite_at_random(10);
  ASSERT_TRUE(run(volume->publish_all()));
  options.flush_every = Nanos(0);
  end();
  ASSERT_TRUE(open());
  const Remains older = remains();
  for (int i = 0; i < 3; ++i) {
    write(rng.below(kBlocks - 4), 4);
    ASSERT_TRUE(run(volume->flush()));
  }
  loop.run_for(Nanos(5'000'000'000));  // it notes that all of it is durable
  const Remains all = remains();
  EXPECT_GT(volume->state().unpublished_bytes, 0U);
  end();
  try_all("killed", all, older);
}

}  // namespace
}  // namespace usbd::objstore

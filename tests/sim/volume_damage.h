// SPDX-License-Identifier: Apache-2.0
//
// What goes wrong under a volume, beside crashes: calls to the disk that fail, bytes of the journal
// that rot, objects that are not what was stored. And what a damaged journal still says of itself,
// which is what its owner may be held to.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "sim/sim_disk.h"
#include "sim/sim_store.h"

namespace usbd::sim {

/// Makes calls to the disk fail from some moment on, once, a few times or for ever.
enum class DiskTrouble : uint8_t { kRingWrite, kSuperblockWrite, kSync, kRead };
inline constexpr size_t kDiskTroubles = 4;
const char* name_of(DiskTrouble trouble);
DiskTrouble inject_trouble(SimDisk& disk, Rng& rng);

/// What rot does to a journal.
enum class Rot : uint8_t { kFlippedBit, kLostSector, kAnothersSector };
inline constexpr size_t kRots = 3;
const char* name_of(Rot rot);

/// What can be told from the bytes of a journal alone.
struct JournalReading {
  /// By record: the last number of its entries.
  std::map<uint64_t, uint64_t> numbers;
  /// Records up to this one are said to have been durable.
  uint64_t durable_record = 0;

  /// The last number that is in those records. Range: none of them is newer than this reading.
  [[nodiscard]] uint64_t last_number_of(uint64_t record) const;
};
JournalReading read_journal(const std::vector<std::byte>& image);

/// A journal that has rotted.
struct Rotten {
  Rot kind = Rot::kFlippedBit;
  /// The last number that it still knows to have been durable.
  uint64_t known_durable = 0;
};
/// Empty: there is no journal on that disk.
std::optional<Rotten> rot_journal(SimDisk& disk, Rng& rng);

/// What becomes of an object.
enum class Mutation : uint8_t { kFlippedBit, kTruncated, kAnothersBytes, kLostRange, kGone };
inline constexpr size_t kMutations = 5;
const char* name_of(Mutation mutation);

/// The journal on that disk is misread until disk.reads_well(). `known_durable` as if it had
/// rotted.
std::optional<Rotten> misread_journal(SimDisk& disk, Rng& rng);

/// Changes objects, and puts them right again. Lifetime: the store outlives it.
class Mutator {
 public:
  Mutator(SimStore& store, Rng& rng) : store_(store), rng_(rng) {}

  /// Changes one object; empty: there is none.
  std::optional<Mutation> mutate();
  /// Puts all back that is still as it was left.
  void restore();

 private:
  struct Original {
    SimStore::Object object;
    /// What it was changed into; empty tag: it was removed.
    SimStore::Object changed;
  };
  Mutation change(std::vector<std::byte>& data);

  SimStore& store_;
  Rng& rng_;
  std::map<std::string, Original> originals_;
};

}  // namespace usbd::sim

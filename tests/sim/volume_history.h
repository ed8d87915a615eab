// SPDX-License-Identifier: Apache-2.0
//
// A history of one volume: lives of processes on one or two hosts, in front of one bucket. A life
// ends by a kill, a power cut, a proper close, or the loss of its host's disk, at any boundary of
// any call to disk or store. After each the image that the next one finds is compared, block by
// block, with what was written: it must be that of a prefix of the numbered changes which has every
// change that was flushed.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "devices/objstore/volume.h"
#include "sim/volume_damage.h"

namespace usbd::sim {

struct VolumeHistoryOptions {
  uint64_t seed = 1;
  objstore::FlushMode mode = objstore::FlushMode::kLocal;
  std::optional<objstore::VolumeRule> broken_rule = {};
  std::optional<journal::Rule> broken_journal_rule = {};
  unsigned lives = 4;
  /// One call to the store in so many fails; 0: none.
  uint64_t store_fault_one_in = 12;
  /// Whether hosts lose their disks, and the volume goes to another host.
  bool loses_disks = true;
  /// Whether calls to the disk fail, journals rot between lives, and objects are not what was
  /// stored.
  bool disk_fails = false;
  bool rots = false;
  bool mutates = false;
  /// Whether journals are read wrongly by one opening, and well by the next.
  bool misreads = false;
  /// Whether the store shows an older state now and then, on a host that has seen a newer one.
  bool rolls_back = true;
  /// Whether some histories have a cipher and codecs, a store that retries, slow calls and
  /// outages. Else none has.
  bool varies = true;
  /// One history in so many takes and deletes snapshots; 0: none.
  uint64_t snapshots_one_in = 3;
};

/// Where crashes fell.
enum class VolumePhase : uint8_t {
  kOpening,
  kJournalWrite,
  kJournalSync,
  kSuperblock,
  kUpload,
  kPublish,
  kFetch,
  kCheckpoint,
  kClean,
  kDelete,
  kOther,
};
inline constexpr size_t kVolumePhases = 11;
const char* volume_phase_name(VolumePhase phase);

struct VolumeHistoryResult {
  /// Empty: every promise was kept.
  std::string broken_promise;
  uint64_t crashes = 0;
  uint64_t lost_disks = 0;
  uint64_t takeovers = 0;
  uint64_t changes = 0;
  uint64_t flushed = 0;
  uint64_t reads = 0;
  uint64_t objects = 0;
  uint64_t checkpoints = 0;
  uint64_t cleaned = 0;
  uint64_t deleted = 0;
  uint64_t snapshots = 0;
  uint64_t snapshots_deleted = 0;
  uint64_t snapshots_compared = 0;
  /// Of a call that a crash ended.
  uint64_t snapshots_cut_off = 0;
  /// Whether there were any: of histories, in a sum.
  uint64_t with_checkpoints = 0;
  uint64_t with_cleaning = 0;
  uint64_t store_faults = 0;
  uint64_t slow_calls = 0;
  uint64_t outages = 0;
  uint64_t encrypted = 0;
  uint64_t retrying = 0;
  uint64_t disk_faults = 0;
  /// Flushes that failed, as they must, since the journal had.
  uint64_t refused_flushes = 0;
  /// Openings that were refused for what is on the disk or in the store.
  uint64_t refused_openings = 0;
  /// Damage that was there and did no harm.
  uint64_t harmless = 0;
  uint64_t rotted = 0;
  uint64_t misread = 0;
  /// Older states of the store that were refused.
  uint64_t rolled_back = 0;
  /// How promises were broken.
  uint64_t lost_flushes = 0;
  uint64_t prefix_violations = 0;
  uint64_t mutated = 0;
  /// Blocks read, and refused, of volumes with an object that is not what was stored.
  uint64_t blocks_readable = 0;
  uint64_t blocks_refused = 0;
  std::array<uint64_t, kDiskTroubles> troubles{};
  std::array<uint64_t, kRots> rots{};
  std::array<uint64_t, kMutations> mutations{};
  uint64_t cache_hits = 0;
  uint64_t cache_damaged = 0;
  /// Lives that began with a cache that was kept.
  uint64_t caches_kept = 0;
  std::array<uint64_t, kVolumePhases> phases{};

  /// Adds what `other` counts by kind.
  void add_kinds(const VolumeHistoryResult& other);
};

VolumeHistoryResult run_volume_history(VolumeHistoryOptions options);

}  // namespace usbd::sim

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
  uint64_t store_faults = 0;
  std::array<uint64_t, kVolumePhases> phases{};
};

VolumeHistoryResult run_volume_history(VolumeHistoryOptions options);

}  // namespace usbd::sim

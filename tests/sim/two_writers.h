// SPDX-License-Identifier: Apache-2.0
//
// Two processes on two hosts want one volume. The first writes and flushes, and stalls now and
// then; the second takes the volume over. Whoever lost it must say so soon, must not have promised
// anything that the winner does not have (remote flush), and must not be able to change anything
// any more, whatever it had asked the store for before.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "devices/objstore/volume.h"

namespace usbd::sim {

struct TwoWritersOptions {
  uint64_t seed = 1;
  objstore::FlushMode mode = objstore::FlushMode::kRemote;
  std::optional<objstore::VolumeRule> broken_rule = {};
};

struct TwoWritersResult {
  /// Empty: every promise was kept.
  std::string broken_promise;
  uint64_t changes = 0;
  uint64_t flushes = 0;
  uint64_t refused_flushes = 0;
  uint64_t takeovers = 0;
  /// Pauses of the loser's clients, calls to the store that took seconds, calls that failed, and
  /// those of them that may have had their effect.
  uint64_t stalls = 0;
  uint64_t slow_calls = 0;
  uint64_t store_faults = 0;
  uint64_t ambiguous = 0;
  /// Journals that the loser kept, with flushed changes that the winner has not; and how many.
  uint64_t kept_journals = 0;
  uint64_t exported = 0;
  /// Of both.
  uint64_t checkpoints = 0;
  uint64_t cleaned = 0;
  uint64_t deleted = 0;
};

TwoWritersResult run_two_writers(TwoWritersOptions options);

}  // namespace usbd::sim

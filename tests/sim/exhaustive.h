// SPDX-License-Identifier: Apache-2.0
//
// Every crash of a script: at each event, as a kill and as a power cut; of a kill, with what was
// under way lost, and landing; of a power cut, with every subset of the writes that were not synced
// (of more than four: all, none, and each alone lost or kept), and each one torn. And every pair of
// crashes, of the simple kinds.

#pragma once

#include <cstdint>
#include <string>

#include "sim/volume_script.h"

namespace usbd::sim {

struct ExhaustiveResult {
  /// Empty: every promise was kept, whatever happened.
  std::string broken_promise;
  /// Places of a crash, or of a pair.
  uint64_t points = 0;
  /// Runs: a point and what the crash left.
  uint64_t states = 0;
  uint64_t unsynced_most = 0;
  uint64_t refused = 0;
};

/// `stride`: one point in so many is tried. Range: > 0.
ExhaustiveResult try_every_crash(const Script& script, ScriptPlan plan, uint64_t stride);
ExhaustiveResult try_every_pair(const Script& script, ScriptPlan plan, uint64_t stride);

}  // namespace usbd::sim

// SPDX-License-Identifier: Apache-2.0
//
// A history of one journal on a SimDisk: several lives of its owner, each ended by a kill, a power
// cut or a proper close at any boundary of any call, the next one sometimes while it is still
// opening. After each, what the journal gives back is compared with what it was given.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "journal/journal.h"
#include "sim/sim_disk.h"

namespace usbd::sim {

struct HistoryOptions {
  uint64_t seed = 1;
  std::optional<journal::Rule> broken_rule = {};
  /// Whether bits rot between lives, and calls fail.
  bool rots = false;
  bool fails = false;
  /// Whether one opening reads a byte wrongly that the next one reads well.
  bool misreads = false;
  unsigned lives = 4;
  /// Whether the payload is sealed.
  bool sealed = false;
};

/// Where crashes fell.
enum class Phase : uint8_t { kOpening, kReplay, kRecord, kWrap, kSuperblock, kSync, kIdle };
inline constexpr size_t kPhases = 7;
const char* phase_name(Phase phase);

struct HistoryResult {
  /// Empty: every promise was kept.
  std::string broken_promise;
  uint64_t crashes = 0;
  uint64_t entries = 0;
  uint64_t synced_entries = 0;
  uint64_t failing_calls = 0;
  uint64_t damage_found = 0;
  uint64_t rot_harmless = 0;
  uint64_t torn_tails = 0;
  std::array<uint64_t, kPhases> phases{};

  void add_kinds(const HistoryResult& other) {
    for (size_t i = 0; i < kPhases; ++i) phases[i] += other.phases[i];
  }
};

HistoryResult run_journal_history(HistoryOptions options);

}  // namespace usbd::sim

// SPDX-License-Identifier: Apache-2.0
//
// A small history of a volume that is written down: lives on one host or two, each with a few steps
// and an end. A plan adds crashes at events that it names, an event being the beginning or the end
// of one call to disk or store, and says what becomes of what was under way. Nothing is left to
// chance, so that every crash can be tried (exhaustive.h).

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "devices/objstore/volume.h"
#include "sim/sim_disk.h"

namespace usbd::sim {

struct ScriptStep {
  enum class Kind : uint8_t {
    kWrite,
    kFua,  ///< A write that is durable when it is answered.
    kClear,
    kFlush,
    kPublish,
    kPause,
    kCheckpoint,  ///< Waits for one more than at the last such step, as do these:
    kClean,
    kDelete,
  };
  Kind kind = Kind::kWrite;
  /// kWrite, kFua, kClear.
  uint64_t block = 0;
  uint64_t blocks = 1;
};

struct ScriptLife {
  enum class End : uint8_t { kClose, kKill, kPowerCut };
  size_t host = 0;
  bool takeover = false;
  std::vector<ScriptStep> steps;
  End end = End::kClose;
};

struct Script {
  const char* name = "";
  std::vector<ScriptLife> lives;
  /// Units: blocks of 4 KiB.
  uint64_t ring_blocks = 64;
  objstore::SpaceRules space = {};
};

/// A crash at the event of this number, counted from 1 over the whole run.
struct Crash {
  uint64_t event = 0;
  bool power = false;
  /// With `power`: what is left.
  PowerCut cut = {};
};

struct ScriptPlan {
  objstore::FlushMode mode = objstore::FlushMode::kLocal;
  uint64_t seed = 1;
  std::optional<objstore::VolumeRule> broken_rule = {};
  std::optional<journal::Rule> broken_journal_rule = {};
  /// In the order of their events.
  std::vector<Crash> crashes = {};
  OfTheDead of_the_dead = OfTheDead::kLost;
  /// A life that crashed is begun again, on its host, before the next one of the script.
  bool begins_again = true;
};

struct ScriptOutcome {
  /// Empty: every promise was kept.
  std::string broken_promise;
  uint64_t events = 0;
  /// Those that were met.
  size_t crashes = 0;
  /// Writes that were not synced at the last crash.
  size_t unsynced = 0;
  /// Openings that were refused, as they must be, since the volume was another host's.
  uint64_t refused = 0;
};

ScriptOutcome run_script(const Script& script, const ScriptPlan& plan);

/// "takeover, local flush: crash at event 12 (power, kept 0x3)", for messages.
std::string to_text(const Script& script, const ScriptPlan& plan);

/// The scripts of which every crash is tried.
const std::vector<Script>& scripts();
const Script& script_named(std::string_view name);

}  // namespace usbd::sim

// SPDX-License-Identifier: Apache-2.0
//
// Up to its crash a run is always the same, so that the first run of a point tells how many writes
// the power decides about.

#include "sim/exhaustive.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "sim/run.h"

namespace usbd::sim {
namespace {

/// Of so many unsynced writes every subset is tried.
constexpr size_t kSubsetsOf = 4;

class Exhaustion {
 public:
  Exhaustion(const Script& script, ScriptPlan plan) : script_(script), plan_(std::move(plan)) {
    keep_freed_memory();
  }

  ScriptOutcome run(std::vector<Crash> crashes, OfTheDead fate, bool begins_again) {
    if (!result_.broken_promise.empty()) return {};
    plan_.crashes = std::move(crashes);
    plan_.of_the_dead = fate;
    plan_.begins_again = begins_again;
    ScriptOutcome outcome = run_script(script_, plan_);
    result_.broken_promise = outcome.broken_promise;
    result_.refused += outcome.refused;
    result_.unsynced_most = std::max<uint64_t>(result_.unsynced_most, outcome.unsynced);
    ++result_.states;
    return outcome;
  }

  void try_point(uint64_t event) {
    ++result_.points;
    for (const OfTheDead fate : {OfTheDead::kLost, OfTheDead::kLands}) {
      for (const bool again : {true, false}) run({{.event = event}}, fate, again);
    }
    const Crash none{.event = event, .power = true};
    const size_t unsynced = run({none}, OfTheDead::kLost, true).unsynced;
    run({none}, OfTheDead::kLands, false);
    for (const PowerCut& cut : cuts(unsynced)) {
      run({{.event = event, .power = true, .cut = cut}}, OfTheDead::kLost, true);
    }
  }

  void try_pair(uint64_t first, uint64_t second) {
    ++result_.points;
    for (const bool power : {false, true}) {
      const Crash one{.event = first, .power = power};
      run({one, {.event = second}}, OfTheDead::kLands, true);
      run({one, {.event = second, .power = true}}, OfTheDead::kLost, true);
    }
  }

  ExhaustiveResult result() { return result_; }
  [[nodiscard]] bool over() const { return !result_.broken_promise.empty(); }

 private:
  /// What the power may leave of so many writes, beside nothing.
  static std::vector<PowerCut> cuts(size_t unsynced) {
    std::vector<PowerCut> all;
    const uint64_t whole = (uint64_t{1} << unsynced) - 1;
    if (unsynced <= kSubsetsOf) {
      for (uint64_t kept = 1; kept <= whole; ++kept) all.push_back({.kept = kept});
    } else {
      all.push_back({.kept = whole});
      for (unsigned i = 0; i < unsynced; ++i) {
        all.push_back({.kept = whole ^ uint64_t{1} << i});
        all.push_back({.kept = uint64_t{1} << i});
      }
    }
    for (unsigned i = 0; i < unsynced; ++i) all.push_back({.kept = whole, .torn = i});
    return all;
  }

  const Script& script_;
  ScriptPlan plan_;
  ExhaustiveResult result_;
};

}  // namespace

ExhaustiveResult try_every_crash(const Script& script, ScriptPlan plan, uint64_t stride) {
  Exhaustion all(script, std::move(plan));
  const uint64_t events = all.run({}, OfTheDead::kLost, true).events;
  for (uint64_t event = 1; event <= events && !all.over(); event += stride) all.try_point(event);
  return all.result();
}

ExhaustiveResult try_every_pair(const Script& script, ScriptPlan plan, uint64_t stride) {
  Exhaustion all(script, std::move(plan));
  const uint64_t events = all.run({}, OfTheDead::kLost, true).events;
  uint64_t next = 0;
  for (uint64_t first = 1; first <= events && !all.over(); ++first) {
    // How far the run goes depends on its first crash.
    const uint64_t end = all.run({{.event = first}}, OfTheDead::kLands, true).events;
    for (uint64_t second = first + 1; second <= end && !all.over(); ++second) {
      if (next++ % stride == 0) all.try_pair(first, second);
    }
  }
  return all.result();
}

}  // namespace usbd::sim

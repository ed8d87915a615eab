// SPDX-License-Identifier: Apache-2.0
//
// Every crash of every script, in both flush modes, and every pair of crashes of the takeovers; and
// the proof that this finds rules that are broken on purpose.
//
// USBD_SIM_SEED: of the order in which things happen that are ready at once, and of how long each
// takes. USBD_SIM_STRIDE: one point in so many is tried; 1: all. Without it all crashes are tried
// by an optimised program, a part by one that takes too long, and a part of the pairs by both.

#include <chrono>
#include <cstdio>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/sanitized.h"
#include "sim/exhaustive.h"
#include "sim/run.h"

namespace usbd::sim {
namespace {

using objstore::FlushMode;
using objstore::VolumeRule;

uint64_t stride() {
#if defined(__OPTIMIZE__)
  constexpr uint64_t kOtherwise = sanitized() ? 41 : 1;
#else
  constexpr uint64_t kOtherwise = sanitized() ? 41 : 11;
#endif
  return from_environment("USBD_SIM_STRIDE", kOtherwise);
}

const char* name_of(FlushMode mode) {
  return mode == FlushMode::kLocal ? "local" : "remote";
}

using Try = ExhaustiveResult (*)(const Script&, ScriptPlan, uint64_t);

/// A pair of crashes is tried for each of so many that a stride takes: all of them, some 140,000
/// runs, take minutes.
uint64_t pair_stride() {
  return from_environment("USBD_SIM_STRIDE", 13 * stride());
}

void expect_nothing_broken(Try try_all, const char* what, const Script& script, ScriptPlan plan,
                           uint64_t every) {
  const FlushMode mode = plan.mode;
  const auto start = std::chrono::steady_clock::now();
  const ExhaustiveResult result = try_all(script, std::move(plan), every);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::fputs(fmt::format("{}, {} flush, {}: {} points, {} states, at most {} unsynced writes, {} "
                         "openings refused, {:.1f} s, one in {}\n",
                         script.name, name_of(mode), what, result.points, result.states,
                         result.unsynced_most, result.refused, took.count(), every)
                 .c_str(),
             stdout);
  EXPECT_EQ(result.broken_promise, "");
  EXPECT_GT(result.states, 0U);
}

TEST(VolumeExhaustive, KeepsItsPromisesWhereverItCrashes) {
  for (const Script& script : scripts()) {
    for (const FlushMode mode : {FlushMode::kLocal, FlushMode::kRemote}) {
      expect_nothing_broken(try_every_crash, "one crash", script,
                            {.mode = mode, .seed = first_seed()}, stride());
    }
  }
}

TEST(VolumeExhaustive, KeepsItsPromisesWhenItCrashesTwiceInATakeover) {
  for (const FlushMode mode : {FlushMode::kLocal, FlushMode::kRemote}) {
    expect_nothing_broken(try_every_pair, "two crashes", script_named("takeover"),
                          {.mode = mode, .seed = first_seed()}, pair_stride());
  }
}

TEST(VolumeExhaustive, IsTheSameEachTime) {
  const ScriptPlan plan{.crashes = {{.event = 33, .power = true}}};
  const ScriptOutcome first = run_script(script_named("takeover"), plan);
  const ScriptOutcome second = run_script(script_named("takeover"), plan);
  EXPECT_EQ(first.crashes, 1U);
  EXPECT_EQ(first.events, second.events);
  EXPECT_EQ(first.unsynced, second.unsynced);
}

struct BrokenRule {
  const char* name;
  const char* script;
  std::optional<VolumeRule> rule = {};
  std::optional<journal::Rule> journal_rule = {};
  FlushMode mode = FlushMode::kLocal;
};

class ExhaustiveOracle : public testing::TestWithParam<BrokenRule> {};

TEST_P(ExhaustiveOracle, FindsTheBrokenRule) {
  const BrokenRule& broken = GetParam();
  const ExhaustiveResult result = try_every_crash(
      script_named(broken.script),
      {.mode = broken.mode, .broken_rule = broken.rule, .broken_journal_rule = broken.journal_rule},
      1);
  std::fputs(fmt::format("oracle | {} | found in state {} | {}\n", broken.name, result.states,
                         result.broken_promise)
                 .c_str(),
             stdout);
  EXPECT_NE(result.broken_promise, "") << "in " << result.states << " states";
}

INSTANTIATE_TEST_SUITE_P(
    Rules, ExhaustiveOracle,
    testing::Values(BrokenRule{.name = "flush without the journal",
                               .script = "overlapping writes",
                               .rule = VolumeRule::kJournalsBeforeItFlushes},
                    BrokenRule{.name = "journal says synced without fdatasync",
                               .script = "overlapping writes",
                               .journal_rule = journal::Rule::kSyncsBeforeItSaysSo},
                    BrokenRule{.name = "another epoch's journal",
                               .script = "takeover",
                               .rule = VolumeRule::kChoosesItsOwnJournal},
                    BrokenRule{.name = "journal forgets before it is published",
                               .script = "ring reuse",
                               .rule = VolumeRule::kPublishesBeforeItForgets},
                    BrokenRule{.name = "space reused before the superblock is durable",
                               .script = "ring reuse",
                               .journal_rule = journal::Rule::kFreesBeforeItReuses},
                    BrokenRule{.name = "torn payload taken",
                               .script = "overlapping writes",
                               .journal_rule = journal::Rule::kChecksPayload},
                    BrokenRule{.name = "published before it is stored",
                               .script = "ring reuse",
                               .rule = VolumeRule::kStoresBeforeItPublishes},
                    BrokenRule{.name = "published before it is stored, remote flush",
                               .script = "publish",
                               .rule = VolumeRule::kStoresBeforeItPublishes,
                               .mode = FlushMode::kRemote},
                    BrokenRule{.name = "checkpoint covers more than its moment",
                               .script = "checkpoint",
                               .rule = VolumeRule::kCoversItsMoment},
                    BrokenRule{.name = "checkpoint's objects removed before the head",
                               .script = "checkpoint",
                               .rule = VolumeRule::kNamesBeforeItRemoves},
                    BrokenRule{.name = "data object deleted before checkpoints say so",
                               .script = "garbage collection",
                               .rule = VolumeRule::kListsBeforeItDeletes}));

}  // namespace
}  // namespace usbd::sim

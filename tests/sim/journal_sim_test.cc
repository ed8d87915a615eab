// SPDX-License-Identifier: Apache-2.0
//
// The journal under simulated crashes, and the proof that this simulation finds what it is for:
// with each of the journal's rules broken on purpose it must find a broken promise.

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/sanitized.h"
#include "sim/journal_history.h"
#include "sim/run.h"

namespace usbd::sim {
namespace {

uint64_t how_many() {
  return histories(1500);
}

HistoryResult run_many(const char* what, HistoryOptions options) {
  using R = HistoryResult;
  const std::vector<Count<R>> counts = {{"crashes", &R::crashes},
                                        {"entries", &R::entries},
                                        {"synced", &R::synced_entries},
                                        {"torn tails", &R::torn_tails},
                                        {"failing calls", &R::failing_calls},
                                        {"damage found", &R::damage_found},
                                        {"harmless", &R::rot_harmless}};
  const std::function<R(uint64_t)> one = [options](uint64_t seed) mutable {
    options.seed = seed;
    return run_journal_history(options);
  };
  R sum = run_histories<R>(what, how_many(), counts, one);
  std::vector<Counted> phases;
  for (size_t i = 0; i < kPhases; ++i) {
    phases.emplace_back(phase_name(static_cast<Phase>(i)), sum.phases[i]);
  }
  print_histogram("crashes while", phases);
  return sum;
}

TEST(JournalSimulation, LosesNothingThatWasSynced) {
  const HistoryResult result = run_many("crashes", {});
  EXPECT_EQ(result.broken_promise, "");
  EXPECT_GT(result.crashes, how_many());
}

TEST(JournalSimulation, LosesNothingWhenSealed) {
  const HistoryResult result = run_many("crashes, sealed", {.sealed = true});
  EXPECT_EQ(result.broken_promise, "");
}

TEST(JournalSimulation, SaysSoWhenDiskCallsFail) {
  const HistoryResult result = run_many("failing calls", {.fails = true});
  EXPECT_EQ(result.broken_promise, "");
}

TEST(JournalSimulation, TellsRotFromTornTails) {
  const HistoryResult result = run_many("rot", {.rots = true});
  EXPECT_EQ(result.broken_promise, "");
  EXPECT_GT(result.damage_found, 0U);
  EXPECT_GT(result.rot_harmless, 0U);
}

TEST(JournalSimulation, BelievesNothingThatASessionBeganWithout) {
  const HistoryResult result = run_many("misreadings", {.misreads = true});
  EXPECT_EQ(result.broken_promise, "");
  EXPECT_GT(result.damage_found, 0U);
  EXPECT_GT(result.rot_harmless, 0U);
}

TEST(JournalSimulation, IsTheSameForTheSameSeed) {
  const HistoryResult first = run_journal_history({.seed = 77});
  const HistoryResult second = run_journal_history({.seed = 77});
  EXPECT_EQ(first.entries, second.entries);
  EXPECT_EQ(first.synced_entries, second.synced_entries);
  EXPECT_EQ(first.phases, second.phases);
}

struct BrokenRule {
  journal::Rule rule;
  const char* name;
  bool fails = false;
  bool rots = false;
  bool misreads = false;
};

class JournalOracle : public testing::TestWithParam<BrokenRule> {};

TEST_P(JournalOracle, FindsTheBrokenRule) {
  if (sanitized()) return;  // it is the same there, and takes minutes
  const BrokenRule& broken = GetParam();
  const auto one = [&broken](uint64_t seed) {
    return run_journal_history({.seed = seed,
                                .broken_rule = broken.rule,
                                .rots = broken.rots,
                                .fails = broken.fails,
                                .misreads = broken.misreads})
        .broken_promise;
  };
  EXPECT_TRUE(finds_broken_rule(broken.name, 20'000, one));
}

INSTANTIATE_TEST_SUITE_P(
    Rules, JournalOracle,
    testing::Values(
        BrokenRule{.rule = journal::Rule::kSyncsBeforeItSaysSo, .name = "sync without fdatasync"},
        BrokenRule{.rule = journal::Rule::kFreesBeforeItReuses,
                   .name = "space reused before the superblock is durable"},
        BrokenRule{.rule = journal::Rule::kFollowsChain, .name = "stale records replayed"},
        BrokenRule{.rule = journal::Rule::kChecksPayload, .name = "torn payload taken"},
        BrokenRule{.rule = journal::Rule::kRemembersFailure,
                   .name = "failed sync forgotten",
                   .fails = true},
        BrokenRule{.rule = journal::Rule::kTellsRotFromTornTail,
                   .name = "rot taken for a torn tail",
                   .rots = true},
        BrokenRule{.rule = journal::Rule::kKnowsWhereItsSessionBegan,
                   .name = "what a session began without comes back",
                   .misreads = true}));

}  // namespace
}  // namespace usbd::sim

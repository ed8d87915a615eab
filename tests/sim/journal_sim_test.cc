// SPDX-License-Identifier: Apache-2.0
//
// The journal under simulated crashes, and the proof that this simulation finds what it is for:
// with each of the journal's rules broken on purpose it must find a broken promise.
//
// USBD_SIM_SEED: the first seed. USBD_SIM_HISTORIES: how many.

#include <cstdio>
#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "base/sanitized.h"
#include "sim/journal_history.h"

namespace usbd::sim {
namespace {

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

uint64_t first_seed() {
  return from_environment("USBD_SIM_SEED", 1);
}
uint64_t histories() {
  return from_environment("USBD_SIM_HISTORIES", sanitized() ? 150 : 1500);
}

HistoryResult run_many(const char* what, HistoryOptions options) {
  HistoryResult sum;
  for (uint64_t i = 0; i < histories() && sum.broken_promise.empty(); ++i) {
    options.seed = first_seed() + i;
    const HistoryResult one = run_journal_history(options);
    sum.broken_promise = one.broken_promise;
    sum.crashes += one.crashes;
    sum.entries += one.entries;
    sum.synced_entries += one.synced_entries;
    sum.damage_found += one.damage_found;
    sum.rot_harmless += one.rot_harmless;
    sum.torn_tails += one.torn_tails;
    for (size_t p = 0; p < kPhases; ++p) sum.phases[p] += one.phases[p];
  }
  std::printf(
      "%s: seeds from %llu, %llu crashes, %llu entries, %llu of them synced, %llu torn tails, "
      "damage found %llu times, harmless %llu times\n",
      what, static_cast<unsigned long long>(first_seed()),
      static_cast<unsigned long long>(sum.crashes), static_cast<unsigned long long>(sum.entries),
      static_cast<unsigned long long>(sum.synced_entries),
      static_cast<unsigned long long>(sum.torn_tails),
      static_cast<unsigned long long>(sum.damage_found),
      static_cast<unsigned long long>(sum.rot_harmless));
  std::printf("crashes while:");
  for (size_t p = 0; p < kPhases; ++p) {
    std::printf(" %s %.1f %%", phase_name(static_cast<Phase>(p)),
                sum.crashes == 0 ? 0.0
                                 : 100.0 * static_cast<double>(sum.phases[p]) /
                                       static_cast<double>(sum.crashes));
  }
  std::printf("\n");
  return sum;
}

TEST(JournalSimulation, LosesNothingThatWasSynced) {
  const HistoryResult result = run_many("crashes", {});
  EXPECT_EQ(result.broken_promise, "");
  EXPECT_GT(result.crashes, histories());
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
};

class JournalOracle : public testing::TestWithParam<BrokenRule> {};

TEST_P(JournalOracle, FindsTheBrokenRule) {
  if (sanitized()) return;  // it is the same there, and takes minutes
  constexpr uint64_t kSeedsMax = 20'000;
  const BrokenRule& broken = GetParam();
  for (uint64_t seed = first_seed(); seed < first_seed() + kSeedsMax; ++seed) {
    const HistoryResult result = run_journal_history(
        {.seed = seed, .broken_rule = broken.rule, .rots = broken.rots, .fails = broken.fails});
    if (result.broken_promise.empty()) continue;
    const uint64_t histories_run = seed - first_seed() + 1;
    std::printf("%s: found after %llu histories: %s\n", broken.name,
                static_cast<unsigned long long>(histories_run), result.broken_promise.c_str());
    return;
  }
  ADD_FAILURE() << broken.name << ": not found in " << kSeedsMax << " histories";
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
                   .rots = true}));

}  // namespace
}  // namespace usbd::sim

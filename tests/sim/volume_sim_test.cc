// SPDX-License-Identifier: Apache-2.0
//
// The volume under simulated crashes of processes, hosts, disks and stores, and the proof that this
// simulation finds what it is for.
//
// USBD_SIM_SEED: the first seed. USBD_SIM_HISTORIES: how many.

#include <cstdio>
#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "base/sanitized.h"
#include "sim/two_writers.h"
#include "sim/volume_history.h"

namespace usbd::sim {
namespace {

using objstore::FlushMode;
using objstore::VolumeRule;

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

uint64_t first_seed() {
  return from_environment("USBD_SIM_SEED", 1);
}
uint64_t histories() {
  return from_environment("USBD_SIM_HISTORIES", sanitized() ? 40 : 400);
}

std::string run_many(const char* what, VolumeHistoryOptions options) {
  VolumeHistoryResult sum;
  uint64_t with_checkpoints = 0;
  uint64_t with_cleaning = 0;
  for (uint64_t i = 0; i < histories() && sum.broken_promise.empty(); ++i) {
    options.seed = first_seed() + i;
    const VolumeHistoryResult one = run_volume_history(options);
    sum.broken_promise = one.broken_promise;
    sum.crashes += one.crashes;
    sum.lost_disks += one.lost_disks;
    sum.takeovers += one.takeovers;
    sum.changes += one.changes;
    sum.flushed += one.flushed;
    sum.reads += one.reads;
    sum.objects += one.objects;
    sum.checkpoints += one.checkpoints;
    sum.cleaned += one.cleaned;
    sum.deleted += one.deleted;
    with_checkpoints += one.checkpoints > 0 ? 1 : 0;
    with_cleaning += one.cleaned > 0 ? 1 : 0;
    sum.store_faults += one.store_faults;
    for (size_t p = 0; p < kVolumePhases; ++p) sum.phases[p] += one.phases[p];
  }
  const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf(
      "%s: seeds from %llu; %llu crashes, %llu disks lost, %llu takeovers, %llu faults of "
      "the store; %llu changes, %llu flushes, %llu reads, %llu objects\n",
      what, number(first_seed()), number(sum.crashes), number(sum.lost_disks),
      number(sum.takeovers), number(sum.store_faults), number(sum.changes), number(sum.flushed),
      number(sum.reads), number(sum.objects));
  std::printf(
      "%llu checkpoints, in %llu histories; %llu objects cleaned, in %llu histories; %llu objects "
      "deleted\n",
      number(sum.checkpoints), number(with_checkpoints), number(sum.cleaned), number(with_cleaning),
      number(sum.deleted));
  std::printf("crashes while:");
  for (size_t p = 0; p < kVolumePhases; ++p) {
    const double share = sum.crashes == 0 ? 0
                                          : 100.0 * static_cast<double>(sum.phases[p]) /
                                                static_cast<double>(sum.crashes);
    std::printf(" %s %.1f %%", volume_phase_name(static_cast<VolumePhase>(p)), share);
  }
  std::printf("\n");
  return sum.broken_promise;
}

TEST(VolumeSimulation, LosesNothingThatWasFlushedToTheJournal) {
  EXPECT_EQ(run_many("local flush", {.mode = FlushMode::kLocal}), "");
}

TEST(VolumeSimulation, LosesNothingThatWasFlushedToTheStore) {
  EXPECT_EQ(run_many("remote flush", {.mode = FlushMode::kRemote}), "");
}

std::string run_many_two_writers(const char* what, TwoWritersOptions options) {
  TwoWritersResult sum;
  uint64_t takeovers = 0;
  for (uint64_t i = 0; i < histories() && sum.broken_promise.empty(); ++i) {
    options.seed = first_seed() + i;
    const TwoWritersResult one = run_two_writers(options);
    sum.broken_promise = one.broken_promise;
    sum.changes += one.changes;
    sum.flushes += one.flushes;
    sum.refused_flushes += one.refused_flushes;
    sum.checkpoints += one.checkpoints;
    sum.cleaned += one.cleaned;
    sum.deleted += one.deleted;
    takeovers += one.taken_over ? 1 : 0;
  }
  const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf(
      "%s: seeds from %llu; %llu takeovers, %llu changes and %llu flushes of the loser, %llu "
      "refused; %llu checkpoints, %llu objects cleaned, %llu deleted\n",
      what, number(first_seed()), number(takeovers), number(sum.changes), number(sum.flushes),
      number(sum.refused_flushes), number(sum.checkpoints), number(sum.cleaned),
      number(sum.deleted));
  return sum.broken_promise;
}

TEST(TwoWriters, PromiseNothingThatTheOtherHasNot) {
  EXPECT_EQ(run_many_two_writers("two writers, remote flush", {.mode = FlushMode::kRemote}), "");
}

TEST(TwoWriters, NoticeEachOtherWithLocalFlush) {
  EXPECT_EQ(run_many_two_writers("two writers, local flush", {.mode = FlushMode::kLocal}), "");
}

TEST(TwoWriters, AreFoundIfTheLoserGoesOn) {
  for (uint64_t seed = first_seed(); seed < first_seed() + 1000; ++seed) {
    const TwoWritersResult result = run_two_writers(
        {.seed = seed, .mode = FlushMode::kLocal, .broken_rule = VolumeRule::kFencesItself});
    if (result.broken_promise.empty()) continue;
    std::printf("loser goes on: found after %llu histories: %s\n",
                static_cast<unsigned long long>(seed - first_seed() + 1),
                result.broken_promise.c_str());
    return;
  }
  ADD_FAILURE() << "not found in 1000 histories";
}

TEST(VolumeSimulation, IsTheSameForTheSameSeed) {
  const VolumeHistoryResult first = run_volume_history({.seed = 77});
  const VolumeHistoryResult second = run_volume_history({.seed = 77});
  EXPECT_EQ(first.changes, second.changes);
  EXPECT_EQ(first.store_faults, second.store_faults);
  EXPECT_EQ(first.phases, second.phases);
}

struct BrokenRule {
  std::optional<VolumeRule> rule;
  const char* name;
  FlushMode mode = FlushMode::kLocal;
  std::optional<journal::Rule> journal_rule = {};
};

class VolumeOracle : public testing::TestWithParam<BrokenRule> {};

TEST_P(VolumeOracle, FindsTheBrokenRule) {
  if (sanitized()) return;  // it is the same there, and takes minutes
  constexpr uint64_t kSeedsMax = 20'000;
  const BrokenRule& broken = GetParam();
  for (uint64_t seed = first_seed(); seed < first_seed() + kSeedsMax; ++seed) {
    const VolumeHistoryResult result =
        run_volume_history({.seed = seed,
                            .mode = broken.mode,
                            .broken_rule = broken.rule,
                            .broken_journal_rule = broken.journal_rule});
    if (result.broken_promise.empty()) continue;
    std::printf("%s: found after %llu histories: %s\n", broken.name,
                static_cast<unsigned long long>(seed - first_seed() + 1),
                result.broken_promise.c_str());
    return;
  }
  ADD_FAILURE() << broken.name << ": not found in " << kSeedsMax << " histories";
}

INSTANTIATE_TEST_SUITE_P(
    Rules, VolumeOracle,
    testing::Values(BrokenRule{.rule = VolumeRule::kJournalsBeforeItFlushes,
                               .name = "flush without the journal"},
                    BrokenRule{.rule = VolumeRule::kStoresBeforeItPublishes,
                               .name = "published before it is stored"},
                    BrokenRule{.rule = VolumeRule::kStoresBeforeItPublishes,
                               .name = "published before it is stored, remote flush",
                               .mode = FlushMode::kRemote},
                    BrokenRule{.rule = VolumeRule::kPublishesBeforeItForgets,
                               .name = "journal forgets before it is published"},
                    BrokenRule{.rule = VolumeRule::kChoosesItsOwnJournal,
                               .name = "another epoch's journal"},
                    BrokenRule{.rule = VolumeRule::kCoversItsMoment,
                               .name = "checkpoint covers more than its moment"},
                    BrokenRule{.rule = VolumeRule::kNamesBeforeItRemoves,
                               .name = "checkpoint's objects removed before the head"},
                    BrokenRule{.rule = VolumeRule::kListsBeforeItDeletes,
                               .name = "data object deleted before checkpoints say so"},
                    BrokenRule{.rule = VolumeRule::kWaitsForReaders,
                               .name = "data object deleted under a read"},
                    BrokenRule{.rule = VolumeRule::kAppliesWhereSourceStill,
                               .name = "moved blocks replace newer ones"},
                    BrokenRule{.rule = {},
                               .name = "journal says synced without fdatasync",
                               .journal_rule = journal::Rule::kSyncsBeforeItSaysSo}));

}  // namespace
}  // namespace usbd::sim

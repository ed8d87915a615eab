// SPDX-License-Identifier: Apache-2.0
//
// The volume under simulated crashes of processes, hosts, disks and stores, and the proof that this
// simulation finds what it is for.

#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/sanitized.h"
#include "sim/run.h"
#include "sim/two_writers.h"
#include "sim/volume_history.h"

namespace usbd::sim {
namespace {

using objstore::FlushMode;
using objstore::VolumeRule;

uint64_t how_many() {
  return histories(400);
}

template <size_t kSize, typename Name>
void print_kinds(const char* what, const std::array<uint64_t, kSize>& values, Name name) {
  std::vector<Counted> counts;
  for (size_t i = 0; i < kSize; ++i) counts.emplace_back(name(i), values[i]);
  print_histogram(what, counts);
}

void print_summary(const std::vector<Counted>& counts) {
  std::string line = "  in all:";
  for (const auto& [name, value] : counts) line += fmt::format(" {} {},", name, value);
  line.back() = '\n';
  std::fputs(line.c_str(), stdout);
}

VolumeHistoryResult run_many(const char* what, VolumeHistoryOptions options) {
  using R = VolumeHistoryResult;
  const std::vector<Count<R>> counts = {{"crashes", &R::crashes},
                                        {"lost disks", &R::lost_disks},
                                        {"takeovers", &R::takeovers},
                                        {"changes", &R::changes},
                                        {"flushes", &R::flushed},
                                        {"reads", &R::reads},
                                        {"objects", &R::objects},
                                        {"store faults", &R::store_faults},
                                        {"slow calls", &R::slow_calls},
                                        {"outages", &R::outages},
                                        {"encrypted", &R::encrypted},
                                        {"retrying", &R::retrying},
                                        {"disk faults", &R::disk_faults},
                                        {"rotted", &R::rotted},
                                        {"misread", &R::misread},
                                        {"mutated", &R::mutated},
                                        {"older states refused", &R::rolled_back},
                                        {"refused flushes", &R::refused_flushes},
                                        {"refused openings", &R::refused_openings},
                                        {"harmless rot", &R::harmless},
                                        {"blocks readable", &R::blocks_readable},
                                        {"blocks refused", &R::blocks_refused},
                                        {"blocks from caches", &R::cache_hits},
                                        {"damaged in caches", &R::cache_damaged},
                                        {"caches kept", &R::caches_kept},
                                        {"checkpoints", &R::checkpoints},
                                        {"histories with them", &R::with_checkpoints},
                                        {"objects cleaned", &R::cleaned},
                                        {"histories with that", &R::with_cleaning},
                                        {"objects deleted", &R::deleted},
                                        {"lost flushed writes", &R::lost_flushes},
                                        {"prefix violations", &R::prefix_violations},
                                        {"snapshots", &R::snapshots},
                                        {"of them deleted", &R::snapshots_deleted},
                                        {"compared", &R::snapshots_compared},
                                        {"cut off", &R::snapshots_cut_off}};
  const std::function<R(uint64_t)> one = [options](uint64_t seed) mutable {
    options.seed = seed;
    R result = run_volume_history(options);
    result.with_checkpoints = result.checkpoints > 0 ? 1 : 0;
    result.with_cleaning = result.cleaned > 0 ? 1 : 0;
    return result;
  };
  R sum = run_histories<R>(what, how_many(), counts, one);
  print_summary({{"crash points", sum.crashes},
                 {"store faults", sum.store_faults},
                 {"disk faults", sum.disk_faults},
                 {"histories with GC", sum.with_cleaning},
                 {"lost flushed writes", sum.lost_flushes},
                 {"prefix violations", sum.prefix_violations}});
  print_kinds("crashes while", sum.phases,
              [](size_t i) { return volume_phase_name(static_cast<VolumePhase>(i)); });
  print_kinds("failing disk calls", sum.troubles,
              [](size_t i) { return name_of(static_cast<DiskTrouble>(i)); });
  print_kinds("rot", sum.rots, [](size_t i) { return name_of(static_cast<Rot>(i)); });
  print_kinds("objects changed", sum.mutations,
              [](size_t i) { return name_of(static_cast<Mutation>(i)); });
  return sum;
}

TEST(VolumeSimulation, LosesNothingThatWasFlushedToTheJournal) {
  EXPECT_EQ(run_many("local flush", {.mode = FlushMode::kLocal}).broken_promise, "");
}

TEST(VolumeSimulation, LosesNothingThatWasFlushedToTheStore) {
  EXPECT_EQ(run_many("remote flush", {.mode = FlushMode::kRemote}).broken_promise, "");
}

TEST(VolumeSimulation, SaysSoWhenDiskCallsFail) {
  for (const FlushMode mode : {FlushMode::kLocal, FlushMode::kRemote}) {
    const char* const what =
        mode == FlushMode::kLocal ? "failing disk, local flush" : "failing disk, remote flush";
    const VolumeHistoryResult result = run_many(what, {.mode = mode, .disk_fails = true});
    EXPECT_EQ(result.broken_promise, "");
    EXPECT_GT(result.disk_faults, 0U);
  }
}

TEST(VolumeSimulation, FindsRotOfItsJournal) {
  for (const FlushMode mode : {FlushMode::kLocal, FlushMode::kRemote}) {
    const char* const what = mode == FlushMode::kLocal ? "rot, local flush" : "rot, remote flush";
    const VolumeHistoryResult result = run_many(what, {.mode = mode, .rots = true});
    EXPECT_EQ(result.broken_promise, "");
    EXPECT_GT(result.refused_openings, 0U);
    EXPECT_GT(result.harmless, 0U);
  }
}

TEST(VolumeSimulation, BelievesNothingThatItWentOnWithout) {
  for (const FlushMode mode : {FlushMode::kLocal, FlushMode::kRemote}) {
    const char* const what =
        mode == FlushMode::kLocal ? "misreadings, local flush" : "misreadings, remote flush";
    const VolumeHistoryResult result = run_many(what, {.mode = mode, .misreads = true});
    EXPECT_EQ(result.broken_promise, "");
    EXPECT_GT(result.misread, 0U);
  }
}

TEST(VolumeSimulation, RefusesOnlyWhatCannotBeProven) {
  const VolumeHistoryResult result = run_many("changed objects", {.mutates = true});
  EXPECT_EQ(result.broken_promise, "");
  EXPECT_GT(result.blocks_refused, 0U);
  EXPECT_GT(result.blocks_readable, result.blocks_refused);
}

TwoWritersResult run_many_two_writers(const char* what, TwoWritersOptions options) {
  using R = TwoWritersResult;
  const std::vector<Count<R>> counts = {{"takeovers", &R::takeovers},
                                        {"changes of the loser", &R::changes},
                                        {"its flushes", &R::flushes},
                                        {"refused", &R::refused_flushes},
                                        {"kept journals", &R::kept_journals},
                                        {"flushed changes only there", &R::exported},
                                        {"stalls", &R::stalls},
                                        {"slow calls", &R::slow_calls},
                                        {"store faults", &R::store_faults},
                                        {"ambiguous answers", &R::ambiguous},
                                        {"checkpoints", &R::checkpoints},
                                        {"objects cleaned", &R::cleaned},
                                        {"objects deleted", &R::deleted}};
  const std::function<R(uint64_t)> one = [options](uint64_t seed) mutable {
    options.seed = seed;
    return run_two_writers(options);
  };
  return run_histories<R>(what, how_many(), counts, one);
}

TEST(TwoWriters, PromiseNothingThatTheOtherHasNot) {
  EXPECT_EQ(run_many_two_writers("two writers, remote flush", {.mode = FlushMode::kRemote})
                .broken_promise,
            "");
}

TEST(TwoWriters, NoticeEachOtherAndTheLoserKeepsWhatItFlushed) {
  const TwoWritersResult result =
      run_many_two_writers("two writers, local flush", {.mode = FlushMode::kLocal});
  EXPECT_EQ(result.broken_promise, "");
  EXPECT_GT(result.exported, 0U);
}

TEST(TwoWriters, AreFoundIfTheLoserGoesOn) {
  const auto one = [](uint64_t seed) {
    return run_two_writers(
               {.seed = seed, .mode = FlushMode::kLocal, .broken_rule = VolumeRule::kFencesItself})
        .broken_promise;
  };
  EXPECT_TRUE(finds_broken_rule("the loser goes on", 1000, one));
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
  bool rots = false;
};

class VolumeOracle : public testing::TestWithParam<BrokenRule> {};

TEST_P(VolumeOracle, FindsTheBrokenRule) {
  if (sanitized()) return;  // it is the same there, and takes minutes
  const BrokenRule& broken = GetParam();
  const auto one = [&broken](uint64_t seed) {
    return run_volume_history({.seed = seed,
                               .mode = broken.mode,
                               .broken_rule = broken.rule,
                               .broken_journal_rule = broken.journal_rule,
                               .rots = broken.rots})
        .broken_promise;
  };
  EXPECT_TRUE(finds_broken_rule(broken.name, 20'000, one));
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
                    BrokenRule{.rule = VolumeRule::kProvesWhatItKept,
                               .name = "cache believed without its seal"},
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
                    BrokenRule{.rule = VolumeRule::kRemembersBeforeItAnswers,
                               .name = "the last head noted without fdatasync"},
                    BrokenRule{.rule = VolumeRule::kRemembersBeforeItAnswers,
                               .name = "the last head noted without fdatasync, remote flush",
                               .mode = FlushMode::kRemote},
                    BrokenRule{.rule = {},
                               .name = "journal says synced without fdatasync",
                               .journal_rule = journal::Rule::kSyncsBeforeItSaysSo},
                    BrokenRule{.rule = {},
                               .name = "rot taken for a torn tail",
                               .journal_rule = journal::Rule::kTellsRotFromTornTail,
                               .rots = true}));

}  // namespace
}  // namespace usbd::sim

// SPDX-License-Identifier: Apache-2.0
//
// Which objects are chosen, and when none are.

#include "devices/objstore/victims.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace usbd::objstore {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kLast = 100;

class VictimsTest : public ::testing::Test {
 protected:
  VictimsTest() {
    rules.waste_min = 0;
    rules.small_bytes = 0;
  }
  void object(uint64_t seq, uint32_t blocks, uint32_t live,
              ObjectState state = ObjectState::kInUse) {
    facts.push_back({.id = {.epoch = 1, .seq = seq},
                     .state = state,
                     .object_bytes = blocks * kBlockBytes + 500,
                     .stored_bytes = blocks * kBlockBytes,
                     .blocks = blocks,
                     .live = live,
                     .pending_since = state == ObjectState::kPending ? 1U : 0U});
  }
  std::vector<uint64_t> chosen() {
    VictimChooser chooser(rules, kLast);
    uint32_t slot = 0;
    for (const ObjectFacts& one : facts) chooser.show(++slot, one);
    std::vector<uint64_t> seqs;
    for (const Victim& victim : chooser.choose()) seqs.push_back(victim.id.seq);
    return seqs;
  }

  CleanRules rules;
  std::vector<ObjectFacts> facts;
};

TEST_F(VictimsTest, AreNoneWhileTheVolumeTakesLittleMoreThanItHolds) {
  object(1, 100, 80);
  object(2, 100, 70);
  EXPECT_THAT(chosen(), IsEmpty());
}

TEST_F(VictimsTest, AreTakenUntilTheTargetIsMet) {
  object(1, 100, 30);
  object(2, 100, 60);
  object(3, 100, 99);
  EXPECT_THAT(chosen(), ElementsAre(1));
}

TEST_F(VictimsTest, AreOldOnesRatherThanYoungOnes) {
  object(1, 100, 50);
  object(99, 100, 50);
  object(98, 100, 90);
  EXPECT_THAT(chosen(), ElementsAre(1));
}

TEST_F(VictimsTest, AreOldCopiesRatherThanYoungOnes) {
  object(moved_id_after(98), 100, 50);
  object(moved_id_after(3) + 7, 100, 50);
  object(90, 100, 90);
  facts[0].id.kind = facts[1].id.kind = ObjectKind::kGc;
  rules.round_bytes = 50 * kBlockBytes;
  EXPECT_THAT(chosen(), ElementsAre(moved_id_after(3) + 7));
  object(1, 100, 50);
  EXPECT_THAT(chosen(), ElementsAre(1));
}

TEST_F(VictimsTest, AreNeverFullEmptyOrPendingOnes) {
  object(1, 1000, 0);
  object(2, 1000, 0, ObjectState::kPending);
  object(3, 100, 100);
  EXPECT_THAT(chosen(), IsEmpty());
  object(4, 400, 100);
  EXPECT_THAT(chosen(), ElementsAre(4));
}

TEST_F(VictimsTest, FitIntoARoundButAtLeastOne) {
  rules.round_bytes = 60 * kBlockBytes;
  object(1, 400, 50);
  object(2, 400, 50);
  EXPECT_THAT(chosen(), ElementsAre(1));
  rules.round_bytes = kBlockBytes;
  EXPECT_THAT(chosen(), ElementsAre(1));
}

TEST_F(VictimsTest, AreNoneForAFewBytes) {
  object(1, 100, 10);
  rules.waste_min = 91 * kBlockBytes;
  EXPECT_THAT(chosen(), IsEmpty());
  rules.waste_min = 90 * kBlockBytes;
  EXPECT_THAT(chosen(), ElementsAre(1));
}

TEST_F(VictimsTest, AreNoneIfNothingIsToBeCleaned) {
  rules.target = 0;
  rules.small_bytes = 1U << 20;
  rules.small_objects = 2;
  object(1, 100, 10);
  object(2, 100, 10);
  EXPECT_THAT(chosen(), IsEmpty());
}

TEST_F(VictimsTest, AreManySmallOnesTheOldestFirst) {
  rules.small_bytes = 10 * kBlockBytes;
  rules.small_objects = 3;
  rules.round_bytes = 14 * kBlockBytes;
  object(7, 5, 5);
  object(5, 5, 5);
  EXPECT_THAT(chosen(), IsEmpty());
  object(6, 5, 4);
  object(1, 100, 100);
  EXPECT_THAT(chosen(), ElementsAre(5, 6, 7));
  rules.round_bytes = 2 * kBlockBytes;
  EXPECT_THAT(chosen(), ElementsAre(5, 6));
}

TEST_F(VictimsTest, AreTheBestOfVeryMany) {
  for (uint32_t i = 0; i < limits::kVictimsMax + 50; ++i) object(50, 100, 90);
  object(50, 100, 10);
  facts.back().id.seq = 49;
  rules.round_bytes = 20 * kBlockBytes;
  rules.target = 1.05;
  EXPECT_THAT(chosen(), ElementsAre(49));
}

}  // namespace
}  // namespace usbd::objstore

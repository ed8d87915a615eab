// SPDX-License-Identifier: Apache-2.0
//
// An object is pinned from the snapshot after it was taken in to the last before it was empty.

#include "devices/objstore/snapshot_pins.h"

#include <vector>

#include <gtest/gtest.h>

#include "devices/objstore/object_table.h"

namespace usbd::objstore {
namespace {

SnapshotRef snapshot(uint64_t number, uint64_t last_seq, uint64_t epoch, uint64_t last_moved) {
  return {.number = number,
          .root = {.object = {.epoch = epoch, .id = number}},
          .last_seq = last_seq,
          .last_moved = last_moved};
}

ObjectId log_object(uint64_t seq) {
  return {.epoch = 1, .seq = seq, .kind = ObjectKind::kData};
}

ObjectId moved_object(uint64_t epoch, uint64_t id) {
  return {.epoch = epoch, .seq = id, .kind = ObjectKind::kGc};
}

TEST(SnapshotPins, NeedNothingWithoutSnapshots) {
  const SnapshotPins pins;
  EXPECT_FALSE(pins.needs(log_object(0), 0));
  EXPECT_FALSE(pins.needs(moved_object(0, 0), 9));
}

TEST(SnapshotPins, NeedWhatWasThereAndNotEmpty) {
  const std::vector<SnapshotRef> list = {snapshot(10, 100, 3, 7), snapshot(20, 200, 4, 0)};
  const SnapshotPins pins(list);
  EXPECT_TRUE(pins.needs(log_object(200), 0));
  EXPECT_FALSE(pins.needs(log_object(201), 0));
  EXPECT_TRUE(pins.needs(log_object(200), 21));
  EXPECT_FALSE(pins.needs(log_object(200), 20));
  EXPECT_TRUE(pins.needs(log_object(100), 20));
  EXPECT_TRUE(pins.needs(log_object(100), 11));
  EXPECT_FALSE(pins.needs(log_object(101), 11));
  EXPECT_FALSE(pins.needs(log_object(100), 10));
}

TEST(SnapshotPins, TellMovedObjectsByEpochAndId) {
  const std::vector<SnapshotRef> list = {snapshot(10, 100, 3, 7)};
  const SnapshotPins pins(list);
  EXPECT_TRUE(pins.needs(moved_object(2, 1000), 0));
  EXPECT_TRUE(pins.needs(moved_object(3, 7), 0));
  EXPECT_FALSE(pins.needs(moved_object(3, 8), 0));
  EXPECT_FALSE(pins.needs(moved_object(4, 1), 0));
}

TEST(SnapshotPins, TakeTwoListsTogether) {
  const std::vector<SnapshotRef> one = {snapshot(10, 100, 3, 7), snapshot(30, 300, 3, 9)};
  const std::vector<SnapshotRef> other = {snapshot(10, 100, 3, 7), snapshot(20, 200, 3, 8)};
  const SnapshotPins pins(one, other);
  EXPECT_TRUE(pins.needs(log_object(150), 25));
  EXPECT_EQ(pins.newest().number, 30U);
  EXPECT_FALSE(pins == SnapshotPins(one));
}

TEST(ObjectTable, CountsApartWhatIsPinned) {
  ObjectTable table(kTablePageSlots);
  const auto add = [&table](uint64_t seq) {
    const ObjectFacts facts{.id = log_object(seq),
                            .object_bytes = 500,
                            .stored_bytes = 400,
                            .blocks = 4,
                            .first_write = seq,
                            .last_write = seq};
    return *table.add(facts);
  };
  const uint32_t first = add(1);
  table.add_live(first, 2);
  table.set_pins({.number = 5, .last_seq = 1});
  EXPECT_EQ(table.unpinned(), ObjectTotals());
  const uint32_t second = add(2);
  table.add_live(second, 1);
  table.drop_live(first, 1);
  const ObjectTotals later{
      .objects = 1, .object_bytes = 500, .stored_bytes = 400, .live_bytes = 100};
  EXPECT_EQ(table.unpinned(), later);
  table.set_pins({});
  EXPECT_EQ(table.unpinned(), table.totals(ObjectState::kInUse));
  table.set_pins({.number = 9, .last_seq = 2});
  table.drop_live(first, 1);
  table.set_pending(first, 10);
  table.remove(first);
  EXPECT_EQ(table.unpinned(), ObjectTotals());
}

}  // namespace
}  // namespace usbd::objstore

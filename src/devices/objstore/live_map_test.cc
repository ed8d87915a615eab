// SPDX-License-Identifier: Apache-2.0
//
// Counts follow the map, and an object goes only when all that could want it has let go.

#include "devices/objstore/live_map.h"

#include <memory>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

#include "base/assert.h"
#include "devices/objstore/data_object_writer.h"

namespace usbd::objstore {
namespace {

const VolumeSeal kSeal;
constexpr uint64_t kBlocks = 64;

struct Made {
  std::shared_ptr<const Directory> directory;
  uint64_t bytes = 0;
};

Made finish(const ObjectId& id, DataObjectWriter& writer) {
  const std::vector<std::byte> bytes = writer.finish();
  Result<Tail> tail = parse_tail(kSeal, id, bytes, bytes.size());
  USBD_ASSERT(tail.has_value());
  return {std::make_shared<const Directory>(*std::move(tail->directory)), bytes.size()};
}

/// A log object that writes these ranges.
Made log_object(uint64_t seq, const std::vector<BlockRange>& ranges) {
  const ObjectId id{.epoch = 1, .seq = seq};
  const DataObjectWriter::Facts facts{.id = id, .first_write = seq, .last_write = seq};
  DataObjectWriter writer = *DataObjectWriter::create(kSeal, facts);
  for (const BlockRange& range : ranges) {
    const std::vector<std::byte> data(range.count * kBlockBytes);
    writer.add_data(range.first, data);
  }
  return finish(id, writer);
}

/// What garbage collection makes of one run.
Made moved_object(uint64_t number, BlockRange range, const Source& source) {
  const ObjectId id{.epoch = 1, .seq = number, .kind = ObjectKind::kGc};
  DataObjectWriter writer = *DataObjectWriter::create(kSeal, {.id = id});
  const std::vector<std::byte> data(range.count * kBlockBytes);
  writer.add_moved(range.first, data, source);
  return finish(id, writer);
}

class LiveMapTest : public ::testing::Test {
 protected:
  Result<void> add(const Made& made) { return live.add(*made.directory, made.bytes); }
  uint32_t slot_of(uint64_t seq, ObjectKind kind = ObjectKind::kData) {
    return live.table().find({.epoch = 1, .seq = seq, .kind = kind});
  }
  const ObjectFacts& facts_of(uint64_t seq, ObjectKind kind = ObjectKind::kData) {
    return *live.table().facts(slot_of(seq, kind));
  }

  LiveMap live{kBlocks};
};

TEST_F(LiveMapTest, CountsWhatIsLive) {
  ASSERT_TRUE(add(log_object(1, {{0, 8}, {20, 4}})));
  EXPECT_EQ(facts_of(1).live, 12U);
  ASSERT_TRUE(add(log_object(2, {{4, 6}})));
  EXPECT_EQ(facts_of(1).live, 8U);
  EXPECT_EQ(facts_of(2).live, 6U);
  EXPECT_EQ(live.emptied(), 0U);
}

TEST_F(LiveMapTest, RefusesAnObjectOfBlocksThatTheVolumeHasNot) {
  const Result<void> added = add(log_object(1, {{60, 8}}));
  ASSERT_FALSE(added);
  EXPECT_TRUE(added.error().is(Errc::kDamaged));
  EXPECT_EQ(slot_of(1), 0U);
}

TEST_F(LiveMapTest, RefusesAnObjectTwice) {
  ASSERT_TRUE(add(log_object(1, {{0, 1}})));
  const Result<void> again = add(log_object(1, {{0, 1}}));
  ASSERT_FALSE(again);
  EXPECT_TRUE(again.error().is(Errc::kExists));
}

TEST_F(LiveMapTest, ListsWhatIsEmptyWithTheNextCheckpoint) {
  live.moment_of(7);
  ASSERT_TRUE(add(log_object(1, {{0, 4}})));
  ASSERT_TRUE(add(log_object(2, {{0, 4}})));
  EXPECT_EQ(facts_of(1).state, ObjectState::kPending);
  EXPECT_EQ(facts_of(1).pending_since, 8U);
  EXPECT_TRUE(live.waits_for_checkpoint(8));
  EXPECT_FALSE(live.waits_for_checkpoint(9));
}

TEST_F(LiveMapTest, GivesAnObjectUpOnlyAfterTwoCheckpointsAndTheirTime) {
  live.moment_of(7);
  ASSERT_TRUE(add(log_object(1, {{0, 4}})));
  ASSERT_TRUE(add(log_object(2, {{0, 4}})));
  EXPECT_TRUE(live.take_deletable({.settled = 7, .last = 9}, 8).empty());
  EXPECT_TRUE(live.take_deletable({.settled = 8, .last = 8}, 8).empty());
  const auto taken = live.take_deletable({.settled = 8, .last = 9}, 8);
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken[0].id.seq, 1U);
  live.give_back(taken[0]);
  ASSERT_EQ(live.take_deletable({.settled = 8, .last = 9}, 8).size(), 1U);
  live.deleted(taken[0]);
  EXPECT_EQ(slot_of(1), 0U);
}

TEST_F(LiveMapTest, KeepsAnObjectForReadsThatBeganBefore) {
  ASSERT_TRUE(add(log_object(1, {{0, 4}})));
  const uint64_t before = live.begin_read();
  ASSERT_TRUE(add(log_object(2, {{0, 4}})));
  const uint64_t after = live.begin_read();
  EXPECT_TRUE(live.take_deletable({.settled = 5, .last = 6}, 8).empty());
  live.end_read(before);
  EXPECT_EQ(live.take_deletable({.settled = 5, .last = 6}, 8).size(), 1U);
  live.end_read(after);
}

TEST_F(LiveMapTest, MovesOnlyWhatIsStillThere) {
  ASSERT_TRUE(add(log_object(1, {{0, 8}})));
  const Made moved = moved_object(1, {0, 8}, {.object = {.epoch = 1, .seq = 1}});
  ASSERT_TRUE(add(log_object(2, {{2, 3}})));
  const Result<uint64_t> count = live.add_moved(*moved.directory, moved.bytes);
  ASSERT_TRUE(count);
  EXPECT_EQ(*count, 5U);
  EXPECT_EQ(facts_of(1).state, ObjectState::kPending);
  EXPECT_EQ(facts_of(2).live, 3U);
  EXPECT_EQ(facts_of(1, ObjectKind::kGc).live, 5U);
  EXPECT_EQ(live.map().find({2, 3})[0].location.slot, slot_of(2));
  const MappedRun behind = live.map().find({5, 3})[0];
  EXPECT_EQ(behind.location.slot, slot_of(1, ObjectKind::kGc));
  EXPECT_EQ(behind.location.position, 5U);
}

TEST_F(LiveMapTest, MovesNothingFromAnObjectThatIsGone) {
  ASSERT_TRUE(add(log_object(1, {{0, 4}})));
  const Made moved = moved_object(1, {0, 4}, {.object = {.epoch = 1, .seq = 1}});
  ASSERT_TRUE(add(log_object(2, {{0, 4}})));
  const auto taken = live.take_deletable({.settled = 5, .last = 6}, 8);
  ASSERT_EQ(taken.size(), 1U);
  live.deleted(taken[0]);
  live.table().reuse_removed();
  ASSERT_TRUE(add(log_object(3, {{0, 4}})));  // in the same slot, at the same place
  const Result<uint64_t> count = live.add_moved(*moved.directory, moved.bytes);
  ASSERT_TRUE(count);
  EXPECT_EQ(*count, 0U);
  EXPECT_EQ(facts_of(3).live, 4U);
  EXPECT_EQ(facts_of(1, ObjectKind::kGc).state, ObjectState::kPending);
}

TEST_F(LiveMapTest, SeesByItsDirectoryWhetherAnObjectIsUsed) {
  const Made first = log_object(1, {{0, 4}, {10, 2}});
  ASSERT_TRUE(add(first));
  const uint32_t slot = slot_of(1);
  EXPECT_TRUE(live.is_used(*first.directory, slot));
  ASSERT_TRUE(add(log_object(2, {{0, 4}})));
  EXPECT_TRUE(live.is_used(*first.directory, slot));
  ASSERT_TRUE(add(log_object(3, {{10, 2}})));
  EXPECT_FALSE(live.is_used(*first.directory, slot));
  const Made beyond = log_object(9, {{63, 4}});
  EXPECT_TRUE(live.is_used(*beyond.directory, slot));
}

TEST_F(LiveMapTest, ListsAgainWhatACheckpointSaid) {
  ObjectTable& table = live.table();
  const ObjectFacts facts{
      .id = {.epoch = 1, .seq = 4}, .object_bytes = 9000, .stored_bytes = 4096, .blocks = 1};
  const uint32_t pending = *table.add(facts);
  table.set_pending(pending, 3);
  ObjectFacts empty = facts;
  empty.id.seq = 5;
  const uint32_t unlisted = *table.add(empty);
  live.loaded(6);
  EXPECT_EQ(live.emptied(), 2U);
  EXPECT_EQ(table.facts(unlisted)->pending_since, 7U);
  // The checkpoint that was read may be the first without a snapshot that pinned it.
  EXPECT_TRUE(live.take_deletable({.settled = 6, .last = 6}, 8).empty());
  const auto taken = live.take_deletable({.settled = 6, .last = 7}, 8);
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken[0].slot, pending);
}

}  // namespace
}  // namespace usbd::objstore

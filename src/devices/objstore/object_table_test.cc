// SPDX-License-Identifier: Apache-2.0
//
// What slots, sums and pages are after changes, and each encoding that is refused.

#include "devices/objstore/object_table.h"

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/endian.h"
#include "base/limits.h"
#include "base/random.h"

namespace usbd::objstore {
namespace {

ObjectFacts log_object(uint64_t seq) {
  return {.id = {.epoch = 1, .seq = seq, .kind = ObjectKind::kData},
          .object_bytes = 10'000,
          .stored_bytes = 8'000,
          .blocks = 4,
          .first_write = seq * 10,
          .last_write = seq * 10 + 9};
}

std::string refusal(uint32_t page, Bytes encoded) {
  ObjectTable table;
  const Result<void> result = table.decode_page(page, encoded);
  if (result) return "accepted";
  EXPECT_TRUE(result.error().is(Errc::kInvalid));
  EXPECT_EQ(table.slots_end(), 0U);  // nothing of it was taken
  return result.error().context();
}

TEST(ObjectTable, GivesTheLowestFreeSlot) {
  ObjectTable table;
  EXPECT_EQ(*table.add(log_object(1)), 1U);
  EXPECT_EQ(*table.add(log_object(2)), 2U);
  EXPECT_EQ(*table.add(log_object(3)), 3U);
  table.remove(2);
  table.remove(1);
  EXPECT_EQ(*table.add(log_object(4)), 4U);
  table.reuse_removed();
  EXPECT_EQ(*table.add(log_object(5)), 1U);
  EXPECT_EQ(*table.add(log_object(6)), 2U);
  EXPECT_EQ(*table.add(log_object(7)), 5U);
}

TEST(ObjectTable, GivesASlotAgainOnlyAfterTheGenerationThatIsDone) {
  ObjectTable table;
  ASSERT_TRUE(table.add(log_object(1)));
  ASSERT_TRUE(table.add(log_object(2)));
  table.remove(1);
  const uint32_t done = table.end_generation();
  table.remove(2);
  table.reuse_removed(done);
  EXPECT_EQ(*table.add(log_object(3)), 1U);
  EXPECT_EQ(*table.add(log_object(4)), 3U);
}

TEST(ObjectTable, FindsAnObjectByItsName) {
  ObjectTable table;
  const uint32_t slot = *table.add(log_object(77));
  ObjectId id = log_object(77).id;
  EXPECT_EQ(table.find(id), slot);
  EXPECT_EQ(*table.facts(slot), log_object(77));
  id.kind = ObjectKind::kGc;
  EXPECT_EQ(table.find(id), 0U);
  table.remove(slot);
  EXPECT_EQ(table.find(log_object(77).id), 0U);
  EXPECT_EQ(table.facts(slot), nullptr);
  EXPECT_EQ(table.facts(4'000'000'000), nullptr);
}

TEST(ObjectTable, RefusesAnObjectThatItHas) {
  ObjectTable table;
  ASSERT_TRUE(table.add(log_object(1)));
  const auto again = table.add(log_object(1));
  ASSERT_FALSE(again);
  EXPECT_TRUE(again.error().is(Errc::kExists));
  EXPECT_EQ(again.error().context(), "data object 1/1 has slot 1 already");
}

TEST(ObjectTable, SumsWhatIsStoredAndWhatIsLive) {
  ObjectTable table;
  const uint32_t one = *table.add(log_object(1));
  const uint32_t two = *table.add(log_object(2));
  table.add_live(one, 4);
  table.add_live(two, 3);
  table.drop_live(two, 2);
  const ObjectTotals both{
      .objects = 2, .object_bytes = 20'000, .stored_bytes = 16'000, .live_bytes = 10'000};
  EXPECT_EQ(table.totals(ObjectState::kInUse), both);
  table.drop_live(one, 4);
  table.set_pending(one, 5);
  EXPECT_EQ(table.facts(one)->pending_since, 5U);
  const ObjectTotals pending{.objects = 1, .object_bytes = 10'000, .stored_bytes = 8'000};
  EXPECT_EQ(table.totals(ObjectState::kPending), pending);
  EXPECT_EQ(table.totals(ObjectState::kInUse).live_bytes, 2'000U);
  table.remove(one);
  EXPECT_EQ(table.totals(ObjectState::kPending), ObjectTotals());
}

TEST(ObjectTable, KnowsWhichPagesChanged) {
  ObjectTable table;
  for (uint64_t seq = 1; seq <= 2000; ++seq) ASSERT_TRUE(table.add(log_object(seq)));
  ASSERT_EQ(table.pages(), 2U);
  table.clear_changed(0);
  table.clear_changed(1);
  table.add_live(1500, 1);
  EXPECT_FALSE(table.changed(0));
  EXPECT_TRUE(table.changed(1));
  const uint32_t written = table.end_generation();
  table.clear_changed(1, written);
  EXPECT_FALSE(table.changed(1));
  table.drop_live(1500, 1);
  table.clear_changed(1, written);
  EXPECT_TRUE(table.changed(1));
}

TEST(ObjectTable, IsDecodedAsItWasEncodedWhateverTheOrderOfPages) {
  ObjectTable table;
  SeededRng rng(5);
  for (uint64_t seq = 1; seq <= 3000; ++seq) {
    ObjectFacts facts = log_object(seq);
    if (seq % 3 == 0) {
      facts.id.kind = ObjectKind::kGc;
      facts.first_write = facts.last_write = 0;
    }
    const uint32_t slot = *table.add(facts);
    table.add_live(slot, static_cast<uint32_t>(rng.below(5)));
  }
  for (uint32_t slot = 1; slot <= 3000; ++slot) {
    if (!rng.one_in(3)) continue;
    table.drop_live(slot, table.facts(slot)->live);
    if (rng.one_in(2)) {
      table.set_pending(slot, 9);
    } else {
      table.remove(slot);
    }
  }
  ObjectTable copy;
  for (const uint32_t page : {2U, 0U, 1U}) {
    ASSERT_TRUE(copy.decode_page(page, table.encode_page(page)));
  }
  table.for_each([&copy](uint32_t slot, const ObjectFacts& facts) {
    ASSERT_NE(copy.facts(slot), nullptr);
    EXPECT_EQ(*copy.facts(slot), facts);
    EXPECT_EQ(copy.find(facts.id), slot);
  });
  for (const ObjectState state : {ObjectState::kInUse, ObjectState::kPending}) {
    EXPECT_EQ(copy.totals(state), table.totals(state));
  }
  table.reuse_removed();
  for (uint64_t seq = 10'001; seq < 12'000; ++seq) {
    ASSERT_EQ(*copy.add(log_object(seq)), *table.add(log_object(seq)));
  }
}

TEST(ObjectTable, HasNoPageWithoutObjects) {
  ObjectTable table;
  table.remove(*table.add(log_object(1)));
  EXPECT_TRUE(table.encode_page(0).empty());
  EXPECT_EQ(refusal(0, {}), "accepted");
}

TEST(ObjectTable, RefusesAPageThatNoTableHas) {
  constexpr uint32_t kPages = limits::kDataObjectsMax / kTablePageSlots;
  EXPECT_EQ(refusal(kPages - 1, {}), "accepted");
  EXPECT_EQ(refusal(kPages, {}), "object table page 16384 has 0 bytes, which no page has");
}

TEST(ObjectTable, SaysWhenItIsFull) {
  ObjectTable table(kTablePageSlots);
  for (uint64_t seq = 1; seq < kTablePageSlots; ++seq) ASSERT_TRUE(table.add(log_object(seq)));
  const auto more = table.add(log_object(kTablePageSlots));
  ASSERT_FALSE(more);
  EXPECT_TRUE(more.error().is(Errc::kNoSpace));
  EXPECT_EQ(more.error().context(), "the volume has as many data objects as it can, 1023");
}

TEST(ObjectTable, HasRoomInPagesThatWereNotInTheCheckpoint) {
  ObjectTable table;
  ASSERT_TRUE(table.add(log_object(1)));
  std::vector<std::byte> encoded = table.encode_page(0);
  ObjectTable copy;
  ASSERT_TRUE(copy.decode_page(1, encoded));
  EXPECT_FALSE(copy.changed(0));
  EXPECT_TRUE(copy.encode_page(0).empty());
  copy.clear_changed(0);
  EXPECT_EQ(*copy.add(log_object(2)), 1U);
  EXPECT_NE(copy.facts(1025), nullptr);
}

/// Encodings with one field changed. Offsets: docs/formats/checkpoint.md.
class ObjectTableDamage : public ::testing::Test {
 protected:
  ObjectTableDamage() {
    EXPECT_TRUE(table_.add(log_object(1)));
    EXPECT_TRUE(table_.add(log_object(2)));
    encoded_ = table_.encode_page(0);
    EXPECT_EQ(encoded_.size(), 144U);
  }
  template <typename T>
  std::vector<std::byte> with(size_t offset, T value) const {
    std::vector<std::byte> changed = encoded_;
    const Le<T> field(value);
    std::memcpy(changed.data() + offset, &field, sizeof(field));
    return changed;
  }

  ObjectTable table_;
  std::vector<std::byte> encoded_;
};

TEST_F(ObjectTableDamage, IsRefused) {
  EXPECT_EQ(refusal(0, Bytes(encoded_).first(143)),
            "object table page 0 has 143 bytes, which no page has");
  EXPECT_EQ(refusal(0, std::vector<std::byte>(72 * 1025)),
            "object table page 0 has 73800 bytes, which no page has");
  EXPECT_EQ(refusal(0, with<uint16_t>(0, 0)), "object table page 0 has entry 0 out of order");
  EXPECT_EQ(refusal(0, with<uint16_t>(0, 1024)), "object table page 0 has entry 1024 out of order");
  EXPECT_EQ(refusal(0, with<uint16_t>(72, 1)), "object table page 0 has entry 1 out of order");
  const std::string state = "object table page 0 has no valid state for slot 1";
  EXPECT_EQ(refusal(0, with<uint8_t>(2, 0)), state);
  EXPECT_EQ(refusal(0, with<uint8_t>(2, 3)), state);
  EXPECT_EQ(refusal(0, with<uint8_t>(3, 3)), state);
  EXPECT_EQ(refusal(0, with<uint32_t>(4, 1)), state);
  const std::string object = "object table page 0 says that the object of slot 1 ";
  EXPECT_EQ(refusal(0, with<uint32_t>(8, 0)), object + "has 0 blocks in 8000 bytes of frames");
  EXPECT_EQ(refusal(0, with<uint32_t>(8, limits::kObjectBlocksMax + 1)),
            object + "has 262145 blocks, 0 of them live");
  EXPECT_EQ(refusal(0, with<uint32_t>(12, 5)), object + "has 4 blocks, 5 of them live");
  EXPECT_EQ(refusal(0, with<uint64_t>(32, 7999)), object + "has 7999 bytes, 8000 of them frames");
  EXPECT_EQ(refusal(0, with<uint64_t>(32, limits::kDataObjectBytesMax + 1)),
            object + "has 1099511627777 bytes, 8000 of them frames");
  EXPECT_EQ(refusal(0, with<uint64_t>(48, 20)), object + "holds the writes from 20 to 19");
  EXPECT_EQ(refusal(0, with<uint8_t>(3, 2)), object + "holds the writes from 10 to 19");
  EXPECT_EQ(refusal(0, with<uint64_t>(64, 1)),
            object + "is pending since checkpoint 1 with 0 live blocks");
  EXPECT_EQ(refusal(0, with<uint8_t>(2, 2)),
            object + "is pending since checkpoint 0 with 0 live blocks");
  EXPECT_EQ(refusal(0, with<uint64_t>(72 + 24, 1)),
            "object table page 0 names an object twice: the second slot is 2");
}

TEST_F(ObjectTableDamage, IsRefusedAcrossPages) {
  ObjectTable copy;
  ASSERT_TRUE(copy.decode_page(0, encoded_));
  const auto twice = copy.decode_page(1, encoded_);
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().context(),
            "object table page 1 names an object twice: the second slot is 1025");
}

}  // namespace
}  // namespace usbd::objstore

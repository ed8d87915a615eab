// SPDX-License-Identifier: Apache-2.0
//
// What a journal keeps in memory of what is in its ring, what it lets go first, and that neither
// changes what is read.

#include <gtest/gtest.h>

#include "journal/journal.h"
#include "journal/journal_fixture.h"

namespace usbd::journal {
namespace {

/// What a record with so many blocks, a power of two, takes. Units: bytes.
constexpr uint64_t buffer_of(uint64_t blocks) {
  return (kHeaderBlocksMax + blocks) * kBlock;
}

class JournalMemory : public testing::JournalStory {
 protected:
  bool is_kept(uint64_t number, uint32_t blocks) {
    const Bytes bytes = journal_->hold(places_.at(number)).in_memory(blocks * kBlock);
    return !bytes.empty();
  }
};

TEST_F(JournalMemory, HoldsNothingOfTheRingByDefault) {
  start();
  append_synced(2);
  EXPECT_EQ(journal_->bytes_kept(), 0U);
  EXPECT_FALSE(is_kept(1, 1));
}

TEST_F(JournalMemory, SparesTheDiskWhatIsKept) {
  options_.kept_bytes_max = 1U << 20;
  for (const bool sealed : {false, true}) {
    options_.sealer = sealed ? testing::sealers_of(5) : SealerSource();
    start();
    append_synced(1, 4);
    EXPECT_EQ(journal_->bytes_kept(), buffer_of(4));
    rot(ring(2));
    EXPECT_TRUE(reads(places_.begin()->first, 4));
    kill();
  }
}

TEST_F(JournalMemory, KeepsTheOldestAndNoMoreThanItMay) {
  options_.kept_bytes_max = 2 * buffer_of(1);
  start();
  append_synced(3);
  EXPECT_EQ(journal_->bytes_kept(), 2 * buffer_of(1));
  EXPECT_TRUE(is_kept(1, 1));
  EXPECT_TRUE(is_kept(2, 1));
  EXPECT_FALSE(is_kept(3, 1));
  for (uint64_t number = 1; number <= 3; ++number) EXPECT_TRUE(reads(number, 1));
}

TEST_F(JournalMemory, LetsTheYoungestGoWhenItMayKeepLess) {
  options_.kept_bytes_max = 1U << 20;
  start();
  append_synced(3);
  journal_->keep_at_most(buffer_of(1));
  EXPECT_EQ(journal_->bytes_kept(), buffer_of(1));
  EXPECT_TRUE(is_kept(1, 1));
  EXPECT_FALSE(is_kept(2, 1));
  journal_->keep_at_most(0);
  EXPECT_EQ(journal_->bytes_kept(), 0U);
  for (uint64_t number = 1; number <= 3; ++number) EXPECT_TRUE(reads(number, 1));
}

TEST_F(JournalMemory, KeepsNothingThatNobodyNeeds) {
  options_.kept_bytes_max = 1U << 20;
  start();
  append_synced(4);
  journal_->unkeep(2, 3);
  EXPECT_TRUE(is_kept(1, 1));
  EXPECT_FALSE(is_kept(2, 1));
  EXPECT_FALSE(is_kept(3, 1));
  EXPECT_TRUE(is_kept(4, 1));
  append(1);
  journal_->unkeep(5, 5);  // before it is written
  EXPECT_TRUE(reads(5, 1));
  ASSERT_TRUE(sync());
  EXPECT_FALSE(is_kept(5, 1));
  for (uint64_t number = 1; number <= 5; ++number) EXPECT_TRUE(reads(number, 1));
}

TEST_F(JournalMemory, KeepsNothingThatIsReleased) {
  options_.kept_bytes_max = 1U << 20;
  start();
  append_synced(3);
  const Journal::Held held = journal_->hold(places_.at(1));
  journal_->release(3);
  settle();
  EXPECT_EQ(journal_->bytes_kept(), 0U);
  std::vector<std::byte> bytes(kBlock);
  EXPECT_TRUE(run(journal_->read(held, bytes)));
  EXPECT_EQ(bytes, testing::payload_of(1, 1));
}

TEST_F(JournalMemory, KeepsNothingOfWhatIsReplayed) {
  options_.kept_bytes_max = 1U << 20;
  start();
  append_synced(2);
  kill();
  reopen();
  EXPECT_EQ(journal_->bytes_kept(), 0U);
  EXPECT_TRUE(reads(1, 1));
}

TEST_F(JournalMemory, GrowsARecordUnderThoseWhoReadIt) {
  start();
  append(1);
  const Journal::Held early = journal_->hold(places_.at(1));
  append(2);
  append(1);
  std::vector<std::byte> bytes(kBlock);
  EXPECT_TRUE(run(journal_->read(early, bytes)));
  EXPECT_EQ(bytes, testing::payload_of(1, 1));
  EXPECT_TRUE(reads(1, 1));
  EXPECT_TRUE(reads(2, 2));
  ASSERT_TRUE(sync());
  EXPECT_TRUE(reads(2, 2));
  EXPECT_TRUE(reads(3, 1));
}

TEST_F(JournalMemory, KeepsAfterAFailureWhatWasInTheRing) {
  options_.kept_bytes_max = 1U << 20;
  start();
  append_synced(1);
  disk_.inject({.op = usbd::testing::FileOp::kWrite});
  append(1);
  EXPECT_FALSE(sync());
  EXPECT_TRUE(reads(1, 1));
  EXPECT_TRUE(reads(2, 1));
  EXPECT_EQ(journal_->bytes_kept(), buffer_of(1));
  journal_->release(2);
  EXPECT_EQ(journal_->bytes_kept(), 0U);
}

}  // namespace
}  // namespace usbd::journal

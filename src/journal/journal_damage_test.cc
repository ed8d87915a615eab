// SPDX-License-Identifier: Apache-2.0
//
// What the journal makes of a disk that is not as it was left: what is torn is cut off quietly,
// what was durable and is gone is said, what is not its own is left alone.

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "journal/journal_fixture.h"

namespace usbd::journal {
namespace {

using ::testing::HasSubstr;
using usbd::testing::FileOp;

class JournalDamage : public testing::JournalStory {
 protected:
  /// Puts `bytes` into a superblock or header and makes its checksum right.
  void forge(uint64_t offset, size_t at, Bytes bytes, size_t crc_at) {
    std::vector<std::byte> block = bytes_at(offset, kBlock);
    std::memcpy(block.data() + at, bytes.data(), bytes.size());
    std::memset(block.data() + crc_at, 0, sizeof(Le32));
    const Le32 crc = crc32c(block);
    std::memcpy(block.data() + crc_at, &crc, sizeof(crc));
    overwrite(offset, block);
  }
  void tear(uint64_t offset) { overwrite(offset + 512, std::vector<std::byte>(64, std::byte(9))); }
};

// --- opening
// --------------------------------------------------------------------------------------

TEST_F(JournalDamage, LeavesAForeignFileAlone) {
  std::vector<std::byte> foreign(1U << 20);
  rng_.fill(foreign);
  overwrite(0, foreign);
  const uint64_t writes = disk_.calls(FileOp::kWrite);
  const Result<void> opened = open();
  ASSERT_FALSE(opened);
  EXPECT_TRUE(opened.error().is(Errc::kNotFound));
  EXPECT_THAT(opened.error().message(), HasSubstr("fault-disk: no superblock"));
  EXPECT_EQ(disk_.calls(FileOp::kWrite), writes);
  EXPECT_EQ(bytes_at(0, foreign.size()), foreign);
}

TEST_F(JournalDamage, CannotOpenAnEmptyFile) {
  EXPECT_TRUE(open().error().is(Errc::kIo));
}

TEST_F(JournalDamage, RefusesALaterVersionInEitherSuperblock) {
  for (const unsigned which : {0U, 1U}) {
    disk_.clear_faults();
    start();
    append_synced(1);
    ASSERT_TRUE(close());
    ASSERT_TRUE(superblock(0) && superblock(1));
    const Le32 version = kVersion + 1;
    forge(which * kBlock, offsetof(DiskSuperblock, version), wire_bytes(version),
          offsetof(DiskSuperblock, crc));
    const Result<void> opened = open();
    ASSERT_FALSE(opened) << which;
    EXPECT_TRUE(opened.error().is(Errc::kNotSupported)) << which;
    EXPECT_THAT(opened.error().message(), HasSubstr("version 2"));
    next_ = 1;
  }
}

TEST_F(JournalDamage, RefusesAFileThatWasCutShort) {
  start();
  ASSERT_TRUE(close());
  ASSERT_TRUE(run(disk_.open()->truncate(kRingStart + kRingBlocks * kBlock - 1)));
  const Result<void> opened = open();
  ASSERT_FALSE(opened);
  EXPECT_TRUE(opened.error().is(Errc::kInvalid));
  EXPECT_THAT(opened.error().message(), HasSubstr("cut short"));
}

TEST_F(JournalDamage, RefusesARingThatNoFileCouldHold) {
  start();
  ASSERT_TRUE(close());
  const Le64 ring_bytes = UINT64_MAX - (kBlock - 1);
  for (const uint64_t which : {0U, 1U}) {
    forge(which * kBlock, offsetof(DiskSuperblock, ring_bytes), wire_bytes(ring_bytes),
          offsetof(DiskSuperblock, crc));
  }
  EXPECT_TRUE(open().error().is(Errc::kInvalid));
}

TEST_F(JournalDamage, UsesTheOtherSuperblockIfOneIsTorn) {
  for (const unsigned which : {0U, 1U}) {
    start();
    append_synced(3);
    ASSERT_TRUE(close());
    tear(which * kBlock);
    const Replayed found = look();
    EXPECT_EQ(found.entries, 3U) << which;
    EXPECT_EQ(found.damage, "") << which;
    next_ = 1;
  }
}

TEST_F(JournalDamage, RefusesAFileBothOfWhoseSuperblocksAreTorn) {
  start();
  ASSERT_TRUE(close());
  tear(0);
  tear(kBlock);
  const Result<void> opened = open();
  EXPECT_TRUE(opened.error().is(Errc::kNotFound));
  EXPECT_THAT(opened.error().message(), HasSubstr("checksum"));
}

// --- torn tails
// -----------------------------------------------------------------------------------

TEST_F(JournalDamage, CutsOffAHeaderThatIsTorn) {
  start();
  append_synced(2);
  append(1);
  EXPECT_TRUE(reads(3, 1));
  settle();  // written, not synced
  kill();
  tear(ring(4));
  const Replayed found = look();
  EXPECT_EQ(found.entries, 2U);
  EXPECT_EQ(found.damage, "");
}

TEST_F(JournalDamage, CutsOffARecordWhosePayloadIsTorn) {
  start();
  append_synced(2);
  append(2);
  settle();
  kill();
  tear(ring(6));
  const Replayed found = look();
  EXPECT_EQ(found.entries, 2U);
  EXPECT_EQ(found.damage, "");
  EXPECT_TRUE(found.torn_tail);
}

TEST_F(JournalDamage, IsOverWithWhatWasCutOff) {
  start();
  append_synced(2);
  append(2);
  settle();
  append(1);
  settle();
  kill();
  tear(ring(5));
  reopen();
  EXPECT_EQ(next_, 3U);
  append_synced(1);
  ASSERT_TRUE(close());
  const Replayed found = look();
  EXPECT_EQ(found.entries, 3U);
  EXPECT_EQ(found.damage, "");
}

// --- damage
// ---------------------------------------------------------------------------------------

TEST_F(JournalDamage, IsFoundByALaterRecordThatKnewOfTheSync) {
  start();
  append_synced(2);
  append(1);
  settle();
  kill();
  rot(ring(3));  // the payload of the second
  const Replayed found = look();
  EXPECT_EQ(found.entries, 1U);
  EXPECT_THAT(found.damage, HasSubstr("record 2 of fault-disk cannot be read"));
}

TEST_F(JournalDamage, IsFoundByTheSuperblockOfACleanEnd) {
  start();
  append_synced(2);
  ASSERT_TRUE(close());
  rot(ring(2) + 5);  // the header of the second
  const Replayed found = look();
  EXPECT_EQ(found.entries, 1U);
  EXPECT_THAT(found.damage, HasSubstr("those up to record 2 were on stable storage"));
}

TEST_F(JournalDamage, IsFoundByTheMarkOfAnIdleJournal) {
  start();
  append_synced(1);
  settle();
  kill();
  rot(ring(1));
  EXPECT_THAT(look().damage, HasSubstr("record 1"));
}

TEST_F(JournalDamage, IsFoundIfTheSuperblocksAreOlderThanARecord) {
  start();
  append_synced(1);
  kill();
  tear(newer_superblock() * kBlock);
  const Replayed found = look();
  EXPECT_EQ(found.entries, 0U);
  EXPECT_THAT(found.damage, HasSubstr("session 1, but its superblocks know 0"));
}

TEST_F(JournalDamage, IsFoundInTheMiddleOfTheRing) {
  start();
  for (int i = 0; i < 30; ++i) {
    append_synced(1);
    if (i >= 4) journal_->release(next_ - 5);
    settle();
  }
  append(1);
  settle();
  kill();
  ASSERT_TRUE(open());
  ASSERT_TRUE(replay());
  const Place third = places_.at(found_[2].number);
  kill();
  rot(kRingStart + third.record->position % (kRingBlocks * kBlock) + 100);
  const Replayed found = look();
  EXPECT_EQ(found.entries, 2U);
  EXPECT_NE(found.damage, "");
}

// --- what was misread once
// -----------------------------------------------------------------------

TEST_F(JournalDamage, IsNotForgottenWhenASessionBeginsWithoutIt) {
  start();
  append_synced(1);
  append(1);
  settle();
  append(1);
  settle();
  kill();  // records 2 and 3 are whole, and nobody was told that they are durable
  const std::vector<std::byte> second = bytes_at(ring(2), kBlock);
  tear(ring(2));
  overwrite(ring(4), std::vector<std::byte>(kBlock));
  reopen();
  EXPECT_EQ(next_, 2U);
  kill();
  overwrite(ring(2), second);  // it can be read again
  const Replayed found = look();
  EXPECT_EQ(found.entries, 1U);
  EXPECT_EQ(found.damage, "");
  EXPECT_TRUE(found.torn_tail);
}

TEST_F(JournalDamage, IsWhatASessionBeganWithAndCannotBeReadAnyMore) {
  start();
  append_synced(1);
  append(1);
  settle();
  kill();
  reopen();
  kill();
  const std::vector<std::byte> second = bytes_at(ring(2), kBlock);
  rot(ring(2) + 40);
  const Replayed found = look();
  EXPECT_EQ(found.entries, 1U);
  EXPECT_THAT(found.damage, HasSubstr("record 2 of fault-disk cannot be read"));
  overwrite(ring(2), second);
  EXPECT_EQ(look().entries, 2U) << "nothing was cut off";
}

TEST_F(JournalDamage, IsAnotherRecordInPlaceOfTheOneThatTheSessionFollows) {
  start();
  append_synced(2);
  kill();
  reopen();
  kill();
  const Le32 other = 0x1234;
  for (const uint64_t which : {0U, 1U}) {
    forge(which * kBlock, offsetof(DiskSuperblock, session_previous_crc), wire_bytes(other),
          offsetof(DiskSuperblock, crc));
  }
  const Replayed found = look();
  EXPECT_EQ(found.entries, 1U);
  EXPECT_THAT(found.damage, HasSubstr("record 2"));
}

TEST_F(JournalDamage, IsNotASessionsFirstRecordThatFollowsAnother) {
  start();
  append_synced(2);
  const uint64_t released = next_ - 1;
  journal_->release(released);
  ASSERT_TRUE(close());
  reopen();  // the ring is empty
  append(1);
  settle();
  kill();
  const Le32 other = 0x1234;
  for (const uint64_t which : {0U, 1U}) {
    forge(which * kBlock, offsetof(DiskSuperblock, session_previous_crc), wire_bytes(other),
          offsetof(DiskSuperblock, crc));
  }
  EXPECT_EQ(look().entries, 0U);
}

// --- seals
// ----------------------------------------------------------------------------------------

TEST_F(JournalDamage, IsWhatTheWrongKeyFinds) {
  options_.sealer = testing::sealers_of(1);
  start();
  append_synced(1);
  ASSERT_TRUE(close());
  options_.sealer = testing::sealers_of(2);
  EXPECT_THAT(look().damage, HasSubstr("not sealed with this key"));
  options_.sealer = nullptr;
  EXPECT_THAT(look().damage, HasSubstr("not sealed with this key"));
  options_.sealer = testing::sealers_of(1);
  EXPECT_EQ(look().damage, "");
}

TEST_F(JournalDamage, IsWhatAKeyFindsInAJournalThatIsNotSealed) {
  start();
  append_synced(1);
  ASSERT_TRUE(close());
  options_.sealer = testing::sealers_of(1);
  EXPECT_THAT(look().damage, HasSubstr("not sealed with this key"));
}

TEST_F(JournalDamage, IsAHeaderThatWasChangedWithItsChecksum) {
  options_.sealer = testing::sealers_of(1);
  start();
  append_synced(1);
  append(1);
  settle();
  kill();  // the second record is not durable, and still no crash changes it like this
  std::vector<std::byte> tag = bytes_at(ring(2) + offsetof(DiskHeader, tag), sizeof(Tag));
  tag[3] ^= std::byte(1);
  forge(ring(2), offsetof(DiskHeader, tag), tag, offsetof(DiskHeader, crc));
  const Replayed found = look();
  EXPECT_EQ(found.entries, 1U);
  EXPECT_THAT(found.damage, HasSubstr("has been changed since"));
}

TEST_F(JournalDamage, IsAnEntryThatWasChangedWithItsChecksum) {
  options_.sealer = testing::sealers_of(1);
  start();
  append_synced(1);
  kill();
  const Le64 elsewhere = 51;
  forge(ring(0), sizeof(DiskHeader) + offsetof(DiskEntry, block), wire_bytes(elsewhere),
        offsetof(DiskHeader, crc));
  const Replayed found = look();
  EXPECT_EQ(found.entries, 0U);
  EXPECT_NE(found.damage, "");
}

// --- a record that is whole, but has no place here
// ------------------------------------------------

TEST_F(JournalDamage, IsNotARecordThatWouldLeaveTheRing) {
  start();
  append_synced(1, 4);
  kill();
  // The same record once more, where it does not fit, behind a superblock that begins there.
  const std::vector<std::byte> record = bytes_at(ring(0), 2 * kBlock);
  overwrite(ring(kRingBlocks - 2), record);
  const Le64 tail = (kRingBlocks - 2) * kBlock;
  for (const uint64_t which : {0U, 1U}) {
    forge(which * kBlock, offsetof(DiskSuperblock, tail), wire_bytes(tail),
          offsetof(DiskSuperblock, crc));
  }
  ASSERT_TRUE(open());
  EXPECT_EQ(replay()->entries, 0U);
}

// --- found by the simulation
// ----------------------------------------------------------------------

/// read() between replay() and begin() woke the background work, which wrote a superblock of the
/// old session over, or after, the new one's.
TEST(JournalRegression, Regression_ReadsBeforeTheSessionBegins) {
  struct Story : testing::JournalStory {
    explicit Story(uint64_t seed) : JournalStory(seed) { tell(); }
    void TestBody() override {}
    static Task<void> read_one(Journal& journal, Place place, MutableBytes out) {
      const Journal::Held held = journal.hold(place);
      EXPECT_TRUE(co_await journal.read(held, out));
    }
    void tell() {
      start();
      append_synced(8);
      ASSERT_TRUE(close());
      ASSERT_TRUE(open());
      ASSERT_TRUE(replay());
      std::vector<std::byte> bytes(kBlock);
      journal_->release(7);  // enough to be freed
      loop_.spawn(read_one(*journal_, places_.at(8), bytes));
      ASSERT_TRUE(begin());
      loop_.run_for(Nanos(1'000'000));
      EXPECT_EQ(journal_->superblock().session, 2U);
      append_synced(1);
      cut_power_losing_all();
      const Replayed found = look();
      EXPECT_EQ(found.damage, "");
      EXPECT_EQ(found_.back().number, 9U);
      EXPECT_EQ(superblock(newer_superblock())->session, 2U);
    }
  };
  for (uint64_t seed = 1; seed <= 30; ++seed) Story story(seed);
}

/// begin()'s superblock claimed as durable what only its own sync made durable: a power cut between
/// its write and its sync looked like damage.
TEST(JournalRegression, Regression_BeginsWithoutClaims) {
  struct Story : testing::JournalStory {
    explicit Story(uint64_t seed) : JournalStory(seed) { tell(); }
    void TestBody() override {}
    void tell() {
      start();
      append_synced(2);
      append(1);
      append(1);
      settle();
      kill();  // the last two are in the page cache only
      ASSERT_TRUE(open());
      EXPECT_EQ(replay()->entries, 4U);
      hold_.before_sync = [this] { disk_.crash(); };
      EXPECT_FALSE(begin());
      kill();
      const Replayed found = look();
      EXPECT_EQ(found.damage, "");
      EXPECT_GE(found.entries, 2U);
    }
  };
  for (uint64_t seed = 1; seed <= 60; ++seed) Story story(seed);
}

}  // namespace
}  // namespace usbd::journal

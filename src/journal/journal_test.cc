// SPDX-License-Identifier: Apache-2.0
//
// The journal's everyday life: appending, syncing, coming back, running out of room, failing.
// What is wrong with the disk's contents: journal_damage_test.cc.

#include "journal/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "journal/journal_fixture.h"

namespace usbd::journal {
namespace {

using ::testing::HasSubstr;
using usbd::testing::FileOp;

class JournalTest : public testing::JournalStory {};

TEST_F(JournalTest, IsEmptyWhenItIsNew) {
  start();
  EXPECT_EQ(journal_->bytes_used(), 0U);
  EXPECT_EQ(journal_->superblock().epoch, 7U);
  EXPECT_TRUE(sync());
  EXPECT_TRUE(close());
  EXPECT_EQ(look().records, 0U);
}

TEST_F(JournalTest, GivesBackInOrderWhatWasAppended) {
  start();
  append(1);
  append(3);
  append(9, false);
  append(2);
  EXPECT_TRUE(sync());
  EXPECT_TRUE(close());
  ASSERT_TRUE(open());
  const Result<Replayed> replayed = replay();
  ASSERT_TRUE(replayed);
  EXPECT_EQ(replayed->entries, 4U);
  EXPECT_FALSE(replayed->torn_tail);
  EXPECT_EQ(replayed->damage, "");
  ASSERT_EQ(found_.size(), 4U);
  EXPECT_EQ(found_[2],
            (Entry{.number = 3, .block = 50, .blocks = 9, .kind = 1, .has_payload = false}));
  EXPECT_TRUE(reads(1, 1));
  EXPECT_TRUE(reads(2, 3));
  EXPECT_TRUE(reads(4, 2));
}

TEST_F(JournalTest, ReadsFromMemoryFromTheRingAndFromTheMiddleOfAnEntry) {
  start();
  append(4);
  EXPECT_TRUE(reads(1, 4));  // not written yet
  ASSERT_TRUE(sync());
  EXPECT_TRUE(reads(1, 4));
  Place middle = places_.at(1);
  middle.block += 2;
  std::vector<std::byte> bytes(2 * kBlock);
  const Journal::Held held = journal_->hold(middle);
  ASSERT_TRUE(run(journal_->read(held, bytes)));
  const std::vector<std::byte> all = testing::payload_of(1, 4);
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), all.begin() + 2 * kBlock));
}

TEST_F(JournalTest, ReadsNothingThatHasRotted) {
  start();
  append_synced(1, 2);
  rot(ring(2) + 77);
  EXPECT_FALSE(reads(1, 2));
  EXPECT_TRUE(reads(1, 1));
}

TEST_F(JournalTest, ReadsNothingSealedThatWasChangedWithItsChecksum) {
  options_.sealer = testing::sealers_of(5);
  start();
  append_synced(1);
  const std::vector<std::byte> other(kBlock, std::byte(3));
  overwrite(ring(1), other);
  places_.at(1).record->seals[0].crc = crc32c(other);
  std::vector<std::byte> bytes(kBlock);
  const Journal::Held held = journal_->hold(places_.at(1));
  const Result<void> read = run(journal_->read(held, bytes));
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message(), HasSubstr("not what was sealed"));
}

TEST_F(JournalTest, SealsWhatLiesOnTheDisk) {
  options_.sealer = testing::sealers_of(5);
  start();
  append_synced(2, 2);
  EXPECT_TRUE(reads(2, 2));
  EXPECT_NE(bytes_at(ring(1), kBlock), testing::payload_of(1, 1));
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  EXPECT_EQ(replay()->entries, 2U);
  EXPECT_TRUE(reads(1, 2));
}

TEST_F(JournalTest, MakesOneRecordOfWhatComesInOneTurn) {
  start();
  for (int i = 0; i < 100; ++i) append(8, false);
  ASSERT_TRUE(sync());
  ASSERT_TRUE(close());
  const Replayed found = look();
  EXPECT_EQ(found.records, 1U);
  EXPECT_EQ(found.entries, 100U);
}

TEST_F(JournalTest, PutsAtMost128EntriesInARecord) {
  start();
  for (int i = 0; i < 257; ++i) append(8, false);
  ASSERT_TRUE(sync());
  ASSERT_TRUE(close());
  const Replayed found = look();
  EXPECT_EQ(found.records, 3U);
  EXPECT_EQ(found.entries, 257U);
}

TEST_F(JournalTest, PutsNoMorePayloadInARecordThanItMay) {
  start();
  append(3);
  append(2);
  append(2);
  append(1);
  ASSERT_TRUE(sync());
  ASSERT_TRUE(close());
  EXPECT_EQ(look().records, 3U);
}

TEST_F(JournalTest, CollectsWhileARecordIsBeingWritten) {
  start();
  hold_.writes = true;
  append(1);
  loop_.run_for(Nanos(1'000'000));
  append(1);
  loop_.run_for(Nanos(1'000'000));
  append(1);
  hold_.writes = false;
  ASSERT_TRUE(sync());
  ASSERT_TRUE(close());
  EXPECT_EQ(look().records, 2U);
}

TEST_F(JournalTest, AnswersOneSyncForAllWhoWait) {
  start();
  append(1);
  const uint64_t before = disk_.calls(FileOp::kSync);
  unsigned answered = 0;
  const auto wait = [](Journal& journal, unsigned& count) -> Task<void> {
    EXPECT_TRUE(co_await journal.sync());
    ++count;
  };
  for (int i = 0; i < 10; ++i) loop_.spawn(wait(*journal_, answered));
  loop_.run_for(Nanos(1'000'000));
  EXPECT_EQ(answered, 10U);
  EXPECT_EQ(disk_.calls(FileOp::kSync), before + 1);
}

TEST_F(JournalTest, AnswersASyncOnlyWhenTheDiskHas) {
  start();
  append(1);
  hold_.syncs = true;
  bool answered = false;
  const auto wait = [](Journal& journal, bool& done) -> Task<void> {
    EXPECT_TRUE(co_await journal.sync());
    done = true;
  };
  loop_.spawn(wait(*journal_, answered));
  loop_.run_for(Nanos(50'000'000));
  EXPECT_FALSE(answered);
  hold_.syncs = false;
  settle();
  EXPECT_TRUE(answered);
}

TEST_F(JournalTest, LosesNothingThatWasSyncedWhenThePowerGoes) {
  start();
  append_synced(5);
  append(1);
  append(1);
  cut_power_losing_all();
  const Replayed found = look();
  EXPECT_EQ(found.entries, 5U);
  EXPECT_EQ(found.damage, "");
}

TEST_F(JournalTest, HasNoRoomUntilSomethingIsReleased) {
  start();
  const uint64_t entries = fill(1);
  EXPECT_GT(entries, 5U);
  settle();
  EXPECT_FALSE(journal_->has_room(1));
  changes_ = 0;
  settle();
  EXPECT_EQ(changes_, 0U);
  journal_->release(entries);
  settle();
  EXPECT_GT(changes_, 0U);
  EXPECT_TRUE(journal_->has_room(kPayloadMax));
  EXPECT_EQ(fill(1), entries);
}

TEST_F(JournalTest, StagesNoMoreThanItMay) {
  options_.staged_bytes_max = 6 * kBlock;
  start();
  hold_.writes = true;
  append(4);
  append(2);
  EXPECT_FALSE(journal_->has_room(1));
  EXPECT_TRUE(journal_->has_room(0));
  changes_ = 0;
  hold_.writes = false;
  settle();
  EXPECT_GT(changes_, 0U);
  EXPECT_TRUE(journal_->has_room(4));
}

TEST_F(JournalTest, ReusesNoSpaceBeforeASuperblockSaysSo) {
  start();
  const uint64_t entries = fill(1);
  settle();
  hold_.syncs = true;
  changes_ = 0;
  journal_->release(entries);
  loop_.run_for(Nanos(100'000'000));
  EXPECT_FALSE(journal_->has_room(1));
  EXPECT_EQ(changes_, 0U);
  hold_.syncs = false;
  settle();
  EXPECT_TRUE(journal_->has_room(1));
  EXPECT_GT(superblock(newer_superblock())->tail_jseq, entries);
  EXPECT_EQ(superblock(newer_superblock())->released_number, entries);
}

TEST_F(JournalTest, KeepsWhatIsBeingReadThoughItIsReleasedMeanwhile) {
  start();
  append_synced(4);
  const uint64_t used = journal_->bytes_used();
  std::vector<std::byte> bytes(kBlock);
  bool read = false;
  const auto slowly = [](Journal& journal, Place place, MutableBytes out,
                         bool& done) -> Task<void> {
    const Journal::Held held = journal.hold(place);
    EXPECT_TRUE(co_await journal.read(held, out));
    done = true;
  };
  loop_.spawn(slowly(*journal_, places_.at(1), bytes, read));
  // Up to where the read has been given to the disk.
  while (places_.at(1).record->readers == 0 && !read) loop_.run_for(Nanos(100));
  journal_->release(4);
  EXPECT_EQ(journal_->bytes_used(), used);
  settle();
  EXPECT_TRUE(read);
  EXPECT_EQ(bytes, testing::payload_of(1, 1));
  EXPECT_LT(journal_->bytes_used(), used);
}

TEST_F(JournalTest, GoesRoundTheRingManyTimes) {
  start();
  for (unsigned i = 0; i < 200; ++i) {
    append_synced(1, 1 + i % kPayloadMax);
    if (i >= 2) journal_->release(next_ - 3);
    settle();
  }
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  const Result<Replayed> replayed = replay();
  EXPECT_EQ(replayed->damage, "");
  EXPECT_EQ(found_.back().number, 200U);
  EXPECT_TRUE(reads(200, 1 + 199 % kPayloadMax));
  EXPECT_TRUE(reads(199, 1 + 198 % kPayloadMax));
}

TEST_F(JournalTest, RemembersWhatWasReleasedWhenItCloses) {
  start();
  append_synced(3);
  journal_->release(2);
  ASSERT_TRUE(close());
  EXPECT_EQ(look().entries, 1U);
  EXPECT_EQ(superblock(newer_superblock())->released_number, 2U);
}

TEST_F(JournalTest, GoesOnWhereItStopped) {
  start();
  append_synced(2);
  ASSERT_TRUE(close());
  reopen();
  EXPECT_EQ(journal_->superblock().session, 2U);
  append_synced(2);
  ASSERT_TRUE(close());
  EXPECT_EQ(look().entries, 4U);
}

TEST_F(JournalTest, MarksThatASyncWasDoneWhenItIsIdle) {
  start();
  append_synced(1);
  EXPECT_EQ(bytes_at(ring(2), kBlock), std::vector<std::byte>(kBlock));
  settle();
  const Result<Header> mark = parse_header(bytes_at(ring(2), kBlock), superblock(0)->journal);
  ASSERT_TRUE(mark);
  EXPECT_EQ(mark->kind, RecordKind::kMark);
  EXPECT_EQ(mark->durable_jseq, 1U);
  // One is enough.
  EXPECT_TRUE(sync());
  settle();
  EXPECT_FALSE(parse_header(bytes_at(ring(3), kBlock), superblock(0)->journal));
  kill();
  const Replayed found = look();
  EXPECT_EQ(found.records, 2U);
  EXPECT_EQ(found.entries, 1U);
}

// --- failures
// -------------------------------------------------------------------------------------

TEST_F(JournalTest, FailsForEverAfterAWriteFailed) {
  start();
  disk_.inject({.op = FileOp::kWrite});
  append(1);
  const Result<void> synced = sync();
  ASSERT_FALSE(synced);
  EXPECT_TRUE(synced.error().is(Errc::kIo));
  EXPECT_THAT(synced.error().message(), HasSubstr("from now on"));
  EXPECT_GT(changes_, 0U);
  append(1);
  EXPECT_FALSE(sync());
  EXPECT_TRUE(journal_->failure().has_value());
  EXPECT_FALSE(close());
}

TEST_F(JournalTest, FailsForEverAfterASyncFailed) {
  start();
  append_synced(1);
  disk_.inject({.op = FileOp::kSync});
  append(1);
  EXPECT_FALSE(sync());
  const uint64_t syncs = disk_.calls(FileOp::kSync);
  EXPECT_FALSE(sync());
  settle();
  EXPECT_EQ(disk_.calls(FileOp::kSync), syncs);  // nobody may hear that all is well
  EXPECT_TRUE(reads(1, 1));
}

TEST_F(JournalTest, FailsIfASuperblockCannotBeWritten) {
  start();
  const uint64_t entries = fill(1);
  disk_.inject({.op = FileOp::kWrite});
  journal_->release(entries);
  settle();
  EXPECT_TRUE(journal_->failure().has_value());
  EXPECT_FALSE(sync());
}

TEST_F(JournalTest, KeepsInMemoryWhatItCouldNotWriteUntilThatIsReleased) {
  options_.staged_bytes_max = 6 * kBlock;
  start();
  disk_.inject({.op = FileOp::kWrite});
  append(4);
  EXPECT_FALSE(sync());
  append(1);
  append(1);
  EXPECT_TRUE(reads(1, 4));
  EXPECT_TRUE(reads(2, 1));
  EXPECT_TRUE(reads(3, 1));
  EXPECT_FALSE(journal_->has_room(1));
  journal_->release(1);
  EXPECT_TRUE(journal_->has_room(4));
  EXPECT_FALSE(journal_->has_room(5));
  EXPECT_TRUE(reads(3, 1));
  journal_->release(3);
  EXPECT_TRUE(journal_->has_room(6));
}

TEST_F(JournalTest, LetsGoOfFullRecordsThatNeverGotIntoTheRing) {
  options_.staged_bytes_max = 8 * kBlock;
  start();
  hold_.writes = true;
  append(1);
  loop_.run_for(Nanos(1'000'000));
  append(3);
  append(3);
  disk_.inject({.op = FileOp::kWrite});
  hold_.writes = false;
  EXPECT_FALSE(sync());
  EXPECT_FALSE(journal_->has_room(2));
  journal_->release(3);
  EXPECT_TRUE(journal_->has_room(8));
}

// Found by the simulation of volumes: writers waited for ever for room in a ring that had failed.
TEST_F(JournalTest, Regression_TakesEntriesAfterItFailedWithAFullRing) {
  start();
  const uint64_t entries = fill(1);
  disk_.inject({.op = FileOp::kWrite});
  journal_->release(entries);
  settle();
  ASSERT_TRUE(journal_->failure().has_value());
  EXPECT_EQ(journal_->bytes_used(), 0U);
  uint64_t last = 0;
  for (uint64_t i = 0; i < 2 * entries && journal_->has_room(1); ++i) last = append(1);
  ASSERT_GT(last, entries);
  EXPECT_FALSE(journal_->has_room(1));  // memory is bounded as the ring was
  EXPECT_TRUE(reads(last, 1));
  const unsigned before = changes_;
  journal_->release(last);
  settle();
  EXPECT_GT(changes_, before);
  EXPECT_TRUE(journal_->has_room(1));
  EXPECT_FALSE(sync());
}

TEST_F(JournalTest, SaysThatBeginningFailed) {
  ASSERT_TRUE(format());
  ASSERT_TRUE(open());
  ASSERT_TRUE(replay());
  disk_.inject({.op = FileOp::kSync});
  EXPECT_FALSE(begin());
}

TEST_F(JournalTest, SaysThatReplayingFailed) {
  start();
  append_synced(1);
  ASSERT_TRUE(close());
  for (uint64_t reads_before = 0; reads_before < 2; ++reads_before) {
    ASSERT_TRUE(open());
    disk_.inject({.op = FileOp::kRead, .after = reads_before});
    EXPECT_FALSE(replay()) << "after " << reads_before;
    kill();
    disk_.clear_faults();
  }
}

TEST_F(JournalTest, IsNotBegunInARingOfFewerThanFourRecords) {
  options_.payload_blocks_max = kPayloadBlocksMax;
  ASSERT_TRUE(format());
  ASSERT_TRUE(open());
  ASSERT_TRUE(replay());
  const Result<void> begun = begin();
  ASSERT_FALSE(begun);
  EXPECT_TRUE(begun.error().is(Errc::kInvalid));
}

TEST_F(JournalTest, IsNotMadeWhereThereIsNoSpace) {
  usbd::testing::FaultDisk small({.space = 8 * kBlock});
  const std::unique_ptr<BlockFile> file = small.open();
  const Result<void> made = run(Journal::format(*file, {}, kRingBlocks * kBlock, 0));
  ASSERT_FALSE(made);
  EXPECT_TRUE(made.error().is(Errc::kNoSpace));
}

TEST_F(JournalTest, IsNotMadeIfAWriteOrASyncFails) {
  for (const FileOp op : {FileOp::kWrite, FileOp::kSync}) {
    disk_.inject({.op = op});
    EXPECT_FALSE(format());
  }
  EXPECT_TRUE(format());
}

}  // namespace
}  // namespace usbd::journal

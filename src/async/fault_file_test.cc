// SPDX-License-Identifier: Apache-2.0
//
// FaultDisk: it must lose, tear and fail exactly what it says, or the tests built on it prove
// nothing.

#include "async/fault_file.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "async/scope.h"
#include "async/sim_loop.h"

namespace usbd::testing {
namespace {

constexpr uint64_t kPage = 4096;

class FaultDiskTest : public ::testing::Test {
 protected:
  explicit FaultDiskTest(FaultDisk::Options options = {.size = 64 * kPage})
      : disk_(options), file_(disk_.open()) {}

  Result<void> run(Task<Result<void>> task) { return *loop_.run(std::move(task)); }
  void fill(uint64_t page, uint64_t pages, int value, bool fua = false) {
    const std::vector<std::byte> data(pages * kPage, static_cast<std::byte>(value));
    ASSERT_TRUE(run(file_->write(page * kPage, data, {.fua = fua})).has_value());
  }
  void crash_and_open() {
    disk_.crash();
    file_ = disk_.open();
  }
  std::vector<std::byte> page(uint64_t index) {
    std::vector<std::byte> data(kPage);
    EXPECT_TRUE(run(file_->read(index * kPage, data)).has_value());
    return data;
  }
  /// Whether a page is `value` all through.
  bool holds(uint64_t index, int value) {
    const std::vector<std::byte> data = page(index);
    return std::ranges::count(data, static_cast<std::byte>(value)) == kPage;
  }

  SimLoop loop_{SimLoop::Options{}};
  FaultDisk disk_;
  std::unique_ptr<BlockFile> file_;
};

TEST_F(FaultDiskTest, KeepsWhatWasSyncedThroughAPowerCut) {
  fill(3, 2, 7);
  ASSERT_TRUE(run(file_->datasync()).has_value());
  EXPECT_EQ(disk_.unsynced_pages(), 0U);
  fill(10, 1, 8, true);
  EXPECT_EQ(disk_.unsynced_pages(), 0U);
  crash_and_open();
  EXPECT_TRUE(holds(3, 7));
  EXPECT_TRUE(holds(4, 7));
  EXPECT_TRUE(holds(10, 8));
}

TEST_F(FaultDiskTest, KeepsLosesAndTearsWhatWasNotSynced) {
  fill(0, 64, 1);
  ASSERT_TRUE(run(file_->datasync()).has_value());
  fill(0, 64, 2);
  crash_and_open();
  int kept = 0;
  int lost = 0;
  int torn = 0;
  for (uint64_t i = 0; i < 64; ++i) ++(holds(i, 2) ? kept : holds(i, 1) ? lost : torn);
  EXPECT_GT(kept, 8);
  EXPECT_GT(lost, 8);
  EXPECT_GT(torn, 8);
}

TEST_F(FaultDiskTest, TearsAtSectors) {
  fill(0, 64, 2);
  crash_and_open();
  for (uint64_t i = 0; i < 64; ++i) {
    const std::vector<std::byte> data = page(i);
    for (size_t at = 0; at < kPage; ++at) ASSERT_EQ(data[at], data[at / 512 * 512]);
  }
}

TEST_F(FaultDiskTest, ForgetsAFailedSyncAsLinuxDoes) {
  fill(5, 1, 9);
  disk_.inject({.op = FileOp::kSync});
  EXPECT_FALSE(run(file_->datasync()).has_value());
  EXPECT_TRUE(run(file_->datasync()).has_value());
  EXPECT_TRUE(holds(5, 9)) << "the page cache still has it";
  crash_and_open();
  EXPECT_TRUE(holds(5, 0)) << "the disk never got it";
}

Task<void> sync_then_write(BlockFile& file, Bytes data) {
  Scope scope;
  scope.spawn([](BlockFile& synced) -> Task<void> {
    EXPECT_TRUE((co_await synced.datasync()).has_value());
  }(file));
  EXPECT_TRUE((co_await file.write(0, data, WriteFlags{})).has_value());
  co_await scope.close();
}

TEST_F(FaultDiskTest, SyncsOnlyWhatCompletedBefore) {
  const std::vector<std::byte> data(kPage, std::byte{3});
  loop_.spawn(sync_then_write(*file_, data));
  ASSERT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
  EXPECT_EQ(disk_.unsynced_pages(), 1U);
  disk_.crash_losing_all();
  file_ = disk_.open();
  EXPECT_TRUE(holds(0, 0));
}

TEST_F(FaultDiskTest, FailsTheCallsItWasToldTo) {
  disk_.inject({.op = FileOp::kWrite, .after = 1, .count = 2, .error = Errc::kNoSpace});
  fill(0, 1, 1);
  const std::vector<std::byte> data(kPage, std::byte{2});
  for (int i = 0; i < 2; ++i) {
    const Result<void> failed = run(file_->write(0, data, {}));
    ASSERT_FALSE(failed.has_value());
    EXPECT_TRUE(failed.error().is(Errc::kNoSpace));
  }
  EXPECT_TRUE(holds(0, 1));
  fill(0, 1, 3);
  EXPECT_EQ(disk_.calls(FileOp::kWrite), 4U);
}

TEST_F(FaultDiskTest, LetsPartOfAFailedWriteLand) {
  disk_.inject({.op = FileOp::kWrite, .partial = true});
  const std::vector<std::byte> data(16 * kPage, std::byte{2});
  ASSERT_FALSE(run(file_->write(0, data, {})).has_value());
  EXPECT_GT(disk_.unsynced_pages(), 0U);
  EXPECT_TRUE(holds(15, 0) || holds(0, 2));
}

TEST_F(FaultDiskTest, KillsFilesThatWereOpenAtThePowerCut) {
  disk_.crash();
  std::vector<std::byte> data(kPage);
  EXPECT_FALSE(run(file_->read(0, data)).has_value());
  EXPECT_FALSE(run(file_->write(0, data, {})).has_value());
  EXPECT_FALSE(run(file_->datasync()).has_value());
}

TEST_F(FaultDiskTest, KnowsItsHoles) {
  fill(4, 2, 1);
  EXPECT_EQ(**loop_.run(file_->next_data(0)), 4 * kPage);
  EXPECT_EQ(**loop_.run(file_->next_hole(4 * kPage)), 6 * kPage);
  ASSERT_TRUE(run(file_->punch(ByteRange(4 * kPage, kPage))).has_value());
  EXPECT_EQ(**loop_.run(file_->next_data(0)), 5 * kPage);
  ASSERT_TRUE(run(file_->zero(ByteRange(kPage, kPage))).has_value());
  EXPECT_EQ(**loop_.run(file_->next_data(0)), kPage);
  EXPECT_EQ(**loop_.run(file_->next_data(6 * kPage)), 64 * kPage);
}

class FullFaultDisk : public FaultDiskTest {
 protected:
  FullFaultDisk() : FaultDiskTest({.size = 64 * kPage, .zeroes = false, .space = 4 * kPage}) {}
};

TEST_F(FullFaultDisk, RunsOutOfSpaceAndGetsItBack) {
  fill(0, 4, 1);
  const std::vector<std::byte> data(kPage, std::byte{2});
  EXPECT_TRUE(run(file_->write(9 * kPage, data, {})).error().is(Errc::kNoSpace));
  fill(2, 1, 3);
  ASSERT_TRUE(run(file_->punch(ByteRange(0, kPage))).has_value());
  fill(9, 1, 2);
  EXPECT_TRUE(run(file_->zero(ByteRange(0, kPage))).error().is(Errc::kNotSupported));
}

}  // namespace
}  // namespace usbd::testing

// SPDX-License-Identifier: Apache-2.0
//
// SyncGroup among several loops in threads of their own, as connections use it.

#include "devices/file/sync_group.h"

#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "async/scope.h"
#include "async/testing.h"

namespace usbd {
namespace {

using testing::TestLoop;

/// A file that can only sync: slowly, one at a time or the test fails, and failing from a given
/// sync on, once.
class SyncOnlyFile final : public BlockFile {
 public:
  explicit SyncOnlyFile(int failing_sync) : failing_sync_(failing_sync) {}

  [[nodiscard]] std::string name() const override { return "sync-only"; }
  [[nodiscard]] uint32_t block_size() const override { return 1; }
  [[nodiscard]] Result<uint64_t> size() const override { return uint64_t{1}; }
  Task<Result<void>> datasync() override {
    EXPECT_EQ(running_.fetch_add(1), 0) << "two syncs at once";
    for (int i = 0; i < 3; ++i) co_await Loop::current().schedule();
    const bool fails = ++syncs == failing_sync_;
    if (fails) has_failed = true;
    running_.fetch_sub(1);
    co_return fails ? Result<void>(Errc::kNoSpace) : Result<void>();
  }
  Task<Result<void>> read(uint64_t, MutableBytes) override { return refuse(); }
  Task<Result<void>> write(uint64_t, Bytes, WriteFlags) override { return refuse(); }
  Task<Result<void>> allocate(ByteRange) override { return refuse(); }
  Task<Result<void>> punch(ByteRange) override { return refuse(); }
  Task<Result<void>> zero(ByteRange) override { return refuse(); }
  Task<Result<void>> truncate(uint64_t) override { return refuse(); }
  Task<Result<void>> close() override { return refuse(); }
  Task<Result<uint64_t>> next_data(uint64_t) override { co_return Errc::kNotSupported; }
  Task<Result<uint64_t>> next_hole(uint64_t) override { co_return Errc::kNotSupported; }

  std::atomic<int> syncs{0};
  std::atomic<bool> has_failed{false};

 private:
  static Task<Result<void>> refuse() { co_return Errc::kNotSupported; }

  const int failing_sync_;
  std::atomic<int> running_{0};
};

struct Tally {
  std::atomic<int> succeeded{0};
  std::atomic<int> failed{0};
  /// Syncs that were asked for after one had failed and succeeded all the same.
  std::atomic<int> lied{0};
};

Task<void> sync_often(SyncOnlyFile& file, SyncGroup& group, Tally& tally, int count) {
  for (int i = 0; i < count; ++i) {
    const bool failed_before = file.has_failed;
    const Result<void> synced = co_await group.sync();
    ++(synced ? tally.succeeded : tally.failed);
    if (synced && failed_before) ++tally.lied;
  }
}

Task<void> sync_from_many(SyncOnlyFile& file, SyncGroup& group, Tally& tally) {
  Scope scope;
  for (int i = 0; i < 8; ++i) scope.spawn(sync_often(file, group, tally, 100));
  co_await scope.close();
}

void run_threads(SyncOnlyFile& file, SyncGroup& group, Tally& tally) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&file, &group, &tally] {
      TestLoop loop;
      loop.run(sync_from_many(file, group, tally));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(SyncGroup, ServesManyLoopsWithFewSyncsOneAtATime) {
  SyncOnlyFile file(-1);
  SyncGroup group(file);
  Tally tally;
  run_threads(file, group, tally);
  EXPECT_EQ(tally.succeeded, 2400);
  EXPECT_LT(file.syncs, 2400);
  EXPECT_FALSE(group.failed());
}

TEST(SyncGroup, SaysToNobodyOnAnyLoopThatAllIsWellAfterAFailure) {
  SyncOnlyFile file(50);
  SyncGroup group(file);
  Tally tally;
  run_threads(file, group, tally);
  EXPECT_EQ(file.syncs, 50) << "nothing is synced after that";
  EXPECT_EQ(tally.lied, 0);
  EXPECT_GT(tally.failed, 0);
  EXPECT_EQ(tally.succeeded + tally.failed, 2400);
  EXPECT_TRUE(group.failed());
}

}  // namespace
}  // namespace usbd

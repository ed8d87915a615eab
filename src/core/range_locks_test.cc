// SPDX-License-Identifier: Apache-2.0
//
// Who holds what, who waits for whom, and that nobody is overtaken or forgotten: on one simulated
// loop in every order, and on real threads.

#include "core/range_locks.h"

#include <algorithm>
#include <array>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "async/runtime.h"
#include "async/scope.h"
#include "async/sim_loop.h"
#include "base/random.h"

namespace usbd {
namespace {

using Claim = RangeLocks::Claim;

Task<void> acquire_and_note(RangeLocks& locks, ByteRange range, int id, std::vector<int>& log) {
  co_await locks.acquire(range);
  log.push_back(id);
}

/// A table on a simulated loop; who acquires is known by a number.
class RangeLocksTest : public testing::Test {
 protected:
  void acquire(int id, ByteRange range) {
    loop_.spawn(acquire_and_note(locks_, range, id, granted_));
    loop_.run_until_idle();
  }
  void release(ByteRange range) {
    locks_.release(range);
    loop_.run_until_idle();
  }
  std::vector<int> take_granted() { return std::exchange(granted_, {}); }

  std::vector<int> granted_;
  RangeLocks locks_;
  SimLoop loop_{{}};
};

using Ids = std::vector<int>;

TEST_F(RangeLocksTest, GrantsDisjointRangesAtOnce) {
  acquire(1, {0, 10});
  acquire(2, {20, 10});
  acquire(3, {10, 10});
  EXPECT_EQ(take_granted(), (Ids{1, 2, 3}));
  EXPECT_EQ(locks_.held_count(), 3U);
  release({10, 10});
  release({0, 10});
  release({20, 10});
  EXPECT_EQ(locks_.held_count(), 0U);
}

TEST_F(RangeLocksTest, LetsAnOverlappingRangeWaitForTheEarlier) {
  acquire(1, {0, 10});
  acquire(2, {9, 2});
  EXPECT_EQ(take_granted(), Ids{1});
  release({0, 10});
  EXPECT_EQ(take_granted(), Ids{2});
  release({9, 2});
  EXPECT_EQ(locks_.held_count(), 0U);
}

TEST_F(RangeLocksTest, ServesWaitersOfOneRangeInTheOrderTheyCame) {
  acquire(0, {0, 10});
  for (int id = 1; id <= 5; ++id) acquire(id, {5, 10});
  EXPECT_EQ(take_granted(), Ids{0});
  release({0, 10});
  for (int id = 1; id <= 5; ++id) {
    EXPECT_EQ(take_granted(), Ids{id});
    release({5, 10});
  }
  EXPECT_EQ(locks_.held_count(), 0U);
}

TEST_F(RangeLocksTest, DoesNotLetALaterRangeOvertakeAWaiterItOverlaps) {
  acquire(1, {0, 10});
  acquire(2, {5, 10});   // waits for 1
  acquire(3, {12, 4});   // free, but 2 came first
  acquire(4, {100, 4});  // overlaps nobody
  EXPECT_EQ(take_granted(), (Ids{1, 4}));
  release({0, 10});
  EXPECT_EQ(take_granted(), Ids{2});
  release({5, 10});
  EXPECT_EQ(take_granted(), Ids{3});
  release({12, 4});
  release({100, 4});
  EXPECT_EQ(locks_.held_count(), 0U);
}

TEST_F(RangeLocksTest, GrantsAllThatOneReleaseMakesFree) {
  acquire(1, {0, 100});
  acquire(2, {0, 10});
  acquire(3, {50, 10});
  acquire(4, {55, 10});  // waits for 3 too
  acquire(5, {90, 30});
  EXPECT_EQ(take_granted(), Ids{1});
  release({0, 100});
  Ids granted = take_granted();
  std::ranges::sort(granted);
  EXPECT_EQ(granted, (Ids{2, 3, 5}));
  release({50, 10});
  EXPECT_EQ(take_granted(), Ids{4});
  for (const ByteRange range : {ByteRange(0, 10), ByteRange(55, 10), ByteRange(90, 30)}) {
    release(range);
  }
  EXPECT_EQ(locks_.held_count(), 0U);
}

TEST_F(RangeLocksTest, TakesOfABatchWhatIsFreeAndOnlyThat) {
  acquire(1, {0, 10});
  acquire(2, {5, 20});  // waits
  std::array<Claim, 5> batch{Claim{{30, 10}}, Claim{{8, 1}}, Claim{{20, 2}}, Claim{{35, 10}},
                             Claim{{40, 5}}};
  locks_.try_acquire(batch);
  EXPECT_TRUE(batch[0].held);
  EXPECT_FALSE(batch[1].held) << "held by 1";
  EXPECT_FALSE(batch[2].held) << "2 waits for it";
  EXPECT_FALSE(batch[3].held) << "the first of the batch has it";
  EXPECT_TRUE(batch[4].held);
  EXPECT_EQ(locks_.held_count(), 3U);
  locks_.release(batch);
  for (const Claim& claim : batch) EXPECT_FALSE(claim.held);
  EXPECT_EQ(locks_.held_count(), 1U);
  release({0, 10});
  release({5, 20});
}

TEST_F(RangeLocksTest, ReleasingABatchTwiceReleasesOnce) {
  std::array<Claim, 1> batch{Claim{{0, 10}}};
  locks_.try_acquire(batch);
  locks_.release(batch);
  acquire(1, {0, 10});
  locks_.release(batch);
  EXPECT_EQ(locks_.held_count(), 1U) << "what 1 holds since then is not the batch's to give";
  release({0, 10});
}

TEST_F(RangeLocksTest, ReleasingABatchServesWaiters) {
  std::array<Claim, 2> batch{Claim{{0, 10}}, Claim{{20, 10}}};
  locks_.try_acquire(batch);
  acquire(1, {5, 20});
  EXPECT_EQ(take_granted(), Ids{});
  batch[0].held = false;  // given to a task, which releases it by itself
  locks_.release(batch);
  loop_.run_until_idle();
  EXPECT_EQ(take_granted(), Ids{}) << "the first range is still held";
  release({0, 10});
  EXPECT_EQ(take_granted(), Ids{1});
  release({5, 20});
  EXPECT_EQ(locks_.held_count(), 0U);
}

TEST_F(RangeLocksTest, HoldsTheLastBytesOfTheLargestDevice) {
  const ByteRange last(UINT64_MAX - 10, 10);
  acquire(1, last);
  acquire(2, {UINT64_MAX - 1, 1});
  EXPECT_EQ(take_granted(), Ids{1});
  release(last);
  EXPECT_EQ(take_granted(), Ids{2});
  release({UINT64_MAX - 1, 1});
}

using RangeLocksDeathTest = RangeLocksTest;

TEST_F(RangeLocksDeathTest, RefusesToReleaseWhatNobodyHolds) {
  acquire(1, {0, 10});
  EXPECT_DEATH(locks_.release(ByteRange(0, 5)), "held_");
  release({0, 10});
}

// --- random orders, against the plain meaning of the words ---

/// Cells that only the holder of their range may touch; checks that nobody else does.
struct Cells {
  static constexpr size_t kCount = 64;
  std::array<int, kCount> users{};
  std::array<uint64_t, kCount> touched{};

  void enter(ByteRange range) {
    for (uint64_t cell = range.offset; cell < range.end(); ++cell) {
      EXPECT_EQ(users[cell]++, 0);
      ++touched[cell];
    }
  }
  void leave(ByteRange range) {
    for (uint64_t cell = range.offset; cell < range.end(); ++cell) --users[cell];
  }
};

ByteRange random_range(Rng& rng) {
  const uint64_t offset = rng.below(Cells::kCount);
  return {offset, rng.between(1, std::min<uint64_t>(12, Cells::kCount - offset))};
}

Task<void> visit_cells(RangeLocks& locks, Cells& cells, uint64_t seed, int visits) {
  SeededRng rng(seed);
  Loop& loop = Loop::current();
  for (int i = 0; i < visits; ++i) {
    const ByteRange range = random_range(rng);
    std::array<Claim, 1> claim{Claim{range}};
    if (rng.one_in(3)) locks.try_acquire(claim);
    if (!claim[0].held) co_await locks.acquire(range);
    cells.enter(range);
    const uint64_t pauses = rng.below(3);
    for (uint64_t pause = 0; pause < pauses; ++pause) co_await loop.schedule();
    cells.leave(range);
    if (claim[0].held) {
      locks.release(claim);
    } else {
      locks.release(range);
    }
  }
}

TEST(RangeLocks, ExcludesAndForgetsNobodyInRandomOrders) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    RangeLocks locks;
    Cells cells;
    SimLoop loop({.seed = seed});
    for (uint64_t visitor = 0; visitor < 20; ++visitor) {
      loop.spawn(visit_cells(locks, cells, seed * 100 + visitor, 30));
    }
    ASSERT_EQ(loop.run_until_idle(), SimEnd::kIdle) << "seed " << seed;
    EXPECT_EQ(locks.held_count(), 0U);
  }
}

Task<void> visit_from(uint64_t seed, RangeLocks& locks, Cells& cells) {
  Scope scope;
  for (uint64_t visitor = 0; visitor < 8; ++visitor) {
    scope.spawn(visit_cells(locks, cells, seed * 100 + visitor, 200));
  }
  co_await scope.close();
}

TEST(RangeLocks, ExcludesAndForgetsNobodyOnSeveralThreads) {
  constexpr unsigned kLoops = 3;
  RangeLocks locks;
  Cells cells;  // not atomic: the thread sanitizer sees whoever is let in wrongly
  Result<std::unique_ptr<Runtime>> runtime = Runtime::start({.loops = kLoops, .use_uring = false});
  ASSERT_TRUE(runtime.has_value());
  std::vector<std::thread> callers;
  for (unsigned loop = 0; loop < kLoops; ++loop) {
    callers.emplace_back([&, loop] { (*runtime)->run(visit_from(loop + 1, locks, cells), loop); });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(locks.held_count(), 0U);
  uint64_t touched = 0;
  for (const uint64_t count : cells.touched) touched += count;
  EXPECT_GE(touched, uint64_t{kLoops} * 8 * 200);
}

}  // namespace
}  // namespace usbd

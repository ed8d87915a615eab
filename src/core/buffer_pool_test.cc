// SPDX-License-Identifier: Apache-2.0
//
// What is taken comes back, nobody waits longer than is fair, and no buffer is smaller than what it
// costs.

#include "core/buffer_pool.h"

#include <algorithm>
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

constexpr uint64_t kKiB = 1024;

/// A place in the line that notes when it was served.
struct NotingWaiter {
  NotingWaiter(int number, uint64_t bytes, Loop& loop, std::vector<int>& log)
      : id(number), served(log) {
    work.self = this;
    work.run = [](Work& self) {
      NotingWaiter& who = *static_cast<Node&>(self).self;
      who.served.push_back(who.id);
    };
    waiter.bytes = bytes;
    waiter.loop = &loop;
    waiter.granted = &work;
  }
  struct Node : Work {
    NotingWaiter* self = nullptr;
  };

  const int id;
  std::vector<int>& served;
  Node work;
  Budget::Waiter waiter;
};

class BudgetTest : public testing::Test {
 protected:
  void give(uint64_t bytes) {
    budget_.give(bytes);
    loop_.run_until_idle();
  }

  std::vector<int> served_;
  Budget budget_{100};
  SimLoop loop_{{}};
};

using Ids = std::vector<int>;

TEST_F(BudgetTest, HandsOutWhatItHasAndNoMore) {
  EXPECT_TRUE(budget_.try_take(60));
  EXPECT_FALSE(budget_.try_take(41));
  EXPECT_TRUE(budget_.try_take(40));
  EXPECT_EQ(budget_.free(), 0U);
  budget_.give(100);
  EXPECT_EQ(budget_.free(), budget_.total());
}

TEST_F(BudgetTest, ServesThoseWhoWantAboutAsMuchInTheOrderTheyCame) {
  EXPECT_TRUE(budget_.try_take(95));
  NotingWaiter first(1, 60, loop_, served_);
  NotingWaiter second(2, 33, loop_, served_);
  NotingWaiter third(3, 60, loop_, served_);
  for (NotingWaiter* one : {&first, &second, &third}) {
    EXPECT_FALSE(budget_.take_or_wait(one->waiter));
  }
  EXPECT_EQ(budget_.waiting(), 3U);
  give(40);
  EXPECT_EQ(served_, Ids{}) << "there is enough for 2, but 1 came first";
  give(20);
  EXPECT_EQ(served_, Ids{1});
  give(35);
  EXPECT_EQ(served_, (Ids{1, 2}));
  give(60);
  EXPECT_EQ(served_, (Ids{1, 2, 3}));
  EXPECT_EQ(budget_.waiting(), 0U);
  give(93);
}

TEST_F(BudgetTest, GivesWhatIsTooLittleForALargeOneToASmallOne) {
  EXPECT_TRUE(budget_.try_take(90));
  NotingWaiter large(1, 80, loop_, served_);
  NotingWaiter small(2, 8, loop_, served_);
  EXPECT_FALSE(budget_.take_or_wait(large.waiter));
  EXPECT_FALSE(budget_.try_take(1)) << "only in line";
  EXPECT_TRUE(budget_.take_or_wait(small.waiter));
  EXPECT_EQ(budget_.waiting(), 1U);
  give(78);
  EXPECT_EQ(served_, Ids{1});
  give(100);
}

TEST_F(BudgetTest, LetsSmallOnesOvertakeUntilTheyHaveHadAsMuchAsTheLargeOnes) {
  EXPECT_TRUE(budget_.try_take(100));
  NotingWaiter first(1, 64, loop_, served_);
  NotingWaiter second(2, 64, loop_, served_);
  EXPECT_FALSE(budget_.take_or_wait(first.waiter));
  EXPECT_FALSE(budget_.take_or_wait(second.waiter));
  give(64);
  EXPECT_EQ(served_, Ids{1});
  uint64_t overtaken = 0;
  while (served_.size() == 1) {
    ASSERT_LT(overtaken, 1000U) << "it starves";
    budget_.give(8);
    NotingWaiter small(3, 8, loop_, served_);
    if (budget_.take_or_wait(small.waiter)) {
      overtaken += 8;
    } else {
      EXPECT_TRUE(budget_.stop_waiting(small.waiter));
    }
    loop_.run_until_idle();
  }
  EXPECT_EQ(served_, (Ids{1, 2}));
  EXPECT_EQ(overtaken, 64U + 8U) << "at a tie the small ones go first";
  give(budget_.total() - budget_.free());
}

/// The reason for the lines: a thousand who want much, and keep it, before one who wants little.
TEST_F(BudgetTest, ServesASmallOneSoonBehindAThousandLargeOnes) {
  EXPECT_TRUE(budget_.try_take(96));
  std::vector<std::unique_ptr<NotingWaiter>> large;
  for (int i = 0; i < 1000; ++i) {
    large.push_back(std::make_unique<NotingWaiter>(i, 32, loop_, served_));
    EXPECT_FALSE(budget_.take_or_wait(large.back()->waiter));
  }
  give(32);
  give(32);
  for (int round = 1; round < 100; ++round) {
    served_.clear();
    NotingWaiter small(-1, 5, loop_, served_);
    const bool at_once = budget_.take_or_wait(small.waiter);
    for (int gives = 0; !at_once && std::ranges::count(served_, -1) == 0; ++gives) {
      ASSERT_LT(gives, 3) << round;
      give(32);
    }
    give(5);
  }
  EXPECT_GT(budget_.waiting(), 800U) << "that was not because all others had their turn";
  for (const auto& one : large) {
    [[maybe_unused]] const bool waited = budget_.stop_waiting(one->waiter);
  }
  give(budget_.total() - budget_.free());
}

TEST_F(BudgetTest, TakesAtOnceWhereNobodyWaits) {
  NotingWaiter only(1, 100, loop_, served_);
  EXPECT_TRUE(budget_.take_or_wait(only.waiter));
  EXPECT_EQ(budget_.free(), 0U);
  give(100);
  EXPECT_EQ(served_, Ids{}) << "who was served at once is not told again";
}

TEST_F(BudgetTest, LetsAnyoneLeaveTheLine) {
  EXPECT_TRUE(budget_.try_take(100));
  NotingWaiter first(1, 10, loop_, served_);
  NotingWaiter middle(2, 10, loop_, served_);
  NotingWaiter last(3, 10, loop_, served_);
  for (NotingWaiter* one : {&first, &middle, &last}) {
    EXPECT_FALSE(budget_.take_or_wait(one->waiter));
  }
  EXPECT_TRUE(budget_.stop_waiting(middle.waiter));
  EXPECT_FALSE(budget_.stop_waiting(middle.waiter));
  EXPECT_TRUE(budget_.stop_waiting(last.waiter));
  NotingWaiter late(4, 10, loop_, served_);
  EXPECT_FALSE(budget_.take_or_wait(late.waiter)) << "the line's end was mended";
  give(20);
  Ids served = served_;
  std::ranges::sort(served);
  EXPECT_EQ(served, (Ids{1, 4}));
  EXPECT_FALSE(budget_.stop_waiting(first.waiter)) << "served already";
  give(100);
  EXPECT_EQ(budget_.free(), budget_.total());
}

TEST_F(BudgetTest, ServesThoseForWhomItWasEnoughWhenALargeOneLeaves) {
  EXPECT_TRUE(budget_.try_take(30));
  NotingWaiter large(1, 100, loop_, served_);
  NotingWaiter next(2, 70, loop_, served_);
  EXPECT_FALSE(budget_.take_or_wait(large.waiter));
  EXPECT_FALSE(budget_.take_or_wait(next.waiter));
  EXPECT_TRUE(budget_.stop_waiting(large.waiter));
  loop_.run_until_idle();
  EXPECT_EQ(served_, Ids{2});
  give(100);
}

using BudgetDeathTest = BudgetTest;

TEST_F(BudgetDeathTest, RefusesToBeGivenMoreThanItHas) {
  EXPECT_DEATH(budget_.give(1), "free_");
}

TEST(BufferPool, CostsTheNextPowerOfTwo) {
  EXPECT_EQ(BufferPool::cost(1), 4 * kKiB);
  EXPECT_EQ(BufferPool::cost(4 * kKiB), 4 * kKiB);
  EXPECT_EQ(BufferPool::cost(4 * kKiB + 1), 8 * kKiB);
  EXPECT_EQ(BufferPool::cost(64 * kKiB), 64 * kKiB);
  EXPECT_EQ(BufferPool::cost(64 * kKiB + 1), 128 * kKiB);
  EXPECT_EQ(BufferPool::cost(32768 * kKiB), 32768 * kKiB);
}

TEST(BufferPool, LendsAlignedMemoryOfTheLengthAskedFor) {
  Budget budget(64 << 20);
  BufferPool pool(budget);
  for (const size_t length : {1U, 511U, 4096U, 4097U, 100'000U, 32U << 20}) {
    const BufferPool::Lease lease = pool.try_lease(length);
    ASSERT_TRUE(lease);
    EXPECT_EQ(lease.bytes().size(), length);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(lease.bytes().data()) %
                  AlignedBuffer::alignment_of(lease.bytes().size()),
              0U);
    lease.bytes().front() = lease.bytes().back() = std::byte{1};
    EXPECT_EQ(budget.free(), budget.total() - BufferPool::cost(length));
  }
  EXPECT_EQ(budget.free(), budget.total());
}

TEST(BufferPool, LendsNothingWhenTheBudgetIsUsedUp) {
  Budget budget(8 * kKiB);
  BufferPool pool(budget);
  BufferPool::Lease first = pool.try_lease(4096);
  BufferPool::Lease second = pool.try_lease(4096);
  EXPECT_TRUE(second);
  EXPECT_FALSE(pool.try_lease(1));
  first.reset();
  first.reset();
  EXPECT_EQ(budget.free(), 4 * kKiB) << "a lease gives back once";
  EXPECT_TRUE(pool.try_lease(1));
}

TEST(BufferPool, GivesBackOnceWhenALeaseMoves) {
  Budget budget(1 << 20);
  BufferPool pool(budget);
  {
    BufferPool::Lease one = pool.try_lease(4096);
    BufferPool::Lease other = std::move(one);
    EXPECT_FALSE(one);  // NOLINT(bugprone-use-after-move): a moved lease says that it is empty
    BufferPool::Lease third = pool.try_lease(10'000);
    third = std::move(other);
    EXPECT_EQ(budget.free(), budget.total() - 4096) << "what it held before went back";
    EXPECT_EQ(third.bytes().size(), 4096U);
  }
  EXPECT_EQ(budget.free(), budget.total());
}

TEST(BufferPool, ReusesABufferOfTheSameClass) {
  Budget budget(1 << 20);
  BufferPool pool(budget);
  const std::byte* memory = nullptr;
  {
    const BufferPool::Lease lease = pool.try_lease(8192);
    memory = lease.bytes().data();
  }
  EXPECT_EQ(pool.try_lease(5000).bytes().data(), memory);
}

TEST(BufferPool, LendsWhatTheCallerHasPaidFor) {
  Budget budget(16 * kKiB);
  BufferPool pool(budget);
  ASSERT_TRUE(budget.try_take(BufferPool::cost(9000)));
  BufferPool::Lease lease = pool.lease_paid(9000);
  EXPECT_EQ(budget.free(), 0U);
  lease.reset();
  EXPECT_EQ(budget.free(), budget.total());
}

// --- several loops at one budget ---

/// Waits for its bytes like a connection does.
struct Turn {
  Turn(Budget& b, uint64_t bytes) : budget(b) {
    waiter.bytes = bytes;
    waiter.loop = &Loop::current();
    waiter.granted = &work;
  }
  bool await_ready() const { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    work.handle = handle;
    return !budget.take_or_wait(waiter);
  }
  void await_resume() const {}

  Budget& budget;
  ResumeWork work;
  Budget::Waiter waiter;
};

Task<void> borrow(Budget& budget, BufferPool& pool, uint64_t seed) {
  SeededRng rng(seed);
  for (int i = 0; i < 200; ++i) {
    const size_t length = rng.between(1, 16 * kKiB);
    Turn turn(budget, BufferPool::cost(length));
    co_await turn;
    const BufferPool::Lease lease = pool.lease_paid(length);
    lease.bytes().front() = std::byte{1};
    co_await Loop::current().schedule();
  }
}

Task<void> borrow_on_one_loop(Budget& budget, uint64_t seed) {
  BufferPool pool(budget);
  Scope scope;
  for (uint64_t i = 0; i < 6; ++i) scope.spawn(borrow(budget, pool, seed * 10 + i));
  co_await scope.close();
}

TEST(Budget, IsSharedByLoopsWithoutLossOrDeadlock) {
  Budget budget(32 * kKiB);
  Result<std::unique_ptr<Runtime>> runtime = Runtime::start({.loops = 3, .use_uring = false});
  ASSERT_TRUE(runtime.has_value());
  std::vector<std::thread> callers;
  for (unsigned loop = 0; loop < 3; ++loop) {
    callers.emplace_back([&, loop] { (*runtime)->run(borrow_on_one_loop(budget, loop), loop); });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(budget.free(), budget.total());
  EXPECT_EQ(budget.waiting(), 0U);
}

}  // namespace
}  // namespace usbd

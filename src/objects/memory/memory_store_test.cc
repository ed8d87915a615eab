// SPDX-License-Identifier: Apache-2.0
//
// MemoryStore beyond what every kind must do (tests/store): determinism, one yield, its bound. And
// what the kinds share: clocks of calls, and ranges.

#include "objects/memory/memory_store.h"

#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "objects/part_range.h"

namespace usbd::objects {
namespace {

using namespace std::chrono_literals;

class MemoryStoreTest : public ::testing::Test {
 protected:
  Result<std::string> put(const std::string& name, size_t size,
                          Condition condition = Condition::always()) {
    const std::vector<std::byte> data(size, std::byte{7});
    return *loop_.run(store_.put(name, data, std::move(condition), CallLimits()));
  }

  SimLoop loop_{SimLoop::Options{}};
  std::shared_ptr<MemoryContainer> container_ = std::make_shared<MemoryContainer>();
  MemoryStore store_{container_};
};

TEST_F(MemoryStoreTest, CountsItsTags) {
  EXPECT_EQ(*put("a", 1), "m1");
  EXPECT_EQ(*put("b", 1), "m2");
  EXPECT_FALSE(put("a", 1, Condition::absent()));
  EXPECT_EQ(*put("a", 1), "m3") << "a refused put takes none";
}

TEST_F(MemoryStoreTest, HoldsNoMoreThanItMay) {
  container_->bytes_max = 100;
  EXPECT_TRUE(put("a", 60));
  const Result<std::string> full = put("b", 41);
  EXPECT_TRUE(!full && full.error().is(Errc::kNoSpace));
  EXPECT_TRUE(put("a", 100)) << "what is replaced makes room";
  EXPECT_TRUE(*loop_.run(store_.remove("a", CallLimits())));
  EXPECT_TRUE(put("b", 100));
  EXPECT_EQ(container_->bytes, 100U);
}

Task<void> put_one(MemoryStore& store) {
  CallLimits limits;
  const std::vector<std::byte> data(1);
  (void)co_await store.put("a", data, Condition::always(), std::move(limits));
}

TEST_F(MemoryStoreTest, YieldsOnceBeforeTheEffect) {
  const uint64_t before = loop_.steps();
  loop_.spawn(put_one(store_));
  EXPECT_TRUE(container_->objects.empty());
  loop_.run_until_idle();
  EXPECT_TRUE(container_->objects.contains("a"));
  EXPECT_EQ(loop_.steps() - before, 2U) << "the task's start, and its return to the loop";
}

TEST(CallClock, EndsACallAtItsTimeOrWhenItIsNotWanted) {
  SimLoop loop{SimLoop::Options{}};
  std::stop_source stop;
  const CallClock by_default(loop, CallLimits(), 10s);
  const CallClock given(loop, {.timeout = 3s, .stop = stop.get_token()}, 10s);
  const CallClock endless(loop, {.timeout = Nanos::max(), .stop = {}}, 10s);
  EXPECT_FALSE(given.over());
  EXPECT_LE(given.left(), 3s);
  EXPECT_GT(by_default.left(), 3s);
  const auto sleep = [](SimLoop& on, Nanos time) -> Task<void> { co_await on.sleep_for(time); };
  loop.spawn(sleep(loop, 4s));
  loop.run_until_idle();
  EXPECT_EQ(given.over(), Errc::kTimedOut);
  EXPECT_EQ(given.left(), Nanos(0));
  EXPECT_FALSE(by_default.over());
  stop.request_stop();
  EXPECT_EQ(given.over(), Errc::kCanceled);
  loop.spawn(sleep(loop, 400'000s));
  loop.run_until_idle();
  EXPECT_EQ(by_default.over(), Errc::kTimedOut);
  EXPECT_FALSE(endless.over());
}

TEST(PartRange, StaysInsideTheObject) {
  EXPECT_EQ(*range_of(Part::range(10, 5), 100), ByteRange(10, 5));
  EXPECT_EQ(*range_of(Part::range(98, 5), 100), ByteRange(98, 2));
  EXPECT_EQ(*range_of(Part::range(100, 5), 100), ByteRange(100, 0));
  EXPECT_EQ(*range_of(Part::range(UINT64_MAX, UINT64_MAX), 100), ByteRange(100, 0));
  EXPECT_EQ(*range_of(Part::tail(5), 100), ByteRange(95, 5));
  EXPECT_EQ(*range_of(Part::tail(UINT64_MAX), 100), ByteRange(0, 100));
  EXPECT_EQ(*range_of(Part::whole(100), 100), ByteRange(0, 100));
  EXPECT_TRUE(range_of(Part::whole(99), 100).error().is(Errc::kOverflow));
}

}  // namespace
}  // namespace usbd::objects

// SPDX-License-Identifier: Apache-2.0
//
// RetryingStore: what is tried again, how often, for how long, and what is not.

#include "objects/retrying_store.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "async/scope.h"
#include "async/sim_loop.h"
#include "objects/memory/memory_store.h"
#include "objects/testing/fault_store.h"

namespace usbd::objects {
namespace {

using testing::FaultStore;
using testing::StoreFault;
using namespace std::chrono_literals;

class RetryingStoreTest : public ::testing::Test {
 protected:
  RetryingStoreTest() { make({}); }

  void make(RetryOptions options) {
    auto faults = std::make_unique<FaultStore>(std::make_unique<MemoryStore>(container_),
                                               FaultStore::Options{});
    faults_ = faults.get();
    store_ = std::make_unique<RetryingStore>(std::move(faults), options, rng_);
  }
  void fail(StoreCall call, uint64_t count, Errc error = Errc::kAgain,
            StoreFault::Kind kind = StoreFault::Kind::kBefore) {
    faults_->inject({.call = call, .kind = kind, .count = count, .error = error});
  }
  Result<std::string> put(Condition condition = Condition::always(), CallLimits limits = {}) {
    return *loop_.run(store_->put("x", data_, std::move(condition), std::move(limits)));
  }
  Result<Fetched> get(CallLimits limits = {}) {
    return *loop_.run(store_->get("x", Part::whole(100), std::move(limits)));
  }

  SimLoop loop_{SimLoop::Options{}};
  SeededRng rng_{1};
  std::shared_ptr<MemoryContainer> container_ = std::make_shared<MemoryContainer>();
  std::unique_ptr<RetryingStore> store_;
  FaultStore* faults_ = nullptr;
  const std::vector<std::byte> data_ = std::vector<std::byte>(10, std::byte{7});
};

TEST_F(RetryingStoreTest, MakesEveryKindOfCallAgainUntilItSucceeds) {
  for (const StoreCall call :
       {StoreCall::kPut, StoreCall::kGet, StoreCall::kHead, StoreCall::kList, StoreCall::kRemove}) {
    fail(call, 3);
  }
  EXPECT_TRUE(put());
  EXPECT_TRUE(get());
  EXPECT_TRUE(*loop_.run(store_->head("x", CallLimits())));
  EXPECT_TRUE(*loop_.run(store_->list("", "", 10, CallLimits())));
  EXPECT_TRUE(*loop_.run(store_->remove("x", CallLimits())));
  EXPECT_EQ(store_->retries(), 15U);
  EXPECT_EQ(faults_->calls(StoreCall::kGet), 4U);
  EXPECT_TRUE(container_->objects.empty());
}

TEST_F(RetryingStoreTest, GivesTheLastErrorAfterTheLastAttempt) {
  fail(StoreCall::kGet, 100, Errc::kTimedOut);
  const Result<Fetched> got = get();
  ASSERT_FALSE(got);
  EXPECT_TRUE(got.error().is(Errc::kTimedOut));
  EXPECT_NE(got.error().message().find("12 attempts"), std::string::npos) << got.error().message();
  EXPECT_NE(got.error().message().find("of x was made"), std::string::npos);
  EXPECT_EQ(faults_->calls(StoreCall::kGet), 12U);
}

TEST_F(RetryingStoreTest, HandsUpWhatWillNotPass) {
  for (const Errc code : {Errc::kNotFound, Errc::kAccess, Errc::kNoSpace, Errc::kNotSupported,
                          Errc::kExists, Errc::kInvalid, Errc::kCanceled, Errc::kReadOnly}) {
    fail(StoreCall::kGet, 1, code);
    const Result<Fetched> got = get();
    EXPECT_TRUE(!got && got.error().is(code));
  }
  EXPECT_EQ(store_->retries(), 0U);
}

TEST_F(RetryingStoreTest, MakesAConditionalPutOnce) {
  // It was made, and its answer was lost: to try again would report our own success as another's.
  fail(StoreCall::kPut, 1, Errc::kTimedOut, StoreFault::Kind::kAfter);
  Result<std::string> done = put(Condition::absent());
  EXPECT_TRUE(!done && done.error().is(Errc::kTimedOut));
  EXPECT_EQ(faults_->calls(StoreCall::kPut), 1U);
  ASSERT_TRUE(container_->objects.contains("x"));
  fail(StoreCall::kPut, 1, Errc::kAgain);
  done = put(Condition::matches(container_->objects["x"].tag));
  EXPECT_TRUE(!done && done.error().is(Errc::kAgain));
  EXPECT_EQ(faults_->calls(StoreCall::kPut), 2U);
  EXPECT_TRUE(put(Condition::matches(container_->objects["x"].tag)));
}

TEST_F(RetryingStoreTest, MakesAPutWhoseAnswerWasLostAgain) {
  fail(StoreCall::kPut, 2, Errc::kIo, StoreFault::Kind::kAfter);
  EXPECT_TRUE(put());
  EXPECT_EQ(faults_->calls(StoreCall::kPut), 3U);
}

TEST_F(RetryingStoreTest, EndsWhenItsTimeIsOver) {
  make({.attempts_max = 1000, .time_max = 20s});
  fail(StoreCall::kGet, 10'000);
  Nanos start = loop_.now();
  Result<Fetched> got = get();
  EXPECT_TRUE(!got && got.error().is(Errc::kAgain));
  EXPECT_LE(loop_.now() - start, 20s);
  EXPECT_GT(loop_.now() - start, 5s);
  EXPECT_GT(store_->retries(), 5U);
  start = loop_.now();
  got = get({.timeout = 100ms, .stop = {}});
  EXPECT_FALSE(got);
  EXPECT_LE(loop_.now() - start, 100ms);
}

TEST_F(RetryingStoreTest, GivesEachAttemptWhatIsLeftOfTheTime) {
  make({.attempts_max = 5, .time_max = 20s, .attempt_time = 3s});
  faults_->inject(
      {.call = StoreCall::kGet, .kind = StoreFault::Kind::kDelay, .count = 2, .delay = 1h});
  ASSERT_TRUE(put());
  EXPECT_TRUE(get()) << "two attempts end after 3 s each";
  EXPECT_GE(loop_.now(), 6s);
  EXPECT_LT(loop_.now(), 8s);
}

TEST_F(RetryingStoreTest, DrawsPausesUpToABoundThatDoubles) {
  make({.attempts_max = 9, .time_max = 1h, .backoff_min = 100ms, .backoff_max = 1s});
  Nanos longest{0};
  Nanos shortest = 1h;
  for (int times = 0; times < 50; ++times) {
    fail(StoreCall::kGet, 9);
    const Nanos start = loop_.now();
    EXPECT_FALSE(get());
    longest = std::max(longest, loop_.now() - start);
    shortest = std::min(shortest, loop_.now() - start);
  }
  // The bounds are 0.1, 0.2, 0.4, 0.8 and four times 1 s: 5.5 s together, half of it on average.
  EXPECT_LT(longest, 5500ms);
  EXPECT_GT(longest, 2750ms);
  EXPECT_LT(shortest, 2750ms);
}

TEST_F(RetryingStoreTest, StopsInTheMiddleOfAPause) {
  make({.attempts_max = 1000, .time_max = 1h, .backoff_min = 10min, .backoff_max = 10min});
  fail(StoreCall::kGet, 1);
  std::stop_source stop;
  Scope scope;
  std::optional<Result<Fetched>> got;
  const auto start = [](RetryingStore& store, std::stop_token token,
                        std::optional<Result<Fetched>>& into) -> Task<void> {
    CallLimits limits{.timeout = Nanos(0), .stop = std::move(token)};
    into.emplace(co_await store.get("x", Part::whole(1), std::move(limits)));
  };
  loop_.spawn(start(*store_, stop.get_token(), got));
  EXPECT_EQ(loop_.run_for(1ms), SimEnd::kTime);
  EXPECT_FALSE(got);
  stop.request_stop();
  EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
  ASSERT_TRUE(got);
  EXPECT_TRUE(!*got && got->error().is(Errc::kCanceled));
  EXPECT_LT(loop_.now(), 1s);
}

TEST_F(RetryingStoreTest, NamesTheStoreBehindIt) {
  EXPECT_EQ(store_->name(), "memory");
  EXPECT_TRUE(store_->abilities().put_if_absent);
  loop_.spawn(store_->close());
  EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
}

}  // namespace
}  // namespace usbd::objects

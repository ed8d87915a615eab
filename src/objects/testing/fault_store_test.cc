// SPDX-License-Identifier: Apache-2.0
//
// FaultStore: it must do exactly what it says, or the tests built on it prove nothing.

#include "objects/testing/fault_store.h"

#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "objects/memory/memory_store.h"

namespace usbd::objects::testing {
namespace {

using Kind = StoreFault::Kind;
using namespace std::chrono_literals;

class FaultStoreTest : public ::testing::Test {
 protected:
  FaultStoreTest() { make({}); }
  void TearDown() override {
    loop_.spawn(store_->close());
    EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
  }
  void make(FaultStore::Options options) {
    store_ = std::make_unique<FaultStore>(std::make_unique<MemoryStore>(container_), options);
  }

  Result<std::string> put(const std::string& name, int value,
                          Condition condition = Condition::always()) {
    const std::vector<std::byte> data(100, static_cast<std::byte>(value));
    return *loop_.run(store_->put(name, data, std::move(condition), CallLimits()));
  }
  Result<Fetched> get(const std::string& name) {
    return *loop_.run(store_->get(name, Part::whole(100), CallLimits()));
  }
  Result<void> remove(const std::string& name) {
    return *loop_.run(store_->remove(name, CallLimits()));
  }
  /// What the container really holds; -1: nothing.
  int value_of(const std::string& name) {
    const auto found = container_->objects.find(name);
    return found == container_->objects.end() ? -1 : static_cast<int>(found->second.data.front());
  }

  SimLoop loop_{SimLoop::Options{}};
  std::shared_ptr<MemoryContainer> container_ = std::make_shared<MemoryContainer>();
  std::unique_ptr<FaultStore> store_;
};

TEST_F(FaultStoreTest, FailsTheCallsItWasToldToAndNoOthers) {
  store_->inject({.call = StoreCall::kPut, .after = 1, .count = 2, .error = Errc::kNoSpace});
  EXPECT_TRUE(put("a", 1));
  for (int times = 0; times < 2; ++times) {
    const Result<std::string> done = put("b", 2);
    EXPECT_TRUE(!done && done.error().is(Errc::kNoSpace));
  }
  EXPECT_EQ(value_of("b"), -1);
  EXPECT_TRUE(put("b", 3));
  EXPECT_TRUE(get("a"));
  EXPECT_EQ(store_->calls(StoreCall::kPut), 4U);
  EXPECT_EQ(store_->faults(), 2U);
}

TEST_F(FaultStoreTest, FailsAfterTheEffect) {
  for (const StoreCall call :
       {StoreCall::kPut, StoreCall::kGet, StoreCall::kHead, StoreCall::kList, StoreCall::kRemove}) {
    store_->inject({.call = call, .kind = Kind::kAfter, .error = Errc::kTimedOut});
  }
  EXPECT_FALSE(put("a", 1));
  EXPECT_EQ(value_of("a"), 1);
  EXPECT_FALSE(get("a"));
  EXPECT_FALSE(*loop_.run(store_->head("a", CallLimits())));
  EXPECT_FALSE(*loop_.run(store_->list("", "", 1, CallLimits())));
  EXPECT_FALSE(remove("a"));
  EXPECT_EQ(value_of("a"), -1);
}

TEST_F(FaultStoreTest, MakesAChangeLongAfterItsError) {
  store_->inject({.call = StoreCall::kPut, .kind = Kind::kLate, .delay = 10s});
  EXPECT_FALSE(put("a", 1));
  EXPECT_TRUE(put("a", 2));
  store_->inject({.call = StoreCall::kRemove, .kind = Kind::kLate, .delay = 20s});
  EXPECT_FALSE(remove("a"));
  EXPECT_EQ(value_of("a"), 2);
  EXPECT_EQ(store_->late_effects(), 2U);
  loop_.run_for(15s);
  EXPECT_EQ(value_of("a"), 1) << "it overtakes what was put after it";
  loop_.run_for(15s);
  EXPECT_EQ(value_of("a"), -1);
  EXPECT_EQ(store_->late_effects(), 0U);
}

TEST_F(FaultStoreTest, AppliesAConditionWhenALatePutLands) {
  store_->inject({.call = StoreCall::kPut, .kind = Kind::kLate, .delay = 10s});
  EXPECT_FALSE(put("a", 1, Condition::absent()));
  EXPECT_TRUE(put("a", 2, Condition::absent()));
  loop_.run_until_idle();
  EXPECT_EQ(value_of("a"), 2);
}

TEST_F(FaultStoreTest, TakesALateReadForOneThatFails) {
  ASSERT_TRUE(put("a", 1));
  store_->inject({.call = StoreCall::kGet, .kind = Kind::kLate, .delay = 10s});
  EXPECT_FALSE(get("a"));
  EXPECT_TRUE(get("a"));
}

TEST_F(FaultStoreTest, DelaysCallsAndKeepsTheirLimits) {
  ASSERT_TRUE(put("a", 1));
  store_->inject({.call = StoreCall::kGet, .kind = Kind::kDelay, .count = 2, .delay = 10s});
  Nanos start = loop_.now();
  EXPECT_TRUE(get("a"));
  EXPECT_GE(loop_.now() - start, 10s);
  start = loop_.now();
  CallLimits limits{.timeout = 1s, .stop = {}};
  const Result<Fetched> got = *loop_.run(store_->get("a", Part::whole(100), std::move(limits)));
  EXPECT_TRUE(!got && got.error().is(Errc::kTimedOut));
  EXPECT_LT(loop_.now() - start, 2s);
}

TEST_F(FaultStoreTest, CutsBodiesShortUnnoticed) {
  ASSERT_TRUE(put("a", 1));
  store_->inject({.call = StoreCall::kGet, .kind = Kind::kTruncate});
  const Result<Fetched> got = get("a");
  ASSERT_TRUE(got);
  EXPECT_LT(got->data.size(), 100U);
  EXPECT_EQ(got->object_size, 100U);
}

TEST_F(FaultStoreTest, GivesWrongTags) {
  const Result<std::string> right = put("a", 1);
  store_->inject({.call = StoreCall::kPut, .kind = Kind::kWrongTag});
  store_->inject({.call = StoreCall::kGet, .kind = Kind::kWrongTag});
  store_->inject({.call = StoreCall::kHead, .kind = Kind::kWrongTag});
  const Result<Fetched> got = get("a");
  const Result<ObjectInfo> info = *loop_.run(store_->head("a", CallLimits()));
  const Result<std::string> wrong = put("a", 2);
  ASSERT_TRUE(right && got && info && wrong);
  EXPECT_NE(got->tag, *right);
  EXPECT_NE(info->tag, *right);
  EXPECT_NE(*wrong, container_->objects["a"].tag);
  EXPECT_EQ(value_of("a"), 2);
}

TEST_F(FaultStoreTest, ForgetsFaults) {
  store_->inject({.call = StoreCall::kPut, .count = 100});
  EXPECT_FALSE(put("a", 1));
  store_->clear_faults();
  EXPECT_TRUE(put("a", 1));
}

TEST_F(FaultStoreTest, DrawsTheSameFaultsFromTheSameSeed) {
  const FaultStore::Chances chances{
      .before = 7, .after = 7, .late = 7, .delay = 7, .truncate = 7, .wrong_tag = 7};
  std::map<int, int> outcomes;
  std::vector<int> first;
  for (const uint64_t seed : {4U, 4U, 5U}) {
    container_->objects.clear();
    make({.seed = seed, .chances = chances});
    std::vector<int> outcome;
    for (int i = 0; i < 300; ++i) {
      const Result<std::string> done = put("a", i % 100);
      outcome.push_back(done ? 0 : done.error().number());
      ++outcomes[outcome.back()];
    }
    EXPECT_GT(store_->faults(), 150U);
    loop_.spawn(store_->close());
    EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
    if (first.empty()) first = outcome;
    EXPECT_EQ(outcome == first, seed == 4);
  }
  for (const int number : {0, EIO, EAGAIN, ETIMEDOUT}) EXPECT_GT(outcomes[number], 10);
  make({});
}

}  // namespace
}  // namespace usbd::objects::testing

// SPDX-License-Identifier: Apache-2.0
//
// CountingStore: it counts what happened, and changes nothing.

#include "objects/counting_store.h"

#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "objects/memory/memory_store.h"
#include "objects/testing/fault_store.h"

namespace usbd::objects {
namespace {

using testing::FaultStore;
using testing::StoreFault;

class CountingStoreTest : public ::testing::Test {
 protected:
  CountingStoreTest() {
    auto faults =
        std::make_unique<FaultStore>(std::make_unique<MemoryStore>(), FaultStore::Options{});
    faults_ = faults.get();
    store_ = std::make_unique<CountingStore>(std::move(faults));
  }
  const StoreCallStats& of(StoreCall call) { return store_->stats().of(call); }

  SimLoop loop_{SimLoop::Options{}};
  std::unique_ptr<CountingStore> store_;
  FaultStore* faults_ = nullptr;
  const std::vector<std::byte> data_ = std::vector<std::byte>(1000, std::byte{7});
};

TEST_F(CountingStoreTest, CountsCallsAndBytesByKind) {
  EXPECT_TRUE(*loop_.run(store_->put("a", data_, Condition::always(), CallLimits())));
  EXPECT_TRUE(*loop_.run(store_->put("b", data_, Condition::always(), CallLimits())));
  EXPECT_EQ(loop_.run(store_->get("a", Part::range(0, 300), CallLimits()))->operator*().data.size(),
            300U);
  EXPECT_TRUE(*loop_.run(store_->head("a", CallLimits())));
  EXPECT_EQ((*loop_.run(store_->list("", "", 10, CallLimits())))->objects.size(), 2U);
  EXPECT_TRUE(*loop_.run(store_->remove("a", CallLimits())));
  EXPECT_EQ(of(StoreCall::kPut).calls, 2U);
  EXPECT_EQ(of(StoreCall::kPut).bytes_sent, 2000U);
  EXPECT_EQ(of(StoreCall::kGet).bytes_received, 300U);
  EXPECT_EQ(of(StoreCall::kHead).calls, 1U);
  EXPECT_EQ(of(StoreCall::kList).calls, 1U);
  EXPECT_EQ(of(StoreCall::kRemove).calls, 1U);
  EXPECT_TRUE(store_->stats().errors.empty());
  EXPECT_EQ(store_->stats().summary(),
            "put 2 (2000 bytes sent), get 1 (300 bytes received), head 1, list 1, remove 1, "
            "errors 0, in flight 0");
}

TEST_F(CountingStoreTest, CountsErrorsByCodeAndNoBytesOfThem) {
  EXPECT_FALSE(*loop_.run(store_->get("nothing", Part::whole(1), CallLimits())));
  faults_->inject({.call = StoreCall::kPut, .count = 2, .error = Errc::kAgain});
  for (int times = 0; times < 2; ++times) {
    EXPECT_FALSE(*loop_.run(store_->put("a", data_, Condition::always(), CallLimits())));
  }
  EXPECT_EQ(store_->stats().errors.at(ENOENT), 1U);
  EXPECT_EQ(store_->stats().errors.at(EAGAIN), 2U);
  EXPECT_EQ(of(StoreCall::kPut).errors, 2U);
  EXPECT_EQ(of(StoreCall::kPut).calls, 2U);
  EXPECT_EQ(of(StoreCall::kPut).bytes_sent, 0U);
}

Task<void> get_one(CountingStore& store) {
  CallLimits limits;
  (void)co_await store.get("a", Part::whole(1000), std::move(limits));
}

TEST_F(CountingStoreTest, KnowsWhatIsInFlightAndForHowLong) {
  faults_->inject({.call = StoreCall::kGet,
                   .kind = StoreFault::Kind::kDelay,
                   .count = 3,
                   .delay = std::chrono::seconds(2)});
  for (int times = 0; times < 3; ++times) loop_.spawn(get_one(*store_));
  loop_.run_for(std::chrono::seconds(1));
  EXPECT_EQ(store_->stats().in_flight, 3U);
  loop_.run_until_idle();
  EXPECT_EQ(store_->stats().in_flight, 0U);
  EXPECT_EQ(store_->stats().in_flight_most, 3U);
  const auto two_seconds = uint64_t{2'000'000'000};
  EXPECT_GE(of(StoreCall::kGet).total_ns, 3 * two_seconds);
  EXPECT_GE(of(StoreCall::kGet).latency.quantile(0.5), two_seconds);
  EXPECT_LE(of(StoreCall::kGet).latency.quantile(0.99), two_seconds * 5 / 4);
  loop_.spawn(store_->close());
  EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
}

}  // namespace
}  // namespace usbd::objects

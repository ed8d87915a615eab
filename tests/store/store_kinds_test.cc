// SPDX-License-Identifier: Apache-2.0
//
// The kinds that need no server, put through the suite: memory, on a real loop and on a simulated
// one; a directory; and both behind the stores that stand in front of others.

#include <filesystem>

#include <fmt/format.h>

#include "async/sim_loop.h"
#include "async/testing.h"
#include "objects/counting_store.h"
#include "objects/local/testing.h"
#include "objects/memory/memory_store.h"
#include "objects/retrying_store.h"
#include "objects/testing/fault_store.h"
#include "store/store_conformance.h"

namespace usbd::objects::testing {
namespace {

using ::testing::Values;

class InMemory : public StoreUnderTest {
 public:
  Task<Result<std::unique_ptr<ObjectStore>>> open() override {
    co_return std::unique_ptr<ObjectStore>(std::make_unique<MemoryStore>(container_));
  }
  void run(Task<void> task) override { loop_.run(std::move(task)); }

 private:
  usbd::testing::TestLoop loop_;
  std::shared_ptr<MemoryContainer> container_ = std::make_shared<MemoryContainer>();
};

class InSimulation final : public StoreUnderTest {
 public:
  Task<Result<std::unique_ptr<ObjectStore>>> open() override {
    co_return std::unique_ptr<ObjectStore>(std::make_unique<MemoryStore>(container_));
  }
  void run(Task<void> task) override {
    loop_.spawn(std::move(task));
    EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
  }

 private:
  std::shared_ptr<MemoryContainer> container_ = std::make_shared<MemoryContainer>();
  SimLoop loop_{SimLoop::Options{.seed = 11}};
};

class InDirectory final : public StoreUnderTest {
 public:
  Task<Result<std::unique_ptr<ObjectStore>>> open() override {
    LocalStore::Options options{.path = folder_.path(), .container = "vol"};
    Result<std::unique_ptr<LocalStore>> store =
        co_await LocalStore::open(std::move(options), loop_.pool(), rng_);
    if (!store) co_return store.error();
    co_return std::unique_ptr<ObjectStore>(*std::move(store));
  }
  void run(Task<void> task) override { loop_.run(std::move(task)); }

 private:
  LocalFolder folder_;
  SystemRng rng_;
  usbd::testing::TestLoop loop_;
};

/// A store that fails now and then before or after its effect, behind one that tries again:
/// together they behave like one that does not fail, except for conditional puts, which are not
/// retried.
class Behind final : public StoreUnderTest {
 public:
  Task<Result<std::unique_ptr<ObjectStore>>> open() override {
    auto faults = std::make_unique<FaultStore>(
        std::make_unique<MemoryStore>(container_),
        FaultStore::Options{.seed = 5, .chances = {.delay = 50}, .delay_max = Nanos(1'000'000)});
    auto counting = std::make_unique<CountingStore>(std::move(faults));
    co_return std::unique_ptr<ObjectStore>(
        std::make_unique<RetryingStore>(std::move(counting), RetryOptions{}, rng_));
  }
  void run(Task<void> task) override {
    loop_.spawn(std::move(task));
    EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
  }

 private:
  std::shared_ptr<MemoryContainer> container_ = std::make_shared<MemoryContainer>();
  SeededRng rng_{3};
  SimLoop loop_{SimLoop::Options{.seed = 12}};
};

template <typename Subject>
StoreKind kind(const char* name) {
  return {.name = name, .make = []() -> Result<std::unique_ptr<StoreUnderTest>> {
            return std::unique_ptr<StoreUnderTest>(std::make_unique<Subject>());
          }};
}

std::string kind_name(const ::testing::TestParamInfo<StoreKind>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Kinds, StoreConformance,
                         Values(kind<InMemory>("Memory"), kind<InSimulation>("MemorySimulated"),
                                kind<InDirectory>("Local"), kind<Behind>("BehindOthers")),
                         kind_name);

}  // namespace
}  // namespace usbd::objects::testing

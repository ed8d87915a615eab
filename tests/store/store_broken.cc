// SPDX-License-Identifier: Apache-2.0
//
// Stores that are wrong in one way each, put through the suite: store_proof_test runs this program
// and wants it to fail for each of them.

#include "async/sim_loop.h"
#include "objects/testing/quirky_store.h"
#include "store/store_conformance.h"

namespace usbd::objects::testing {
namespace {

class Broken final : public StoreUnderTest {
 public:
  explicit Broken(Quirks quirks) : quirks_(quirks) {}
  Task<Result<std::unique_ptr<ObjectStore>>> open() override {
    co_return std::unique_ptr<ObjectStore>(std::make_unique<QuirkyStore>(container_, quirks_));
  }
  void run(Task<void> task) override {
    loop_.spawn(std::move(task));
    EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
  }

 private:
  const Quirks quirks_;
  std::shared_ptr<MemoryContainer> container_ = std::make_shared<MemoryContainer>();
  SimLoop loop_{SimLoop::Options{.seed = 3}};
};

StoreKind kind(std::string name, Quirks quirks) {
  return {.name = std::move(name),
          .make = [quirks]() -> Result<std::unique_ptr<StoreUnderTest>> {
            return std::unique_ptr<StoreUnderTest>(std::make_unique<Broken>(quirks));
          },
          .large_bytes = 1U << 20};
}

std::string kind_name(const ::testing::TestParamInfo<StoreKind>& info) {
  return info.param.name;
}

// None is the one that passes; NoConditions says so by its abilities, and passes too.
INSTANTIATE_TEST_SUITE_P(
    Broken, StoreConformance,
    ::testing::Values(kind("None", {}),
                      kind("NoConditions", {.knows_no_conditions = true, .abilities = {}}),
                      kind("ClaimsConditions", {.knows_no_conditions = true}),
                      kind("IgnoresAbsent", {.ignores_absent = true}),
                      kind("IgnoresMatches", {.ignores_matches = true}),
                      kind("RefusesAndMakes", {.refuses_and_makes = true}),
                      kind("MatchesNothing", {.matches_nothing = true}),
                      kind("KeepsNoOverwrite", {.keeps_no_overwrite = true}),
                      kind("IgnoresRanges", {.ignores_ranges = true}),
                      kind("IgnoresTails", {.ignores_tails = true}),
                      kind("SameTagAlways", {.same_tag_always = true}),
                      kind("LosesAByte", {.loses_a_byte = true}),
                      kind("ListsNothing", {.lists_nothing = true}),
                      kind("ListsOnePage", {.lists_one_page = true}),
                      kind("ListsWithoutOrder", {.lists_without_order = true}),
                      kind("RemovesNothing", {.removes_nothing = true}),
                      kind("RemovalOfNothingFails", {.removal_of_nothing_fails = true}),
                      kind("IgnoresMost", {.ignores_most = true}),
                      kind("IgnoresLimits", {.ignores_limits = true})),
    kind_name);

}  // namespace
}  // namespace usbd::objects::testing

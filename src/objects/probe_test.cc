// SPDX-License-Identifier: Apache-2.0
//
// The probe against stores that are right, and against ones that are wrong in one way each.

#include "objects/probe.h"

#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "objects/testing/fault_store.h"
#include "objects/testing/quirky_store.h"

namespace usbd::objects {
namespace {

using testing::FaultStore;
using testing::Quirks;
using testing::QuirkyStore;

class ProbeTest : public ::testing::Test {
 protected:
  Result<ProbeReport> run(Quirks quirks) {
    QuirkyStore store(container_, quirks);
    return *loop_.run(probe(store, "vol/", rng_, CallLimits()));
  }
  ProbeReport seen(Quirks quirks) {
    const Result<ProbeReport> report = run(quirks);
    EXPECT_TRUE(report) << (report ? "" : report.error().message());
    return report ? *report : ProbeReport();
  }
  /// Whether some finding is bad and contains `text`.
  static bool complains(const ProbeReport& report, const std::string& text) {
    for (const ProbeReport::Finding& finding : report.findings) {
      const std::string sentence = finding.tried + " " + finding.seen;
      if (!finding.works && sentence.find(text) != std::string::npos) return true;
    }
    return false;
  }

  SimLoop loop_{SimLoop::Options{}};
  SeededRng rng_{1};
  std::shared_ptr<MemoryContainer> container_ = std::make_shared<MemoryContainer>();
};

TEST_F(ProbeTest, FindsNothingWrongWithARightStoreAndLeavesNothing) {
  const ProbeReport report = seen({});
  EXPECT_TRUE(report.usable());
  EXPECT_TRUE(report.put_if_absent && report.put_if_matches);
  EXPECT_TRUE(report.lists && report.removes);
  EXPECT_EQ(report.text().find("no: "), std::string::npos) << report.text();
  EXPECT_TRUE(container_->objects.empty());
}

TEST_F(ProbeTest, TakesAnIgnoredConditionForNone) {
  ProbeReport report = seen({.ignores_absent = true});
  EXPECT_FALSE(report.put_if_absent);
  EXPECT_TRUE(report.put_if_matches && report.usable());
  EXPECT_TRUE(complains(report, "the condition is ignored")) << report.text();
  report = seen({.ignores_matches = true});
  EXPECT_FALSE(report.put_if_matches);
  EXPECT_TRUE(report.put_if_absent && report.usable());
  EXPECT_TRUE(complains(report, "a put whose tag is stale")) << report.text();
  EXPECT_TRUE(container_->objects.empty());
}

TEST_F(ProbeTest, SeesARefusalThatChangesTheObject) {
  const ProbeReport report = seen({.refuses_and_makes = true});
  EXPECT_FALSE(report.put_if_absent);
  EXPECT_TRUE(complains(report, "changed the object all the same")) << report.text();
}

TEST_F(ProbeTest, SeesAStoreThatTakesNoTag) {
  const ProbeReport report = seen({.matches_nothing = true});
  EXPECT_FALSE(report.put_if_matches);
  EXPECT_TRUE(complains(report, "a put whose tag is the object's was refused")) << report.text();
}

TEST_F(ProbeTest, SeesAStoreWithoutConditions) {
  ProbeReport report = seen({.knows_no_conditions = true});
  EXPECT_FALSE(report.put_if_absent || report.put_if_matches);
  EXPECT_TRUE(report.usable());
  EXPECT_TRUE(complains(report, "cannot be asked for")) << report.text();
  report = seen({.abilities = {}});
  EXPECT_FALSE(report.put_if_absent || report.put_if_matches);
  EXPECT_TRUE(complains(report, "does not exist for this kind of store")) << report.text();
}

TEST_F(ProbeTest, SeesWhatMakesAStoreUnusable) {
  ProbeReport report = seen({.keeps_no_overwrite = true});
  EXPECT_FALSE(report.sees_own_puts || report.usable());
  report = seen({.ignores_ranges = true});
  EXPECT_FALSE(report.gets_ranges || report.usable());
  EXPECT_TRUE(report.gets_tails);
  report = seen({.ignores_tails = true});
  EXPECT_FALSE(report.gets_tails || report.usable());
  EXPECT_TRUE(report.gets_ranges);
  report = seen({.same_tag_always = true});
  EXPECT_FALSE(report.tags_change || report.usable());
  EXPECT_TRUE(container_->objects.empty());
}

TEST_F(ProbeTest, SeesListingsAndRemovalsThatDoNothing) {
  ProbeReport report = seen({.lists_nothing = true});
  EXPECT_FALSE(report.lists);
  EXPECT_TRUE(report.usable());
  report = seen({.removes_nothing = true});
  EXPECT_FALSE(report.removes);
  EXPECT_TRUE(complains(report, "did not say that there is no such object")) << report.text();
}

/// Every call of every kind fails once, in its turn: the probe says so or finds the same, and
/// leaves nothing behind.
TEST_F(ProbeTest, GivesUpWithTheErrorThatKeptItFromFindingOut) {
  for (const StoreCall call :
       {StoreCall::kPut, StoreCall::kGet, StoreCall::kHead, StoreCall::kList, StoreCall::kRemove}) {
    bool clean = false;
    for (uint64_t after = 0; after < 30 && !clean; ++after) {
      FaultStore store(std::make_unique<QuirkyStore>(container_, Quirks{}), {});
      store.inject({.call = call, .after = after, .error = Errc::kAccess});
      const Result<ProbeReport> report = *loop_.run(probe(store, "", rng_, CallLimits()));
      clean = store.faults() == 0;
      if (!report) {
        EXPECT_TRUE(report.error().is(Errc::kAccess));
      }
      if (call != StoreCall::kRemove) {
        EXPECT_EQ(report.has_value(), clean);
      }
      if (call != StoreCall::kRemove) {
        EXPECT_TRUE(container_->objects.empty());
      }
    }
    EXPECT_TRUE(clean);
  }
}

TEST_F(ProbeTest, ReportsARemovalThatIsRefused) {
  FaultStore store(std::make_unique<MemoryStore>(container_), {});
  store.inject({.call = StoreCall::kRemove, .count = 3, .error = Errc::kAccess});
  const Result<ProbeReport> report = *loop_.run(probe(store, "", rng_, CallLimits()));
  ASSERT_TRUE(report);
  EXPECT_FALSE(report->removes);
  EXPECT_TRUE(complains(*report, "a removal was refused")) << report->text();
}

}  // namespace
}  // namespace usbd::objects

// SPDX-License-Identifier: Apache-2.0
//
// The proof that the suite finds faults: store_broken must fail for every store that is wrong, and
// pass for those that are not.

#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace usbd::objects::testing {
namespace {

/// Whether the suite passes for a kind of store_broken.
bool passes(const std::string& kind) {
  const std::string program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "store_broken";
  // The variable keeps a report of the outer run from being overwritten.
  const int status = std::system(
      fmt::format("GTEST_OUTPUT= '{}' '--gtest_filter=*/{}' > /dev/null 2>&1", program, kind)
          .c_str());
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) <= 1) << kind << ": status " << status;
  return status == 0;
}

TEST(StoreSuite, PassesWhatIsRight) {
  EXPECT_TRUE(passes("None"));
  EXPECT_TRUE(passes("NoConditions"));
}

TEST(StoreSuite, FindsWhatIsWrong) {
  for (const char* kind :
       {"ClaimsConditions", "IgnoresAbsent", "IgnoresMatches", "RefusesAndMakes", "MatchesNothing",
        "KeepsNoOverwrite", "IgnoresRanges", "IgnoresTails", "SameTagAlways", "LosesAByte",
        "ListsNothing", "ListsOnePage", "ListsWithoutOrder", "RemovesNothing",
        "RemovalOfNothingFails", "IgnoresMost", "IgnoresLimits"}) {
    EXPECT_FALSE(passes(kind)) << kind << " was not found";
  }
}

}  // namespace
}  // namespace usbd::objects::testing

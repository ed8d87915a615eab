// SPDX-License-Identifier: Apache-2.0
//
// The forms flags may take, which source of a value wins, and what messages say; over a small table
// of its own. The daemon's table is in flag_table_test.cc.

#include "daemon/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace usbd::daemon {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class Flags : public testing::Test {
 protected:
  static std::vector<FlagSpec> table() {
    return {
        {.name = "on", .kind = FlagKind::kSwitch},
        {.name = "kept", .kind = FlagKind::kSwitch, .fallback = "true"},
        {.name = "type",
         .kind = FlagKind::kChoice,
         .fallback = "mem",
         .choices = {{"mem", {"memory"}}, {"file", {"disk"}}}},
        {.name = "dir", .fallback = "./"},
        {.name = "size", .kind = FlagKind::kSize, .fallback = "1GiB", .least = 512},
        {.name = "wait", .kind = FlagKind::kDuration, .fallback = "30s"},
        {.name = "count", .kind = FlagKind::kCount, .fallback = "4", .least = 1, .greatest = 10},
        {.name = "ratio", .kind = FlagKind::kRatio, .fallback = "1.40", .least = 1, .greatest = 9},
        {.name = "each", .fallback = "auto", .repeatable = true},
        {.name = "cfg", .check = refuse_bad, .secret = true},
        {.name = "device", .value_name = "DEVICE", .positional = true},
    };
  }
  static Result<void> refuse_bad(std::string_view value) {
    if (value == "bad") return Error(Errc::kInvalid, "only good is allowed");
    return {};
  }

  std::string refused(std::vector<std::string> words) {
    const Result<void> parsed = parse_arguments(words, values);
    EXPECT_FALSE(parsed) << testing::PrintToString(words);
    return parsed ? "" : parsed.error().context();
  }
  void taken(std::vector<std::string> words) {
    const Result<void> parsed = parse_arguments(words, values);
    EXPECT_TRUE(parsed) << parsed.error().message();
  }

  std::vector<FlagSpec> specs = table();
  FlagValues values{specs};
};

TEST_F(Flags, HaveTheirDefaultsBeforeParsing) {
  EXPECT_FALSE(values.on("on"));
  EXPECT_TRUE(values.on("kept"));
  EXPECT_EQ(values.text("type"), "mem");
  EXPECT_EQ(values.size("size"), 1U << 30);
  EXPECT_EQ(values.duration("wait"), seconds(30));
  EXPECT_EQ(values.count("count"), 4U);
  EXPECT_EQ(values.text("cfg"), "");
  EXPECT_FALSE(values.given("size"));
}

TEST_F(Flags, TakeOneDashOrTwoWithEqualsOrNextWord) {
  taken({"-size=2GiB", "--wait", "1m30s", "--count=10", "-type", "disk"});
  EXPECT_EQ(values.size("size"), 2ULL << 30);
  EXPECT_EQ(values.duration("wait"), seconds(90));
  EXPECT_EQ(values.count("count"), 10U);
  EXPECT_EQ(values.text("type"), "file");
  EXPECT_TRUE(values.given("size"));
}

TEST_F(Flags, SwitchesNeverTakeTheNextWord) {
  taken({"-on", "/dev/nbd5"});
  EXPECT_TRUE(values.on("on"));
  EXPECT_EQ(values.text("device"), "/dev/nbd5");
  taken({"-on=false", "-kept=FALSE"});
  EXPECT_FALSE(values.on("on"));
  EXPECT_FALSE(values.on("kept"));
  EXPECT_THAT(refused({"-on=yes"}), HasSubstr("allowed are true and false"));
}

TEST_F(Flags, MixWithTheArgumentAndEndAtTwoDashes) {
  taken({"dev", "-on"});
  EXPECT_TRUE(values.on("on"));
  FlagValues others(specs);
  const std::vector<std::string> words = {"--", "-on"};
  EXPECT_TRUE(parse_arguments(words, others));
  EXPECT_EQ(others.text("device"), "-on");
}

TEST_F(Flags, ValuesMayBeginWithADashOrHoldEquals) {
  taken({"-dir", "-x", "-cfg=a=b"});
  EXPECT_EQ(values.text("dir"), "-x");
  EXPECT_EQ(values.text("cfg"), "a=b");
  taken({"-dir="});
  EXPECT_EQ(values.text("dir"), "");
}

TEST_F(Flags, TheLastOfSeveralWinsUnlessRepeatable) {
  taken({"-count=1", "-count=2", "-each=a", "-each=b"});
  EXPECT_EQ(values.count("count"), 2U);
  EXPECT_THAT(values.list("each"), ElementsAre("a", "b"));
}

TEST_F(Flags, AreNeverAbbreviated) {
  EXPECT_THAT(refused({"-siz=1GiB"}), HasSubstr("unknown flag \"-siz\"; is -size meant?"));
  EXPECT_THAT(refused({"-s"}), HasSubstr("unknown flag"));
  EXPECT_THAT(refused({"---on"}), HasSubstr("unknown flag"));
  EXPECT_THAT(refused({"-device=x"}), HasSubstr("unknown flag"));
}

TEST_F(Flags, MessagesNameFlagValueAndWhatIsAllowed) {
  EXPECT_EQ(refused({"-type=tape"}),
            "-type: \"tape\" is not allowed: allowed are mem (or memory), file (or disk)");
  EXPECT_EQ(refused({"-count=11"}), "-count: \"11\" is not allowed: allowed are 1 to 10");
  EXPECT_THAT(refused({"-count=1.5"}), HasSubstr("not a whole number"));
  EXPECT_THAT(refused({"-count=99999999999999999999"}), HasSubstr("allowed are 1 to 10"));
  EXPECT_EQ(refused({"-size=511"}), "-size: \"511\" is not allowed: the least is 512 B");
  EXPECT_THAT(refused({"-size=-1GiB"}), HasSubstr("negative"));
  EXPECT_THAT(refused({"-wait=10"}), HasSubstr("10s, 1m30s"));
  EXPECT_THAT(refused({"-ratio=0.5"}), HasSubstr("1 to 9"));
  EXPECT_THAT(refused({"-dir"}), HasSubstr("a value is missing"));
  EXPECT_THAT(refused({"a", "b"}), HasSubstr("unexpected argument \"b\""));
}

TEST_F(Flags, MessagesNeverShowASecret) {
  EXPECT_EQ(refused({"-cfg=bad"}), "-cfg: the value is not allowed: only good is allowed");
}

TEST_F(Flags, ComeFromTheEnvironment) {
  const std::vector<std::string> environment = {"USBD_SIZE=3GiB",   "USBD_ON=true", "PATH=/bin",
                                                "USBD_EACH=a;b c;", "USBD_DIR=",    "USBD_SZIE=1",
                                                "USBD_BUILD_DIR=1"};
  const Result<std::vector<std::string>> warnings = parse_environment(environment, values);
  ASSERT_TRUE(warnings);
  EXPECT_THAT(*warnings,
              ElementsAre("the environment variable USBD_SZIE is no setting; is USBD_SIZE meant?"));
  EXPECT_EQ(values.size("size"), 3ULL << 30);
  EXPECT_TRUE(values.on("on"));
  EXPECT_THAT(values.list("each"), ElementsAre("a", "b c"));
  EXPECT_EQ(values.text("dir"), "./");
}

TEST_F(Flags, MessagesNameTheVariable) {
  const std::vector<std::string> environment = {"USBD_COUNT=0"};
  const Result<std::vector<std::string>> parsed = parse_environment(environment, values);
  ASSERT_FALSE(parsed);
  EXPECT_THAT(parsed.error().context(), HasSubstr("environment variable USBD_COUNT: \"0\""));
}

TEST_F(Flags, CommandLineWinsOverEnvironmentWinsOverFileInAnyOrder) {
  const FlagSpec& count = *values.find("count");
  const FlagSpec& each = *values.find("each");
  for (const Origin origin : {Origin::kEnvironment, Origin::kCommandLine, Origin::kFile}) {
    const std::string value = std::to_string(static_cast<int>(origin));
    ASSERT_TRUE(values.set(count, value, {origin, "here"}));
    ASSERT_TRUE(values.set(each, value, {origin, "here"}));
  }
  EXPECT_EQ(values.count("count"), static_cast<uint64_t>(Origin::kCommandLine));
  EXPECT_THAT(values.list("each"), ElementsAre("3"));
  EXPECT_EQ(values.origin("count"), Origin::kCommandLine);
}

TEST_F(Flags, ChecksAValueThatLosesAllTheSame) {
  taken({"-count=3"});
  const std::vector<std::string> environment = {"USBD_COUNT=x"};
  EXPECT_FALSE(parse_environment(environment, values));
}

}  // namespace
}  // namespace usbd::daemon

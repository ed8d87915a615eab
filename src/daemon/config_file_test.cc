// SPDX-License-Identifier: Apache-2.0
//
// What a configuration file may say, and that what it may not is refused with its place.

#include "daemon/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/flag_table.h"

namespace usbd::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class ConfigFile : public testing::Test {
 protected:
  void taken(std::string_view text) {
    const Result<void> read = parse_config(text, "x.toml", values);
    EXPECT_TRUE(read) << read.error().message();
  }
  std::string refused(std::string_view text) {
    const Result<void> read = parse_config(text, "x.toml", values);
    EXPECT_FALSE(read) << text;
    return read ? "" : read.error().context();
  }

  const std::vector<FlagSpec> specs = daemon_flags();
  FlagValues values{specs};
};

TEST_F(ConfigFile, TakesStringsNumbersBooleansAndArrays) {
  taken(R"(
store-dir = "/srv"
store-size = 1073741824
connections = 2
read-only = true
objstore-gctarget = 1.25
export = ["unix:/a", "tcp:127.0.0.1:0"]
layer = "stats"
device = "/dev/nbd3"
)");
  EXPECT_EQ(values.text("store-dir"), "/srv");
  EXPECT_EQ(values.size("store-size"), 1ULL << 30);
  EXPECT_EQ(values.count("connections"), 2U);
  EXPECT_TRUE(values.on("read-only"));
  EXPECT_EQ(values.text("objstore-gctarget"), "1.25");
  EXPECT_THAT(values.list("export"), ElementsAre("unix:/a", "tcp:127.0.0.1:0"));
  EXPECT_THAT(values.list("layer"), ElementsAre("stats"));
  EXPECT_EQ(values.text("device"), "/dev/nbd3");
  EXPECT_EQ(values.origin("device"), Origin::kFile);
}

TEST_F(ConfigFile, VolumeSettingsWinOverCommonOnes) {
  taken(R"(
store-dir = "/srv"
export = ["unix:/a"]
[[volume]]
store-dir = "/other"
export = ["unix:/b"]
store-name = "v"
)");
  EXPECT_EQ(values.text("store-dir"), "/other");
  EXPECT_EQ(values.text("store-name"), "v");
  EXPECT_THAT(values.list("export"), ElementsAre("unix:/b"));
}

TEST_F(ConfigFile, TakesATableForTheStore) {
  taken("[objstore-cfg]\npath = \"/a \\\"b\\\"\"\n");
  EXPECT_EQ(values.text("objstore-cfg"), R"({"path":"/a \"b\""})");
  EXPECT_THAT(refused("[objstore-cfg]\nport = 22\n"), HasSubstr("\"port\""));
}

TEST_F(ConfigFile, SeveralVolumesAreRefusedClearly) {
  EXPECT_THAT(refused("[[volume]]\nstore-name=\"a\"\n[[volume]]\nstore-name=\"b\"\n"),
              HasSubstr("x.toml line 3: 2 volumes are described, and this build serves one"));
  EXPECT_THAT(refused("volume = \"a\"\n"), HasSubstr("[[volume]]"));
}

TEST_F(ConfigFile, MessagesSayWhere) {
  EXPECT_THAT(refused("\nstore-dri = \"/srv\"\n"),
              HasSubstr("x.toml line 2: \"store-dri\" is not a setting"));
  EXPECT_THAT(refused("\n\nblock-size = 1024\n"), HasSubstr("x.toml line 3: block-size: \"1024\""));
  EXPECT_THAT(refused("store-dir = [\"/srv\"]\n"), HasSubstr("a string, a number or a boolean"));
  EXPECT_THAT(refused("store-dir =\n"), HasSubstr("x.toml line 1 is not TOML"));
  EXPECT_THAT(refused("help = true\n"), HasSubstr("not a setting"));
}

TEST_F(ConfigFile, ChecksACommonValueThatTheVolumeReplaces) {
  EXPECT_THAT(refused("block-size = 7\n[[volume]]\nblock-size = 512\n"), HasSubstr("line 1"));
}

TEST_F(ConfigFile, NeverShowsASecret) {
  EXPECT_THAT(refused("objstore-aeskey = \"topsecret\"\n"), Not(HasSubstr("topsecret")));
}

TEST_F(ConfigFile, ThatIsMissingIsNamed) {
  const Result<void> read = read_config_file("/nonexistent/x.toml", values);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message(), HasSubstr("\"/nonexistent/x.toml\": No such file"));
  EXPECT_FALSE(read_config_file("/", values));
}

}  // namespace
}  // namespace usbd::daemon

// SPDX-License-Identifier: Apache-2.0
//
// The flags and texts of the program. What its commands do, tests/integration/usbdctl_volume.py
// shows on real volumes.

#include "ctl/program.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ctl/help.h"
#include "ctl/inspector.h"
#include "daemon/settings.h"

namespace usbd::ctl {
namespace {

TEST(Program, NamesAVolumeByTheFlagsOfTheDaemon) {
  const std::vector<daemon::FlagSpec> specs = volume_flags();
  daemon::FlagValues values(specs);
  const std::vector<std::string> words = {"--store-dir=/",
                                          "-store-name",
                                          "disk",
                                          "--json",
                                          "-export=unix:/tmp/s",
                                          "--objstore-kind=local",
                                          "-objstore-cfg={\"path\":\"/srv\"}"};
  ASSERT_TRUE(daemon::parse_arguments(words, values));
  const Result<daemon::Settings> settings = daemon::to_settings(values);
  ASSERT_TRUE(settings) << settings.error().message();
  EXPECT_EQ(settings->volume.type, "objstore");
  EXPECT_EQ(settings->volume.name, "disk");
  EXPECT_EQ(settings->volume.objstore.kind, "local");
  EXPECT_TRUE(values.on("json"));
}

TEST(Program, SaysWhichTypesItCanLookAt) {
  EXPECT_TRUE(check_inspectable("objstore"));
  const Result<void> refused = check_inspectable("mem");
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().is(Errc::kNotSupported));
  EXPECT_NE(refused.error().context().find("objstore"), std::string::npos);
}

TEST(Program, ExplainsEachCommandWithAnExampleAndItsFlags) {
  const std::vector<daemon::FlagSpec> specs = volume_flags();
  ASSERT_EQ(volume_commands().size(), 3U);
  for (const CommandHelp& command : volume_commands()) {
    const std::string text = command_help(command, specs);
    for (const char* const part : {"Example:", "--json", "--store-dir=DIR", "--objstore-cfg=JSON",
                                   "Exit status:", "usbdctl volume "}) {
      EXPECT_NE(text.find(part), std::string::npos) << command.name << ": " << part;
    }
    EXPECT_NE(volume_help().find(command.name), std::string::npos);
  }
  EXPECT_NE(program_help().find("show|check|list-objects"), std::string::npos);
}

}  // namespace
}  // namespace usbd::ctl

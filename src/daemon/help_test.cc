// SPDX-License-Identifier: Apache-2.0
//
// That -help teaches every flag and the examples, and stays readable in a terminal.

#include "daemon/help.h"

#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/flag_table.h"

namespace usbd::daemon {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Help, NamesEveryFlagWithItsDefault) {
  const std::vector<FlagSpec> specs = daemon_flags();
  const std::string text = help_text({.program = "usbdsrvd"}, specs);
  for (const FlagSpec& spec : specs) {
    const std::string head = spec.positional ? "\n  DEVICE\n" : "\n  -" + spec.name;
    EXPECT_THAT(text, HasSubstr(head));
  }
  EXPECT_THAT(text, HasSubstr("-dev-type=mem|file|dedup|objstore"));
  EXPECT_THAT(text, HasSubstr("(default: 1GiB)"));
  EXPECT_THAT(text, HasSubstr("Only with -dev-type=objstore"));
}

TEST(Help, ShowsTheExamplesAndHowToConnect) {
  const std::string text = help_text({.program = "./usbdsrvd"}, daemon_flags());
  EXPECT_THAT(text, HasSubstr("./usbdsrvd -dev-type=file -store-dir=/tmp -store-name=testfilevol "
                              "-store-size=8GiB /dev/nbd5"));
  EXPECT_THAT(text, HasSubstr("./usbdsrvd -dev-type=dedup -store-dir=/tmp "
                              "-store-name=testdedupvol -store-size=12GiB"));
  EXPECT_THAT(text, HasSubstr("./usbdsrvd -dev-type=objstore -store-dir=/tmp "
                              "-store-name=testobjvol -store-size=20GiB"));
  EXPECT_THAT(text, HasSubstr("mkfs.ext4 /dev/nbd0"));
  EXPECT_THAT(text, HasSubstr("nbd+unix:///test-lun?socket="));
}

TEST(Help, OfAnAuthorsProgramHasNoDeviceTypes) {
  const std::string text =
      help_text({.program = "mydev", .is_daemon = false}, author_flags("my/device"));
  EXPECT_THAT(text, Not(HasSubstr("dev-type")));
  EXPECT_THAT(text, HasSubstr("Usage: mydev"));
}

TEST(Help, FitsATerminal) {
  std::istringstream lines(help_text({.program = "usbdsrvd"}, daemon_flags()));
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 112U) << line;
  }
}

TEST(Version, IsOneLine) {
  EXPECT_EQ(version_text("usbdsrvd"), std::string("usbdsrvd (usbd) ") + USBD_VERSION + "\n");
}

}  // namespace
}  // namespace usbd::daemon

// SPDX-License-Identifier: Apache-2.0
//
// Users of a device, found in trees that look like /proc and /sys.

#include "frontends/nbd/kernel/holders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontends/nbd/kernel/testing.h"

namespace usbd::nbd {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class HoldersTest : public ::testing::Test {
 protected:
  HoldersTest() { tree.write("block/nbd1/dev", "43:32\n"); }

  void write_mounts(const std::string& lines) { tree.write("self/mountinfo", lines); }

  testing::FakeTree tree;
  HolderOptions options{
      .sysfs = Sysfs(tree.path()), .proc_root = tree.path(), .device_directory = "/dev"};
};

TEST_F(HoldersTest, AreNoneOnAnIdleDevice) {
  write_mounts("21 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
  EXPECT_THAT(holders(1, options), IsEmpty());
}

TEST_F(HoldersTest, AreFoundByTheNumberOfAMount) {
  write_mounts(
      "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
      "30 21 43:32 / /mnt/my\\040data rw,relatime shared:1 master:2 - ext4 /dev/nbd1 rw\n");
  EXPECT_THAT(mount_points(1, options), ElementsAre("/mnt/my data"));
  EXPECT_THAT(holders(1, options), ElementsAre("mounted on /mnt/my data"));
}

TEST_F(HoldersTest, AreFoundByTheSourceOfAMountWithANumberOfItsOwn) {
  write_mounts("30 21 0:44 / /mnt rw - btrfs /dev/nbd1 rw,space_cache=v2\n");
  EXPECT_THAT(mount_points(1, options), ElementsAre("/mnt"));
}

TEST_F(HoldersTest, AreNotThoseOfADeviceWhoseNameBeginsAlike) {
  write_mounts(
      "30 21 43:320 / /a rw - ext4 /dev/nbd10 rw\n"
      "31 21 43:321 / /b rw - ext4 /dev/nbd10p1 rw\n");
  tree.make_link("300/fd/3", "/dev/nbd10");
  EXPECT_THAT(holders(1, options), IsEmpty());
}

TEST_F(HoldersTest, IncludeMountsOfPartitions) {
  tree.write("block/nbd1/nbd1p2/dev", "43:34\n");
  write_mounts("30 21 43:34 / /mnt rw - xfs /dev/nbd1p2 rw\n");
  EXPECT_THAT(holders(1, options), ElementsAre("mounted on /mnt"));
}

TEST_F(HoldersTest, SurviveLinesThatTheyCannotRead) {
  write_mounts("\n1 2\n3 4 43:32 / /half rw\n30 21 43:32 / /mnt rw - ext4 /dev/nbd1 rw\n");
  EXPECT_THAT(mount_points(1, options), ElementsAre("/mnt"));
}

TEST_F(HoldersTest, IncludeSwapStackedDevicesAndProcesses) {
  tree.write("swaps", "Filename Type Size Used Priority\n/dev/nbd1 partition 1024 0 -2\n");
  tree.make_directory("block/nbd1/holders/dm-0");
  tree.make_link("300/fd/0", "/dev/null");
  tree.make_link("300/fd/3", "/dev/nbd1");
  tree.make_link("300/fd/4", "/dev/nbd1");
  tree.write("300/comm", "dd\n");
  EXPECT_THAT(holders(1, options),
              ElementsAre("used by dm-0", "used as swap", "open in process 300 (dd)"));
}

TEST_F(HoldersTest, AreNotThisProcessItself) {
  tree.make_link(std::to_string(::getpid()) + "/fd/3", "/dev/nbd1");
  EXPECT_THAT(holders(1, options), IsEmpty());
}

TEST_F(HoldersTest, SyncsTheNodeAndWhatIsMountedOnIt) {
  EXPECT_THAT(sync_commands(1, options), ElementsAre(ElementsAre("sync", "/dev/nbd1")));
  write_mounts(
      "30 21 43:32 / /mnt/a\\040b rw - ext4 /dev/nbd1 rw\n"
      "31 21 43:32 / /srv rw - ext4 /dev/nbd1 rw\n");
  EXPECT_THAT(sync_commands(1, options),
              ElementsAre(ElementsAre("sync", "/dev/nbd1"),
                          ElementsAre("sync", "--file-system", "--", "/mnt/a b", "/srv")));
}

}  // namespace
}  // namespace usbd::nbd

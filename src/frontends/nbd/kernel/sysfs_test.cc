// SPDX-License-Identifier: Apache-2.0
//
// Device names, and what is read from a tree that looks like sysfs.

#include "frontends/nbd/kernel/sysfs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontends/nbd/kernel/testing.h"

namespace usbd::nbd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SysfsTest : public ::testing::Test {
 protected:
  testing::FakeTree tree;
  Sysfs sysfs{tree.path()};
};

TEST(DevicePath, IsReadAsItsIndex) {
  for (const uint32_t index : {0U, 5U, 10U, 1048575U}) {
    const auto parsed = parse_device_path("/dev/nbd" + std::to_string(index));
    ASSERT_TRUE(parsed);
    EXPECT_EQ(*parsed, index);
  }
}

TEST(DevicePath, RefusesEverythingElse) {
  for (const char* path :
       {"", "/dev/nbd", "nbd0", "/dev/nbd0p1", "/dev/nbd00", "/dev/nbd01", "/dev/nbd-1",
        "/dev/nbd+1", "/dev/nbd 1", "/dev/nbd1 ", "/dev/nbd1048576", "/dev/nbd99999999999999999999",
        "/dev/sda", "/dev/ublkb0", "/dev/../dev/nbd0", "/dev/nbdx"}) {
    const auto parsed = parse_device_path(path);
    ASSERT_FALSE(parsed) << path;
    EXPECT_TRUE(parsed.error().is(Errc::kInvalid));
    EXPECT_THAT(parsed.error().message(), HasSubstr("/dev/nbdN"));
  }
}

TEST(DevicePath, IsQuotedInTheErrorWithoutItsControlCharacters) {
  EXPECT_THAT(parse_device_path("/dev/\x1b[2J").error().message(), HasSubstr("\\x1b"));
}

TEST_F(SysfsTest, HasNoDriverWithoutTheModulesDirectory) {
  EXPECT_FALSE(sysfs.has_driver());
  tree.make_directory("module/nbd");
  EXPECT_TRUE(sysfs.has_driver());
}

TEST_F(SysfsTest, ListsNbdDisksInNumericOrder) {
  for (const char* name : {"nbd10", "nbd2", "nbd0", "sda", "nbdx", "dm-0"}) {
    tree.make_directory(std::string("block/") + name);
  }
  EXPECT_THAT(sysfs.indices(), ElementsAre(0, 2, 10));
  EXPECT_TRUE(sysfs.exists(2));
  EXPECT_FALSE(sysfs.exists(3));
}

TEST_F(SysfsTest, ListsNothingWhereThereIsNoSysfs) {
  EXPECT_THAT(Sysfs("/nonexistent").indices(), IsEmpty());
}

TEST_F(SysfsTest, KnowsAConnectedDeviceByItsPid) {
  tree.make_directory("block/nbd0");
  tree.write("block/nbd1/pid", "4711\n");
  tree.write("block/nbd1/backend", "volume 7\n");
  EXPECT_EQ(sysfs.pid(0), std::nullopt);
  EXPECT_EQ(sysfs.backend(0), "");
  EXPECT_EQ(sysfs.pid(1), 4711);
  EXPECT_EQ(sysfs.backend(1), "volume 7");
}

TEST_F(SysfsTest, TakesAnUnreadablePidForAUser) {
  tree.write("block/nbd1/pid", "?\n");
  EXPECT_EQ(sysfs.pid(1), 0);
}

TEST_F(SysfsTest, GivesSizesInBytes) {
  tree.write("block/nbd0/size", "2097152\n");
  EXPECT_EQ(*sysfs.size(0), 1ULL << 30);
}

TEST_F(SysfsTest, RefusesSizesThatAreNone) {
  EXPECT_TRUE(sysfs.size(0).error().is(Errc::kNotFound));
  for (const char* text : {"x", "-1", "12k", "99999999999999999999", "36028797018963968"}) {
    tree.write("block/nbd0/size", text);
    EXPECT_TRUE(sysfs.size(0).error().is(Errc::kIo)) << text;
  }
}

TEST_F(SysfsTest, FindsPartitionsAndWhatIsStackedOnThem) {
  tree.write("block/nbd0/dev", "43:0\n");
  tree.write("block/nbd0/nbd0p1/dev", "43:1\n");
  tree.make_directory("block/nbd0/holders/dm-3");
  tree.make_directory("block/nbd0/nbd0p1/holders/md0");
  EXPECT_THAT(sysfs.device_numbers(0), ElementsAre("43:0", "43:1"));
  EXPECT_THAT(sysfs.stacked_devices(0), ElementsAre("dm-3", "md0"));
}

}  // namespace
}  // namespace usbd::nbd

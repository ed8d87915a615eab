// SPDX-License-Identifier: Apache-2.0
//
// What an attach refuses before it asks the kernel. The rest is for the vm tests.

#include "frontends/nbd/kernel/attach.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "frontends/nbd/kernel/testing.h"
#include "frontends/nbd/protocol.h"

namespace usbd::nbd {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

class NoSink final : public SocketSink {
 public:
  void adopt(UniqueFd, std::function<void()>) override { ADD_FAILURE() << "given a socket"; }
};

KernelAttachOptions example() {
  KernelAttachOptions options;
  options.size = 1 << 20;
  options.transmission_flags = kTransmitFlush | kTransmitMultiConn;
  return options;
}

void expect_refused(const KernelAttachOptions& options, const char* because) {
  const auto checked = validated(options);
  ASSERT_FALSE(checked);
  EXPECT_TRUE(checked.error().is(Errc::kInvalid));
  EXPECT_THAT(checked.error().message(), HasSubstr(because));
}

TEST(KernelAttachOptions, GetOneConnectionPerCpuAndAtMostFour) {
  const auto checked = validated(example());
  ASSERT_TRUE(checked);
  EXPECT_GE(checked->connections, 1U);
  EXPECT_LE(checked->connections, limits::kKernelConnectionsDefaultMax);
}

TEST(KernelAttachOptions, GetOneConnectionWhereTheDeviceAllowsNoMore) {
  KernelAttachOptions options = example();
  options.transmission_flags = kTransmitFlush;
  EXPECT_EQ(validated(options)->connections, 1U);
  options.connections = 2;
  expect_refused(options, "allows only one");
}

TEST(KernelAttachOptions, GetOneConnectionWithIoctl) {
  KernelAttachOptions options = example();
  options.driver = DriverChoice::kIoctl;
  options.connections = 4;
  EXPECT_EQ(validated(options)->connections, 1U);
}

TEST(KernelAttachOptions, RefuseBlockSizesThatNoKernelTakes) {
  for (const uint32_t size : {0U, 1U, 256U, 513U, 1000U, 8192U}) {
    KernelAttachOptions options = example();
    options.block_size = size;
    expect_refused(options, "block size");
  }
}

TEST(KernelAttachOptions, RefuseSizesThatAreNoBlocks) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{4097}, uint64_t{1} << 63, UINT64_MAX}) {
    KernelAttachOptions options = example();
    options.size = size;
    expect_refused(options, "size of");
  }
}

TEST(KernelAttachOptions, RefuseTimeoutsOutOfRange) {
  KernelAttachOptions options = example();
  options.timeout = -1ms;
  expect_refused(options, "request timeout");
  options = example();
  options.dead_timeout = std::chrono::hours(24 * 366);
  expect_refused(options, "timeout without connections");
}

TEST(KernelAttachOptions, RefuseTooManyConnections) {
  KernelAttachOptions options = example();
  options.connections = limits::kKernelConnectionsMax + 1;
  expect_refused(options, "at most 64");
}

TEST(KernelAttachOptions, RefuseBackendsThatAreNoLine) {
  KernelAttachOptions options = example();
  options.backend = "a\nb";
  expect_refused(options, "backend");
  options.backend = std::string(1025, 'x');
  expect_refused(options, "backend");
}

TEST(KernelAttachOptions, RefuseDevicesOfAnotherKind) {
  KernelAttachOptions options = example();
  options.device = "/dev/sda";
  expect_refused(options, "/dev/nbdN");
}

TEST(KernelAttach, RefusesANamedDeviceInUseWithoutTouchingIt) {
  const testing::FakeTree tree;
  tree.make_directory("module/nbd");
  tree.write("block/nbd3/pid", "4711\n");
  tree.write("4711/comm", "nbd-client\n");
  KernelAttachOptions options = example();
  options.device = "/dev/nbd3";
  options.sysfs_root = tree.path();
  options.proc_root = tree.path();
  options.device_directory = tree.path();
  NoSink sink;
  const auto attach = KernelAttach::attach(options, sink);
  ASSERT_FALSE(attach);
  EXPECT_TRUE(attach.error().is(Errc::kBusy));
  EXPECT_THAT(attach.error().message(), HasSubstr("4711 (nbd-client)"));
}

TEST(KernelAttach, SaysWhenEveryDeviceIsInUse) {
  const testing::FakeTree tree;
  tree.make_directory("module/nbd");
  tree.write("block/nbd0/pid", "1\n");
  KernelAttachOptions options = example();
  options.driver = DriverChoice::kIoctl;
  options.sysfs_root = tree.path();
  options.device_directory = tree.path();
  NoSink sink;
  const auto attach = KernelAttach::attach(options, sink);
  ASSERT_FALSE(attach);
  EXPECT_TRUE(attach.error().is(Errc::kBusy));
  EXPECT_THAT(attach.error().message(), HasSubstr("nbds_max"));
}

TEST(KernelAttach, IsUnavailableWithoutADriverOrAPrivilegeAndForNoOtherReason) {
  for (const Errc code : {Errc::kNotFound, Errc::kNotSupported, Errc::kPerm, Errc::kAccess}) {
    EXPECT_TRUE(is_unavailable(Error(code))) << Error(code).message();
  }
  for (const Errc code : {Errc::kBusy, Errc::kInvalid, Errc::kIo, Errc::kNoMemory}) {
    EXPECT_FALSE(is_unavailable(Error(code))) << Error(code).message();
  }
}

TEST(KernelAttach, RefusesANodeThatIsNoBlockDevice) {
  const testing::FakeTree tree;
  tree.make_directory("module/nbd");
  tree.make_directory("block/nbd0");
  tree.write("nbd0", "a file\n");
  KernelAttachOptions options = example();
  options.driver = DriverChoice::kIoctl;
  options.sysfs_root = tree.path();
  options.device_directory = tree.path();
  NoSink sink;
  const auto attach = KernelAttach::attach(options, sink);
  ASSERT_FALSE(attach);
  EXPECT_THAT(attach.error().message(), HasSubstr("not a block device"));
}

}  // namespace
}  // namespace usbd::nbd

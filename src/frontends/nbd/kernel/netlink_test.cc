// SPDX-License-Identifier: Apache-2.0
//
// The messages of the family "nbd" as the kernel would read them, and answers as it would send
// them.

#include "frontends/nbd/kernel/netlink.h"

#include <linux/nbd-netlink.h>
#include <linux/nbd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>

#include "frontends/nbd/kernel/uapi.h"

namespace usbd::nbd::netlink {
namespace {

using ::testing::ElementsAre;
using namespace std::chrono_literals;

constexpr int kFamily = 0x1d;

// What the system's own header knows must be what is carried here.
static_assert(+uapi::kCmdConnect == +NBD_CMD_CONNECT);
static_assert(+uapi::kCmdStatus == +NBD_CMD_STATUS);
static_assert(+uapi::kAttrMax == +NBD_ATTR_MAX);
static_assert(+uapi::kAttrBackendIdentifier == +NBD_ATTR_BACKEND_IDENTIFIER);
static_assert(+uapi::kAttrDeadConnTimeout == +NBD_ATTR_DEAD_CONN_TIMEOUT);
static_assert(+uapi::kDeviceConnected == +NBD_DEVICE_CONNECTED);
static_assert(+uapi::kSetFlags == +NBD_SET_FLAGS);
static_assert(+uapi::kSetSizeBlocks == +NBD_SET_SIZE_BLOCKS);
static_assert(kTransmitMultiConn == NBD_FLAG_CAN_MULTI_CONN);

/// A message taken apart.
struct Parsed {
  explicit Parsed(const Message& message) {
    nlmsghdr* header = nlmsg_hdr(message.get());
    family = header->nlmsg_type;
    command = genlmsg_hdr(header)->cmd;
    genlmsg_parse(header, 0, attributes, uapi::kAttrMax, nullptr);
  }
  [[nodiscard]] bool has(int attribute) const { return attributes[attribute] != nullptr; }
  [[nodiscard]] uint64_t u64(int attribute) const { return nla_get_u64(attributes[attribute]); }
  [[nodiscard]] uint32_t u32(int attribute) const { return nla_get_u32(attributes[attribute]); }
  [[nodiscard]] std::vector<uint32_t> sockets() const {
    std::vector<uint32_t> found;
    nlattr* item = nullptr;
    int rest = 0;
    nla_for_each_nested(item, attributes[uapi::kAttrSockets], rest) {
      nlattr* socket[2] = {};
      EXPECT_EQ(nla_type(item), uapi::kSockItem);
      EXPECT_EQ(nla_parse_nested(socket, 1, item, nullptr), 0);
      found.push_back(nla_get_u32(socket[uapi::kSockFd]));
    }
    return found;
  }

  int family = 0;
  int command = 0;
  nlattr* attributes[uapi::kAttrMax + 1] = {};
};

ConnectRequest example() {
  return {.index = {},
          .size = 10ULL << 40,
          .block_size = 4096,
          .flags = kTransmitHasFlags | kTransmitFlush | kTransmitMultiConn,
          .timeout = 60s,
          .dead_timeout = 600s,
          .backend = "volume-1"};
}

TEST(NetlinkConnect, SaysEverythingOfTheDevice) {
  const Message message = build_connect(kFamily, example(), {7, 9, 11});
  const Parsed parsed(message);
  EXPECT_EQ(parsed.family, kFamily);
  EXPECT_EQ(parsed.command, uapi::kCmdConnect);
  EXPECT_EQ(parsed.u64(uapi::kAttrSize), 10ULL << 40);
  EXPECT_EQ(parsed.u64(uapi::kAttrBlockSize), 4096);
  EXPECT_EQ(parsed.u64(uapi::kAttrTimeout), 60);
  EXPECT_EQ(parsed.u64(uapi::kAttrDeadConnTimeout), 600);
  EXPECT_STREQ(nla_get_string(parsed.attributes[uapi::kAttrBackendIdentifier]), "volume-1");
  EXPECT_THAT(parsed.sockets(), ElementsAre(7, 9, 11));
}

TEST(NetlinkConnect, LeavesTheIndexToTheKernelUnlessOneIsNamed) {
  ConnectRequest request = example();
  EXPECT_FALSE(Parsed(build_connect(kFamily, request, {3})).has(uapi::kAttrIndex));
  request.index = 0;
  const Message named = build_connect(kFamily, request, {3});
  EXPECT_EQ(Parsed(named).u32(uapi::kAttrIndex), 0);
}

TEST(NetlinkConnect, TellsTheKernelOnlyFlagsThatItKnows) {
  ConnectRequest request = example();
  request.flags = 0xffff;
  const Message message = build_connect(kFamily, request, {3});
  EXPECT_EQ(Parsed(message).u64(uapi::kAttrServerFlags), uapi::kKnownFlags);
}

TEST(NetlinkConnect, TakesBackTheClientFlagsOfAFormerUser) {
  const Message message = build_connect(kFamily, example(), {3});
  ASSERT_TRUE(Parsed(message).has(uapi::kAttrClientFlags));
  EXPECT_EQ(Parsed(message).u64(uapi::kAttrClientFlags), 0);
}

TEST(NetlinkConnect, GivesNoEmptyBackend) {
  ConnectRequest request = example();
  request.backend.clear();
  EXPECT_FALSE(Parsed(build_connect(kFamily, request, {3})).has(uapi::kAttrBackendIdentifier));
}

TEST(NetlinkConnect, HasRoomForTheMostSockets) {
  const std::vector<int> many(64, 5);
  ConnectRequest request = example();
  request.backend = std::string(1024, 'x');
  const Message message = build_connect(kFamily, request, many);
  ASSERT_TRUE(message);
  EXPECT_EQ(Parsed(message).sockets().size(), many.size());
}

TEST(NetlinkConnect, IsNoMessageWhenItDoesNotFit) {
  ConnectRequest request = example();
  request.backend = std::string(60'000, 'x');
  EXPECT_FALSE(build_connect(kFamily, request, {3}));
}

TEST(NetlinkReconfigure, RepeatsTheBackendAndNeverGivesASizeWithSockets) {
  const Message message =
      build_reconfigure(kFamily, {.index = 4, .backend = "v", .sockets = {8}, .size = {}});
  const Parsed parsed(message);
  EXPECT_EQ(parsed.command, uapi::kCmdReconfigure);
  EXPECT_EQ(parsed.u32(uapi::kAttrIndex), 4);
  EXPECT_STREQ(nla_get_string(parsed.attributes[uapi::kAttrBackendIdentifier]), "v");
  EXPECT_THAT(parsed.sockets(), ElementsAre(8));
  EXPECT_FALSE(parsed.has(uapi::kAttrSize));
}

TEST(NetlinkReconfigure, ResizesWithoutSockets) {
  const Message message =
      build_reconfigure(kFamily, {.index = 4, .backend = "v", .sockets = {}, .size = 8192});
  EXPECT_EQ(Parsed(message).u64(uapi::kAttrSize), 8192);
  EXPECT_FALSE(Parsed(message).has(uapi::kAttrSockets));
}

TEST(NetlinkReconfigureDeathTest, AssertsThatSizeAndSocketsAreApart) {
  EXPECT_DEATH(build_reconfigure(kFamily, {.index = 4, .backend = "", .sockets = {8}, .size = 1}),
               "sockets");
}

TEST(NetlinkDisconnect, NamesTheDevice) {
  const Message message = build_disconnect(kFamily, 12);
  EXPECT_EQ(Parsed(message).command, uapi::kCmdDisconnect);
  EXPECT_EQ(Parsed(message).u32(uapi::kAttrIndex), 12);
}

TEST(NetlinkAnswer, NamesTheIndexOrNone) {
  const Message named = build_disconnect(kFamily, 12);
  EXPECT_EQ(parse_index(named.get()), 12);
  const Message unnamed = build_connect(kFamily, example(), {3});
  EXPECT_EQ(parse_index(unnamed.get()), std::nullopt);
}

/// An answer to STATUS that tells of `index`.
Message status_answer(uint32_t index, uint8_t connected) {
  Message message(nlmsg_alloc());
  genlmsg_put(message.get(), 0, 0, kFamily, 0, 0, uapi::kCmdStatus, uapi::kFamilyVersion);
  nlattr* list = nla_nest_start(message.get(), uapi::kAttrDeviceList);
  nlattr* item = nla_nest_start(message.get(), uapi::kDeviceItem);
  nla_put_u32(message.get(), uapi::kDeviceIndex, index);
  nla_put_u8(message.get(), uapi::kDeviceConnected, connected);
  nla_nest_end(message.get(), item);
  nla_nest_end(message.get(), list);
  return message;
}

TEST(NetlinkAnswer, TellsWhetherTheDeviceAskedForIsConnected) {
  EXPECT_TRUE(parse_connected(status_answer(3, 1).get(), 3));
  EXPECT_FALSE(parse_connected(status_answer(3, 0).get(), 3));
  EXPECT_FALSE(parse_connected(status_answer(2, 1).get(), 3));
  EXPECT_FALSE(parse_connected(build_disconnect(kFamily, 3).get(), 3));
}

}  // namespace
}  // namespace usbd::nbd::netlink

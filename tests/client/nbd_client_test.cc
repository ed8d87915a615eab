// SPDX-License-Identifier: Apache-2.0
//
// The client against servers that break the protocol, one rule each: a client that overlooks that
// proves nothing about the server. The servers are bytes written beforehand.

#include "client/nbd_client.h"

#include <array>
#include <cerrno>

#include <sys/socket.h>

#include <gtest/gtest.h>

#include "base/random.h"

namespace usbd::testing {
namespace {

using namespace std::chrono_literals;

class NbdClientTest : public ::testing::Test {
 protected:
  void connect(bool structured) {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    server_ = std::make_unique<NbdSocket>(ends[1], 2s);
    NbdAgreement agreement;
    agreement.structured_replies = structured;
    agreement.contexts = {{.id = 7, .name = "base:allocation"}};
    client_ = std::make_unique<NbdClient>(NbdSocket(ends[0], 300ms), agreement);
  }

  /// The cookie of the first command that a client sends.
  static uint64_t cookie() { return mix64(1); }

  template <WireStruct T>
  void reply(const T& message) {
    ASSERT_TRUE(server_->send_struct(message).has_value());
  }
  void simple(uint32_t error, uint64_t to = cookie()) {
    reply(wire::SimpleReply{.magic = wire::kSimpleReplyMagic, .error = error, .cookie = to});
  }
  void chunk(uint16_t type, uint32_t length, bool last) {
    reply(wire::StructuredReply{.magic = wire::kStructuredReplyMagic,
                                .flags = static_cast<uint16_t>(last ? wire::kReplyFlagDone : 0),
                                .type = type,
                                .cookie = cookie(),
                                .length = length});
  }
  template <typename... Numbers>
  void numbers(Numbers... values) {
    (reply(Be<Numbers>(values)), ...);
  }
  void bytes(size_t count, char fill) {
    const std::vector<std::byte> data(count, static_cast<std::byte>(fill));
    ASSERT_TRUE(server_->send(data).has_value());
  }

  Result<void> read(uint16_t flags = 0) {
    call_ = NbdCall();
    call_.flags = flags;
    call_.offset = 4096;
    call_.length = 8;
    data_.assign(8, std::byte{'?'});
    call_.target = data_;
    return client_->perform(call_);
  }
  Result<void> status(uint16_t flags = 0) {
    call_ = NbdCall();
    call_.command = wire::kCmdBlockStatus;
    call_.flags = flags;
    call_.length = 4096;
    return client_->perform(call_);
  }
  void expect_violation(const Result<void>& result, const std::string& what) {
    ASSERT_FALSE(result.has_value());
    EXPECT_NE(result.error().message().find(what), std::string::npos) << result.error().message();
  }

  std::unique_ptr<NbdSocket> server_;
  std::unique_ptr<NbdClient> client_;
  NbdCall call_;
  std::vector<std::byte> data_;
};

TEST_F(NbdClientTest, TakesASimpleRead) {
  connect(false);
  simple(0);
  bytes(8, 'x');
  ASSERT_TRUE(read().has_value());
  EXPECT_EQ(data_, std::vector<std::byte>(8, std::byte{'x'}));
}

TEST_F(NbdClientTest, TakesAnErrorWithoutPayloadAndGoesOn) {
  connect(false);
  simple(EIO);
  ASSERT_TRUE(read().has_value());
  EXPECT_EQ(call_.error, static_cast<uint32_t>(EIO));
  EXPECT_EQ(data_[0], std::byte{'?'});
  simple(0, mix64(2));
  bytes(8, 'y');
  ASSERT_TRUE(read().has_value());
  EXPECT_EQ(data_[0], std::byte{'y'});
}

TEST_F(NbdClientTest, TakesAReadInPartsOfDataAndHoles) {
  connect(true);
  chunk(wire::kChunkOffsetHole, 12, false);
  numbers(uint64_t{4096}, uint32_t{4});
  chunk(wire::kChunkOffsetData, 12, true);
  numbers(uint64_t{4100});
  bytes(4, 'z');
  ASSERT_TRUE(read().has_value());
  EXPECT_EQ(data_[3], std::byte{0});
  EXPECT_EQ(data_[4], std::byte{'z'});
  EXPECT_EQ(call_.chunks, 2U);
}

TEST_F(NbdClientTest, FindsAnUnknownCookie) {
  connect(false);
  simple(0, 99);
  expect_violation(read(), "cookie");
}

TEST_F(NbdClientTest, FindsAWrongMagic) {
  connect(false);
  bytes(16, 'm');
  expect_violation(read(), "begins with");
}

TEST_F(NbdClientTest, FindsASimpleReplyToAStructuredRead) {
  connect(true);
  simple(0);
  expect_violation(read(), "simple reply");
}

TEST_F(NbdClientTest, FindsAStructuredReplyThatWasNotAgreedOn) {
  connect(false);
  chunk(wire::kChunkNone, 0, true);
  expect_violation(read(), "not agreed");
}

TEST_F(NbdClientTest, FindsDataOutsideOfTheRequest) {
  connect(true);
  chunk(wire::kChunkOffsetData, 16, true);
  numbers(uint64_t{4097});
  bytes(8, 'x');
  expect_violation(read(), "not asked for");
}

TEST_F(NbdClientTest, FindsOverlappingParts) {
  connect(true);
  chunk(wire::kChunkOffsetHole, 12, false);
  numbers(uint64_t{4096}, uint32_t{5});
  chunk(wire::kChunkOffsetHole, 12, true);
  numbers(uint64_t{4100}, uint32_t{4});
  expect_violation(read(), "overlap");
}

TEST_F(NbdClientTest, FindsAPartThatIsMissing) {
  connect(true);
  chunk(wire::kChunkOffsetHole, 12, true);
  numbers(uint64_t{4096}, uint32_t{5});
  expect_violation(read(), "in part only");
}

TEST_F(NbdClientTest, FindsPartsWhereNoneWereAllowed) {
  connect(true);
  chunk(wire::kChunkOffsetHole, 12, false);
  numbers(uint64_t{4096}, uint32_t{4});
  chunk(wire::kChunkOffsetHole, 12, true);
  numbers(uint64_t{4100}, uint32_t{4});
  expect_violation(read(wire::kCmdFlagDf), "DF");
}

TEST_F(NbdClientTest, FindsAnErrorOfZero) {
  connect(true);
  chunk(wire::kChunkError, 6, true);
  numbers(uint32_t{0}, uint16_t{0});
  expect_violation(read(), "error 0");
}

TEST_F(NbdClientTest, FindsAHugeChunk) {
  connect(true);
  chunk(wire::kChunkOffsetData, UINT32_MAX, true);
  expect_violation(read(), "very long");
}

TEST_F(NbdClientTest, TakesABlockStatus) {
  connect(true);
  chunk(wire::kChunkBlockStatus, 20, true);
  numbers(uint32_t{7}, uint32_t{512}, uint32_t{0}, uint32_t{8192}, uint32_t{3});
  ASSERT_TRUE(status().has_value());
  ASSERT_EQ(call_.extents.size(), 2U);
  EXPECT_EQ(call_.extents[1].flags, wire::kStateHole | wire::kStateZero);
}

TEST_F(NbdClientTest, FindsABlockStatusOfAnUnknownContext) {
  connect(true);
  chunk(wire::kChunkBlockStatus, 12, true);
  numbers(uint32_t{8}, uint32_t{4096}, uint32_t{0});
  expect_violation(status(), "no known context");
}

TEST_F(NbdClientTest, FindsEmptyExtentsAndTooMany) {
  connect(true);
  chunk(wire::kChunkBlockStatus, 12, true);
  numbers(uint32_t{7}, uint32_t{0}, uint32_t{0});
  expect_violation(status(), "empty extent");
  connect(true);
  chunk(wire::kChunkBlockStatus, 20, true);
  numbers(uint32_t{7}, uint32_t{4096}, uint32_t{0}, uint32_t{512}, uint32_t{1});
  expect_violation(status(), "after the request");
}

TEST_F(NbdClientTest, FindsAnExtentThatReachesFurtherThanOneMay) {
  connect(true);
  chunk(wire::kChunkBlockStatus, 12, true);
  numbers(uint32_t{7}, uint32_t{8192}, uint32_t{0});
  expect_violation(status(wire::kCmdFlagReqOne), "REQ_ONE");
}

TEST_F(NbdClientTest, GivesUpOnASilentServerAndOnOneThatHangsUp) {
  connect(false);
  const Result<void> silent = read();
  ASSERT_FALSE(silent.has_value());
  EXPECT_TRUE(silent.error().is(Errc::kTimedOut));
  connect(false);
  server_.reset();
  EXPECT_FALSE(read().has_value());
}

TEST(NbdAddress, ReadsUrisAndPaths) {
  const auto unix_uri = NbdAddress::parse("nbd+unix:///my%20disk?socket=/run/x.sock");
  ASSERT_TRUE(unix_uri.has_value());
  EXPECT_EQ(unix_uri->socket_path, "/run/x.sock");
  EXPECT_EQ(unix_uri->export_name, "my disk");
  const auto tcp = NbdAddress::parse("nbd://[::1]:1234/a/b");
  ASSERT_TRUE(tcp.has_value());
  EXPECT_EQ(tcp->host, "::1");
  EXPECT_EQ(tcp->port, "1234");
  EXPECT_EQ(tcp->export_name, "a/b");
  EXPECT_EQ(NbdAddress::parse("nbd://localhost")->port, "10809");
  EXPECT_EQ(NbdAddress::parse("./x.sock")->socket_path, "./x.sock");
  for (const char* bad : {"", "http://x/", "nbd:///x", "nbd+unix:///x", "nbds://x/"}) {
    EXPECT_FALSE(NbdAddress::parse(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace usbd::testing

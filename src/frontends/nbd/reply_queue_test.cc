// SPDX-License-Identifier: Apache-2.0
//
// Replies byte for byte as the specification has them, sent in any pieces, and the buffers behind
// them given back as they leave.

#include "frontends/nbd/reply_queue.h"

#include <array>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "base/random.h"
#include "frontends/nbd/testing/client.h"
#include "frontends/nbd/testing/wire.h"

namespace usbd::nbd {
namespace {

using Sent = ReplyQueue::Sent;

struct NoUser final : TransportUser {
  void on_readable() override {}
  void on_writable() override {}
  void on_hang_up() override {}
};

class ReplyQueueTest : public ::testing::Test {
 protected:
  ReplyQueueTest() { EXPECT_TRUE(transport_.open(user_).has_value()); }

  BufferPool::Lease buffer(size_t length, char fill) {
    BufferPool::Lease lease = pool_.try_lease(length);
    std::memset(lease.bytes().data(), fill, length);
    return lease;
  }
  void add_read(uint64_t cookie, size_t length, char fill) {
    BufferPool::Lease lease = buffer(length, fill);
    const Bytes data = lease.bytes();
    queue_.simple_data(cookie, data, std::move(lease));
  }

  Budget budget_{16 << 20};
  BufferPool pool_{budget_};
  SimLoop loop_{{}};
  Wire wire_{loop_};
  NoUser user_;
  WireTransport transport_{wire_};
  ReplyQueue queue_;
};

std::string hex(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) text += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return text;
}

TEST_F(ReplyQueueTest, WritesRepliesAsTheSpecificationHasThem) {
  const std::string data = "DATA";
  const Bytes bytes = std::as_bytes(std::span(data));
  queue_.simple(0x0102030405060708, WireError::kNoSpace);
  queue_.simple_data(7, bytes, {});
  queue_.data_chunk(8, 0x1122334455667788, bytes, {});
  queue_.error_chunk(9, WireError::kInvalid);
  const std::array<BlockStatusExtent, 2> extents{
      {{.length = 512U, .flags = 3U}, {.length = 1024U, .flags = 0U}}};
  queue_.status_chunk(10, 1, std::as_bytes(std::span(extents)), {});
  EXPECT_EQ(queue_.size(), 5U);
  EXPECT_EQ(queue_.send(transport_), Sent::kAll);
  EXPECT_EQ(hex(wire_.take()),
            "67446698"
            "0000001c"
            "0102030405060708"
            "67446698"
            "00000000"
            "0000000000000007"
            "44415441"
            "668e33ef"
            "0001"
            "0001"
            "0000000000000008"
            "0000000c"
            "1122334455667788"
            "44415441"
            "668e33ef"
            "0001"
            "8001"
            "0000000000000009"
            "00000006"
            "00000016"
            "0000"
            "668e33ef"
            "0001"
            "0005"
            "000000000000000a"
            "00000014"
            "00000001"
            "00000200"
            "00000003"
            "00000400"
            "00000000");
  EXPECT_TRUE(queue_.empty());
}

TEST_F(ReplyQueueTest, HoldsBuffersUntilTheirLastByteHasLeft) {
  add_read(1, 5000, 'a');
  add_read(2, 3000, 'b');
  EXPECT_EQ(queue_.held_bytes(), 8000U);
  EXPECT_EQ(queue_.shared_bytes(), 8000U);
  wire_.set_room(16 + 4999);
  EXPECT_EQ(queue_.send(transport_), Sent::kSome);
  EXPECT_EQ(queue_.held_bytes(), 8000U);
  wire_.set_room(1);
  EXPECT_EQ(queue_.send(transport_), Sent::kSome);
  EXPECT_EQ(queue_.held_bytes(), 3000U);
  EXPECT_EQ(budget_.free(), budget_.total() - 4096);
  wire_.set_room(Wire::kNoLimit);
  EXPECT_EQ(queue_.send(transport_), Sent::kAll);
  EXPECT_EQ(queue_.held_bytes(), 0U);
  EXPECT_EQ(budget_.free(), budget_.total());
  EXPECT_EQ(queue_.sent_bytes(), 8032U);
}

TEST_F(ReplyQueueTest, TellsBuffersOfAReserveFromThoseOthersMayWaitFor) {
  uint64_t used = 0;
  BufferPool::Lease own = pool_.lease_reserved(100, used);
  const Bytes data = own.bytes();
  queue_.simple_data(1, data, std::move(own));
  EXPECT_EQ(queue_.held_bytes(), 100U);
  EXPECT_EQ(queue_.shared_bytes(), 0U);
  EXPECT_EQ(used, 4096U);
  EXPECT_EQ(queue_.send(transport_), Sent::kAll);
  EXPECT_EQ(used, 0U);
}

TEST_F(ReplyQueueTest, GivesEverythingBackWhenItIsCleared) {
  add_read(1, 5000, 'a');
  queue_.simple(2, WireError::kNone);
  wire_.set_room(100);
  EXPECT_EQ(queue_.send(transport_), Sent::kSome);
  queue_.clear();
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.held_bytes() + queue_.shared_bytes(), 0U);
  EXPECT_EQ(budget_.free(), budget_.total());
  wire_.take();
  wire_.set_room(Wire::kNoLimit);
  queue_.simple(3, WireError::kNone);
  EXPECT_EQ(queue_.send(transport_), Sent::kAll);
  EXPECT_EQ(wire_.take().size(), 16U) << "nothing of the cleared reply is remembered";
}

TEST_F(ReplyQueueTest, SaysThatTheConnectionIsGone) {
  add_read(1, 100, 'a');
  wire_.hang_up();
  EXPECT_EQ(queue_.send(transport_), Sent::kClosed);
  queue_.clear();
}

TEST_F(ReplyQueueTest, SendsTheSameStreamInAnyPieces) {
  SeededRng rng(5);
  StreamClient client(false);
  constexpr uint32_t kReplies = 3000;
  for (uint32_t i = 0; i < kReplies; ++i) {
    const auto length = static_cast<uint32_t>(rng.between(1, 9000));
    client.request({.command = StreamClient::kRead, .length = length});
    add_read(client.last_cookie(), length, static_cast<char>('a' + i % 26));
    wire_.set_send_max(rng.between(1, 30'000));
    wire_.set_room(rng.below(10'000));
    queue_.send(transport_);
    client.feed(wire_.take());
  }
  wire_.set_room(Wire::kNoLimit);
  EXPECT_EQ(queue_.send(transport_), Sent::kAll);
  client.feed(wire_.take());
  EXPECT_EQ(client.violation(), "");
  EXPECT_EQ(client.answers().size(), kReplies);
  EXPECT_EQ(client.pending(), 0U);
  EXPECT_EQ(budget_.free(), budget_.total());
}

}  // namespace
}  // namespace usbd::nbd

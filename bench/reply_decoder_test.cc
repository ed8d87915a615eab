// SPDX-License-Identifier: Apache-2.0
//
// Tests of decode_reply on whole, cut and malformed headers.

#include "bench/reply_decoder.h"

#include <vector>

#include <gtest/gtest.h>

#include "frontends/nbd/protocol.h"

namespace usbd::bench {
namespace {

constexpr uint64_t kCookie = 0x0123456789abcdef;

using Buffer = std::vector<std::byte>;

template <WireStruct T>
void append(Buffer& buffer, const T& message) {
  const Bytes bytes = wire_bytes(message);
  buffer.insert(buffer.end(), bytes.begin(), bytes.end());
}

Buffer chunk_of(nbd::Chunk type, uint32_t length, bool last = true) {
  nbd::ChunkHeader header;
  header.flags = last ? nbd::kChunkFlagDone : uint16_t{0};
  header.type = static_cast<uint16_t>(type);
  header.cookie = kCookie;
  header.length = length;
  Buffer buffer;
  append(buffer, header);
  return buffer;
}

/// The header that `buffer` holds; every shorter prefix of it must be asked to grow.
ReplyHeader decode_whole(const Buffer& buffer) {
  for (size_t size = 0; size < buffer.size(); ++size) {
    const auto cut = decode_reply(Bytes(buffer).first(size));
    EXPECT_TRUE(cut.has_value() && !cut->has_value()) << size;
  }
  const auto whole = decode_reply(buffer);
  if (!whole || !*whole) {
    ADD_FAILURE() << "not decoded";
    return {};
  }
  EXPECT_EQ((*whole)->size, buffer.size());
  EXPECT_EQ((*whole)->cookie, kCookie);
  return **whole;
}

TEST(ReplyDecoder, ReadsSimpleReplies) {
  nbd::SimpleReply reply;
  reply.error = 28;
  reply.cookie = kCookie;
  Buffer buffer;
  append(buffer, reply);
  const ReplyHeader header = decode_whole(buffer);
  EXPECT_TRUE(header.simple && header.last);
  EXPECT_EQ(header.error, 28U);
}

TEST(ReplyDecoder, ReadsDataChunks) {
  Buffer buffer = chunk_of(nbd::Chunk::kOffsetData, 8 + 512, false);
  append(buffer, nbd::OffsetData{.offset = 4096});
  const ReplyHeader header = decode_whole(buffer);
  EXPECT_FALSE(header.simple || header.last);
  EXPECT_EQ(header.offset, 4096U);
  EXPECT_EQ(header.data_length, 512U);
  EXPECT_EQ(header.ignored_length, 0U);
}

TEST(ReplyDecoder, ReadsHoles) {
  Buffer buffer = chunk_of(nbd::Chunk::kOffsetHole, 12);
  append(buffer, nbd::OffsetHole{.offset = 512, .length = 1024});
  const ReplyHeader header = decode_whole(buffer);
  EXPECT_EQ(header.offset, 512U);
  EXPECT_EQ(header.hole_length, 1024U);
  EXPECT_EQ(header.data_length + header.ignored_length, 0U);
}

TEST(ReplyDecoder, LeavesTheTextOfAnErrorToBeSkipped) {
  Buffer buffer = chunk_of(nbd::Chunk::kError, 6 + 5);
  append(buffer, nbd::ErrorChunk{.error = 5, .message_length = 5});
  const ReplyHeader header = decode_whole(buffer);
  EXPECT_EQ(header.error, 5U);
  EXPECT_EQ(header.ignored_length, 5U);
}

TEST(ReplyDecoder, ReadsTheEmptyLastChunk) {
  const ReplyHeader header = decode_whole(chunk_of(nbd::Chunk::kNone, 0));
  EXPECT_TRUE(header.last);
  EXPECT_EQ(header.error + header.ignored_length, 0U);
}

TEST(ReplyDecoder, RefusesWhatIsNoReply) {
  EXPECT_FALSE(decode_reply(Buffer(64)).has_value());
  EXPECT_FALSE(decode_reply(chunk_of(nbd::Chunk::kOffsetData, 8)).has_value());
  EXPECT_FALSE(decode_reply(chunk_of(nbd::Chunk::kOffsetHole, 11)).has_value());
  EXPECT_FALSE(decode_reply(chunk_of(nbd::Chunk::kError, 5)).has_value());
  Buffer success = chunk_of(nbd::Chunk::kError, 6);
  append(success, nbd::ErrorChunk{.error = 0, .message_length = 0});
  EXPECT_FALSE(decode_reply(success).has_value());
}

}  // namespace
}  // namespace usbd::bench

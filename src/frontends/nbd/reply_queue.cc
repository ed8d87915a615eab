// SPDX-License-Identifier: Apache-2.0
//
// Building replies and sending many at once.

#include "frontends/nbd/reply_queue.h"

#include <algorithm>

#include "base/assert.h"

namespace usbd::nbd {
namespace {

/// Vectors that one sendmsg carries. Ref: IOV_MAX is 1024; more than this gains nothing.
constexpr size_t kVectorsMax = 512;

}  // namespace

ReplyQueue::Reply& ReplyQueue::add(Bytes header) {
  Reply& reply = replies_.emplace_back();
  add_header(reply, header);
  return reply;
}

void ReplyQueue::add_header(Reply& reply, Bytes more) {
  USBD_ASSERT(reply.header_length + more.size() <= kHeaderMax);
  std::memcpy(reply.header.data() + reply.header_length, more.data(), more.size());
  reply.header_length += more.size();
}

void ReplyQueue::hold(Reply& reply, Bytes data, BufferPool::Lease owner) {
  reply.payload = data;
  reply.lease = std::move(owner);
  if (reply.lease) held_bytes_ += data.size();
  if (reply.lease.is_shared()) shared_bytes_ += data.size();
}

void ReplyQueue::simple(uint64_t cookie, WireError error) {
  const SimpleReply header{.error = static_cast<uint32_t>(error), .cookie = cookie};
  add(wire_bytes(header));
}

void ReplyQueue::simple_data(uint64_t cookie, Bytes data, BufferPool::Lease owner) {
  const SimpleReply header{.error = 0U, .cookie = cookie};
  Reply& reply = add(wire_bytes(header));
  hold(reply, data, std::move(owner));
}

void ReplyQueue::data_chunk(uint64_t cookie, uint64_t offset, Bytes data, BufferPool::Lease owner) {
  const ChunkHeader header{.flags = kChunkFlagDone,
                           .type = static_cast<uint16_t>(Chunk::kOffsetData),
                           .cookie = cookie,
                           .length = static_cast<uint32_t>(sizeof(OffsetData) + data.size())};
  const OffsetData position{.offset = offset};
  Reply& reply = add(wire_bytes(header));
  add_header(reply, wire_bytes(position));
  hold(reply, data, std::move(owner));
}

void ReplyQueue::error_chunk(uint64_t cookie, WireError error) {
  const ChunkHeader header{.flags = kChunkFlagDone,
                           .type = static_cast<uint16_t>(Chunk::kError),
                           .cookie = cookie,
                           .length = static_cast<uint32_t>(sizeof(ErrorChunk))};
  const ErrorChunk body{.error = static_cast<uint32_t>(error), .message_length = uint16_t{0}};
  Reply& reply = add(wire_bytes(header));
  add_header(reply, wire_bytes(body));
}

void ReplyQueue::status_chunk(uint64_t cookie, uint32_t context,
                              std::vector<BlockStatusExtent> extents) {
  const Bytes list = std::as_bytes(std::span(extents));
  const ChunkHeader header{.flags = kChunkFlagDone,
                           .type = static_cast<uint16_t>(Chunk::kBlockStatus),
                           .cookie = cookie,
                           .length = static_cast<uint32_t>(sizeof(BlockStatus) + list.size())};
  const BlockStatus body{.context_id = context};
  Reply& reply = add(wire_bytes(header));
  add_header(reply, wire_bytes(body));
  reply.owned.assign(list.begin(), list.end());
  reply.payload = reply.owned;
}

void ReplyQueue::raw(std::vector<std::byte> bytes) {
  Reply& reply = replies_.emplace_back();
  reply.owned = std::move(bytes);
  reply.payload = reply.owned;
}

ReplyQueue::Sent ReplyQueue::send(Transport& transport) {
  while (!empty()) {
    std::array<iovec, kVectorsMax>
        vectors;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled below
    size_t count = 0;
    size_t skip = first_sent_;
    size_t total = 0;
    const auto append = [&](Bytes part) {
      const size_t skipped = std::min(skip, part.size());
      skip -= skipped;
      part = part.subspan(skipped);
      if (part.empty()) return;
      vectors[count++] = {const_cast<std::byte*>(part.data()), part.size()};
      total += part.size();
    };
    for (size_t i = first_; i < replies_.size() && count + 2 <= kVectorsMax; ++i) {
      append(Bytes(replies_[i].header).first(replies_[i].header_length));
      append(replies_[i].payload);
    }
    const int64_t sent = transport.send(std::span(vectors).first(count));
    if (sent == Transport::kClosed) return Sent::kClosed;
    if (sent == Transport::kWouldBlock) return Sent::kSome;
    advance(static_cast<size_t>(sent));
  }
  return Sent::kAll;
}

void ReplyQueue::advance(size_t bytes) {
  sent_ += bytes;
  bytes += std::exchange(first_sent_, 0);
  while (!empty()) {
    Reply& reply = replies_[first_];
    const size_t length = reply.header_length + reply.payload.size();
    if (bytes < length) {
      first_sent_ = bytes;
      if (first_ > replies_.size() / 2) {  // what has left must not pile up behind a slow reader
        replies_.erase(replies_.begin(), replies_.begin() + static_cast<std::ptrdiff_t>(first_));
        first_ = 0;
      }
      return;
    }
    bytes -= length;
    if (reply.lease) held_bytes_ -= reply.payload.size();
    if (reply.lease.is_shared()) shared_bytes_ -= reply.payload.size();
    reply.lease.reset();
    ++first_;
  }
  USBD_ASSERT(bytes == 0);
  replies_.clear();
  first_ = 0;
}

void ReplyQueue::clear() {
  replies_.clear();
  first_ = 0;
  first_sent_ = 0;
  held_bytes_ = 0;
  shared_bytes_ = 0;
}

}  // namespace usbd::nbd

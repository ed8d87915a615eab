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

/// One reply whose header consists of `headers`.
ReplyQueue::Part& ReplyQueue::add(std::initializer_list<Bytes> headers) {
  if (first_ == parts_.size() || !parts_.back().payload.empty()) {
    parts_.emplace_back().headers_begin = headers_.size();
  }
  Part& part = parts_.back();
  for (const Bytes header : headers) {
    headers_.insert(headers_.end(), header.begin(), header.end());
  }
  part.headers_end = headers_.size();
  ++part.replies;
  ++size_;
  return part;
}

void ReplyQueue::hold(Part& part, Bytes data, BufferPool::Lease owner) {
  part.payload = data;
  part.lease = std::move(owner);
  if (part.lease) held_bytes_ += data.size();
  if (part.lease.is_shared()) shared_bytes_ += data.size();
}

void ReplyQueue::simple(uint64_t cookie, WireError error) {
  const SimpleReply header{.error = static_cast<uint32_t>(error), .cookie = cookie};
  add({wire_bytes(header)});
}

void ReplyQueue::simple_data(uint64_t cookie, Bytes data, BufferPool::Lease owner) {
  const SimpleReply header{.error = 0U, .cookie = cookie};
  hold(add({wire_bytes(header)}), data, std::move(owner));
}

void ReplyQueue::data_chunk(uint64_t cookie, uint64_t offset, Bytes data, BufferPool::Lease owner) {
  const ChunkHeader header{.flags = kChunkFlagDone,
                           .type = static_cast<uint16_t>(Chunk::kOffsetData),
                           .cookie = cookie,
                           .length = static_cast<uint32_t>(sizeof(OffsetData) + data.size())};
  const OffsetData position{.offset = offset};
  hold(add({wire_bytes(header), wire_bytes(position)}), data, std::move(owner));
}

void ReplyQueue::error_chunk(uint64_t cookie, WireError error) {
  const ChunkHeader header{.flags = kChunkFlagDone,
                           .type = static_cast<uint16_t>(Chunk::kError),
                           .cookie = cookie,
                           .length = static_cast<uint32_t>(sizeof(ErrorChunk))};
  const ErrorChunk body{.error = static_cast<uint32_t>(error), .message_length = uint16_t{0}};
  add({wire_bytes(header), wire_bytes(body)});
}

void ReplyQueue::status_chunk(uint64_t cookie, uint32_t context, Bytes extents,
                              BufferPool::Lease owner) {
  const ChunkHeader header{.flags = kChunkFlagDone,
                           .type = static_cast<uint16_t>(Chunk::kBlockStatus),
                           .cookie = cookie,
                           .length = static_cast<uint32_t>(sizeof(BlockStatus) + extents.size())};
  const BlockStatus body{.context_id = context};
  hold(add({wire_bytes(header), wire_bytes(body)}), extents, std::move(owner));
}

void ReplyQueue::raw(std::vector<std::byte> bytes) {
  Part& part = add({});
  part.owned = std::move(bytes);
  part.payload = part.owned;
}

ReplyQueue::Sent ReplyQueue::send(Transport& transport) {
  while (!empty()) {
    std::array<iovec, kVectorsMax>
        vectors;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled below
    size_t count = 0;
    size_t skip = first_sent_;
    const auto append = [&](Bytes part) {
      const size_t skipped = std::min(skip, part.size());
      skip -= skipped;
      part = part.subspan(skipped);
      if (part.empty()) return;
      vectors[count++] = {const_cast<std::byte*>(part.data()), part.size()};
    };
    for (size_t i = first_; i < parts_.size() && count + 2 <= kVectorsMax; ++i) {
      const Part& part = parts_[i];
      append(Bytes(headers_).subspan(part.headers_begin, part.headers_end - part.headers_begin));
      append(part.payload);
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
  while (first_ < parts_.size() && bytes >= parts_[first_].length()) {
    Part& part = parts_[first_++];
    bytes -= part.length();
    size_ -= part.replies;
    if (part.lease) held_bytes_ -= part.payload.size();
    if (part.lease.is_shared()) shared_bytes_ -= part.payload.size();
    part.lease.reset();
  }
  first_sent_ = bytes;
  forget_sent();
}

/// What has left must not pile up behind a slow reader.
void ReplyQueue::forget_sent() {
  if (first_ == parts_.size()) {
    USBD_ASSERT(first_sent_ == 0 && size_ == 0);
    clear();
  } else if (first_ > parts_.size() / 2) {
    parts_.erase(parts_.begin(), parts_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
    const size_t gone = parts_.front().headers_begin;
    headers_.erase(headers_.begin(), headers_.begin() + static_cast<std::ptrdiff_t>(gone));
    for (Part& part : parts_) {
      part.headers_begin -= gone;
      part.headers_end -= gone;
    }
  }
}

void ReplyQueue::clear() {
  parts_.clear();
  headers_.clear();
  first_ = first_sent_ = size_ = 0;
  held_bytes_ = shared_bytes_ = 0;
}

}  // namespace usbd::nbd

// SPDX-License-Identifier: Apache-2.0
//
// ReplyQueue: the replies of one connection that have not been sent, in order. One sendmsg carries
// many of them: headers lie in the queue, those with no payload between them as one piece; payloads
// lie where they are (the device's memory, or a buffer on loan that the queue holds until it is
// sent).

#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "base/endian.h"
#include "core/buffer_pool.h"
#include "frontends/nbd/protocol.h"
#include "frontends/nbd/transport.h"

namespace usbd::nbd {

class ReplyQueue {
 public:
  void simple(uint64_t cookie, WireError error);
  /// A successful read without structured replies.
  void simple_data(uint64_t cookie, Bytes data, BufferPool::Lease owner);
  /// A successful read: one chunk.
  void data_chunk(uint64_t cookie, uint64_t offset, Bytes data, BufferPool::Lease owner);
  void error_chunk(uint64_t cookie, WireError error);
  /// `extents`: BlockStatusExtent structs.
  void status_chunk(uint64_t cookie, uint32_t context, Bytes extents, BufferPool::Lease owner);
  /// Bytes of the handshake.
  void raw(std::vector<std::byte> bytes);

  [[nodiscard]] bool empty() const { return size_ == 0; }
  /// Replies of which not all has left, or that share a part with one.
  [[nodiscard]] size_t size() const { return size_; }
  /// Payload bytes on loan that wait here. Units: bytes.
  [[nodiscard]] uint64_t held_bytes() const { return held_bytes_; }
  /// Those of them that others may be waiting for.
  [[nodiscard]] uint64_t shared_bytes() const { return shared_bytes_; }
  /// All that was ever sent; tells a slow reader from a stopped one. Units: bytes.
  [[nodiscard]] uint64_t sent_bytes() const { return sent_; }

  enum class Sent { kAll, kSome, kClosed };
  /// Sends until all is gone or the transport takes no more.
  Sent send(Transport& transport);
  void clear();

 private:
  /// Headers that lie one behind the other in headers_, and the payload that follows the last.
  struct Part {
    size_t headers_begin = 0;
    size_t headers_end = 0;
    size_t replies = 0;
    Bytes payload;
    BufferPool::Lease lease;
    std::vector<std::byte> owned;
    [[nodiscard]] size_t length() const { return headers_end - headers_begin + payload.size(); }
  };

  Part& add(std::initializer_list<Bytes> headers);
  void hold(Part& part, Bytes data, BufferPool::Lease owner);
  void advance(size_t bytes);
  void forget_sent();

  std::vector<Part> parts_;
  std::vector<std::byte> headers_;
  /// The first part that has not left.
  size_t first_ = 0;
  /// Bytes of it that have been sent.
  size_t first_sent_ = 0;
  size_t size_ = 0;
  uint64_t held_bytes_ = 0;
  uint64_t shared_bytes_ = 0;
  uint64_t sent_ = 0;
};

}  // namespace usbd::nbd

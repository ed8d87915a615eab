// SPDX-License-Identifier: Apache-2.0
//
// ReplyQueue: the replies of one connection that have not been sent, in order. One sendmsg carries
// many of them: headers lie in the queue, payloads where they are (the device's memory, or a
// buffer on loan that the queue holds until it is sent).

#pragma once

#include <array>
#include <cstddef>
#include <cstring>
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
  void status_chunk(uint64_t cookie, uint32_t context, std::vector<BlockStatusExtent> extents);
  /// Bytes of the handshake.
  void raw(std::vector<std::byte> bytes);

  [[nodiscard]] bool empty() const { return first_ == replies_.size(); }
  [[nodiscard]] size_t size() const { return replies_.size() - first_; }
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
  static constexpr size_t kHeaderMax = 32;
  struct Reply {
    std::array<std::byte, kHeaderMax> header;
    size_t header_length = 0;
    Bytes payload;
    BufferPool::Lease lease;
    std::vector<std::byte> owned;
  };

  Reply& add(Bytes header);
  void add_header(Reply& reply, Bytes more);
  void hold(Reply& reply, Bytes data, BufferPool::Lease owner);
  void advance(size_t bytes);

  std::vector<Reply> replies_;
  size_t first_ = 0;
  /// Bytes of the first reply that have been sent.
  size_t first_sent_ = 0;
  uint64_t held_bytes_ = 0;
  uint64_t shared_bytes_ = 0;
  uint64_t sent_ = 0;
};

}  // namespace usbd::nbd

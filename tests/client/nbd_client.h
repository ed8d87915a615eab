// SPDX-License-Identifier: Apache-2.0
//
// NbdClient: an NBD connection in its transmission phase. Any number of calls may be under way;
// replies may come in any order, and every rule that a reply can break is checked. Independent of
// the server's code and of libnbd, so that both can be checked against it.
//
// Ref: NBD protocol, "Transmission phase".

#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/nbd_address.h"
#include "client/nbd_handshake.h"
#include "client/nbd_socket.h"
#include "client/nbd_wire.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::testing {

/// A run of a block status.
struct NbdExtent {
  uint32_t length = 0;
  uint32_t flags = 0;
};

/// One command and its answer. Lifetime: from submit() until done.
struct NbdCall {
  uint16_t command = wire::kCmdRead;
  uint16_t flags = 0;
  uint64_t offset = 0;
  uint32_t length = 0;
  /// kCmdWrite: `length` bytes.
  Bytes payload;
  /// kCmdRead: `length` bytes to be filled.
  MutableBytes target;

  bool done = false;
  /// 0, or the error of the reply (an errno value).
  uint32_t error = 0;
  std::string error_text;
  /// kCmdBlockStatus: of base:allocation.
  std::vector<NbdExtent> extents;
  /// Chunks that the answer consisted of; 1 for a simple reply.
  unsigned chunks = 0;
  /// kCmdRead, structured: what the chunks have covered.
  std::vector<ByteRange> covered;
};

/// Threads: one at a time. After any error the connection is of no use.
class NbdClient {
 public:
  static constexpr std::chrono::milliseconds kTimeout{60'000};

  /// Connects, shakes hands and negotiates.
  static Result<std::unique_ptr<NbdClient>> connect(const NbdAddress& address,
                                                    const NbdWishes& wishes,
                                                    std::chrono::milliseconds timeout = kTimeout);
  /// Goes on with a socket on which both sides have agreed.
  NbdClient(NbdSocket socket, NbdAgreement agreement)
      : socket_(std::move(socket)), agreement_(std::move(agreement)), receive_buffer_(kBuffer) {}

  [[nodiscard]] const NbdExportInfo& info() const { return agreement_.info; }
  [[nodiscard]] const NbdAgreement& agreement() const { return agreement_; }

  /// Queues a command. Lifetime: `call` and its memory until it is done.
  void submit(NbdCall& call);
  /// Sends and receives until every submitted call of every client is done.
  static Result<void> finish(std::span<const std::unique_ptr<NbdClient>> clients);
  Result<void> finish();
  /// One command from beginning to end.
  Result<void> perform(NbdCall& call);
  /// Says goodbye and waits until the server has closed. Range: no call is under way.
  Result<void> disconnect();

  // For tests that send what they like:
  [[nodiscard]] NbdSocket& socket() { return socket_; }
  [[nodiscard]] size_t calls_under_way() const { return calls_.size(); }

 private:
  static constexpr size_t kBuffer = 256U << 10;
  struct Outgoing {
    wire::Request header;
    Bytes payload;
    size_t sent = 0;
  };
  /// What the bytes now coming in belong to.
  enum class Phase : uint8_t { kHeader, kOffset, kData, kBody };

  [[nodiscard]] bool wants_to_send() const { return !outgoing_.empty(); }
  Result<void> send_some();
  Result<void> receive_some();
  Result<void> parse();
  Result<bool> parse_header();
  Result<void> begin_simple(const wire::SimpleReply& reply);
  Result<void> begin_chunk(const wire::StructuredReply& reply);
  void expect(Phase phase, MutableBytes target);
  Result<void> end_phase();
  Result<void> end_offset();
  Result<void> take_hole();
  Result<void> take_status();
  Result<void> take_error();
  Result<void> cover(uint64_t offset, uint64_t length);
  Result<void> end_chunk();
  Result<NbdCall*> find(uint64_t cookie);

  NbdSocket socket_;
  NbdAgreement agreement_;
  uint64_t calls_made_ = 0;
  std::unordered_map<uint64_t, NbdCall*> calls_;
  std::deque<Outgoing> outgoing_;

  std::vector<std::byte> receive_buffer_;
  size_t filled_ = 0;
  size_t parsed_ = 0;

  Phase phase_ = Phase::kHeader;
  MutableBytes target_;
  size_t target_filled_ = 0;
  std::vector<std::byte> body_;
  NbdCall* call_ = nullptr;
  uint64_t cookie_ = 0;
  uint16_t chunk_type_ = 0;
  uint32_t chunk_length_ = 0;
  bool chunk_is_last_ = false;
};

}  // namespace usbd::testing

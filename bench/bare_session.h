// SPDX-License-Identifier: Apache-2.0
//
// BareSession: one connection of the bare server. It does only what cannot be left out: receive,
// look at each request, send from or receive into one block of memory. No device, no emulation, no
// accounting, no limits worth the name: it marks what the socket costs, and serves nothing else.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include <sys/uio.h>

#include "bench/aligned_buffer.h"
#include "bench/socket.h"
#include "frontends/nbd/protocol.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::bench {

struct BareOptions {
  /// Writes whose missing part has at least this length are received straight into the memory.
  /// Units: bytes.
  uint64_t direct_min = 32U << 10;
  /// How much is received at once. Units: bytes.
  uint64_t receive_buffer = 256U << 10;
  /// How much is received behind a payload that goes straight into the memory. Room for the next
  /// header alone means that the whole next payload goes there too. Units: bytes.
  uint64_t lookahead = sizeof(nbd::Request);
  /// Leave the data of writes in the receive buffer.
  bool discard = false;
};

/// Threads: one.
class BareSession {
 public:
  /// Lifetime: `memory` and `options` outlive the session.
  BareSession(Socket socket, MutableBytes memory, const BareOptions& options);

  /// Serves the client until it leaves.
  /// Errors: kIo (it left without saying so), kInvalid (it broke the protocol).
  Result<void> run();

 private:
  static constexpr size_t kBatchMax = 2048;
  struct Batch {
    std::array<nbd::SimpleReply, kBatchMax> headers;
    std::array<iovec, 2 * kBatchMax> pieces;
    size_t header_count = 0;
    size_t piece_count = 0;
  };
  /// A write whose payload has not all come yet.
  struct PartialWrite {
    MutableBytes missing;
    Be64 cookie;
  };

  Result<void> serve();
  Result<void> receive();
  void take_partial_write();
  /// Answers what lies in the receive buffer until it ends or the batch is full.
  Result<void> handle_requests();
  /// Answers one request, or leaves its answer to be given when its payload is complete. Returns
  /// how many of the `following` bytes were its payload.
  Result<size_t> handle_request(const nbd::Request& request, Bytes following);
  /// Takes the payload that follows a write's header; returns how much of it was there.
  size_t handle_write(const nbd::Request& request, MutableBytes target, Bytes received);
  void reply(Be64 cookie, nbd::WireError error, Bytes data);
  Result<void> send_batch();

  Socket socket_;
  const MutableBytes memory_;
  const BareOptions& options_;
  AlignedBuffer buffer_;
  size_t received_ = 0;
  PartialWrite partial_;
  bool leaving_ = false;
  std::unique_ptr<Batch> batch_;
};

}  // namespace usbd::bench

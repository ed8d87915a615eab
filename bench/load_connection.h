// SPDX-License-Identifier: Apache-2.0
//
// LoadConnection: one NBD connection of the load generator, kept full of requests. Batched on
// purpose, so that the client is never what limits: one sendmsg carries all requests there is room
// for, one recvmsg takes all replies there are, the clock is read once for each.
//
// A request occupies a slot from its sending to the end of its reply; the number of slots is the
// queue depth. The cookie is the slot's number and its generation, so a reply that comes twice, or
// for no request, is noticed.

#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include <sys/uio.h>

#include "bench/aligned_buffer.h"
#include "bench/latency_histogram.h"
#include "bench/reply_decoder.h"
#include "bench/socket.h"
#include "bench/workload.h"
#include "frontends/nbd/protocol.h"
#include "usbd/result.h"

namespace usbd::bench {

/// What the connections of one thread did. Only what finishes while `measuring` counts, except that
/// `errors` are counted always. Threads: the one thread's.
struct LoadCounters {
  bool measuring = false;
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t others = 0;
  uint64_t bytes = 0;
  uint64_t errors = 0;
  uint64_t send_calls = 0;
  uint64_t receive_calls = 0;
  LatencyHistogram latency;

  [[nodiscard]] uint64_t operations() const { return reads + writes + others; }
  void merge(const LoadCounters& other);
};

struct LoadConnectionOptions {
  uint32_t depth = 1;
  uint32_t block_size = 4096;
  bool fua = false;
  bool verify = false;
  uint64_t seed = 1;
  DataKind data = DataKind::kStatic;
};

/// Threads: one at a time.
class LoadConnection {
 public:
  /// `socket` is in the transmission phase. Lifetime: `counters` outlives the connection.
  LoadConnection(Socket socket, const LoadConnectionOptions& options, Workload workload,
                 LoadCounters& counters);

  /// Puts a request into every free slot and sends as much as the socket takes.
  Result<void> submit();
  /// Sends what submit() could not.
  Result<void> send_rest();

  enum class Wait : bool { kNo, kYes };
  /// Receives once and handles what came. Returns false if nothing came.
  /// Errors: kIo (the server closed), kInvalid (it broke the protocol), kTimedOut (kYes: nothing
  ///         came within the socket's receive timeout).
  Result<bool> receive(Wait wait);

  /// Says goodbye (NBD_CMD_DISC). Call it when idle().
  Result<void> disconnect();

  [[nodiscard]] int fd() const { return socket_.fd(); }
  [[nodiscard]] bool has_unsent() const { return unsent_first_ < unsent_.size(); }
  [[nodiscard]] bool idle() const { return free_slots_.size() == slots_.size() && !has_unsent(); }
  /// Whether the workload has come to its end.
  [[nodiscard]] bool exhausted() const { return exhausted_; }

 private:
  struct Slot {
    bool busy = false;
    uint32_t error = 0;
    uint64_t generation = 0;
    uint64_t started = 0;
    uint64_t received = 0;
    Operation operation;
    std::byte* buffer = nullptr;
  };
  /// The payload that is being received.
  struct Incoming {
    Slot* slot = nullptr;
    /// Where its data goes; null: nowhere.
    std::byte* destination = nullptr;
    uint64_t left = 0;
    bool last = false;
  };

  void allocate_buffers();
  void enqueue(const Operation& operation, uint64_t now);
  void advance_unsent(size_t sent);
  Result<void> handle_received();
  Result<void> begin_reply(const ReplyHeader& header);
  Result<Slot*> find_slot(uint64_t cookie);
  Result<void> check_range(const Slot& slot, const ReplyHeader& header) const;
  size_t take_payload(Bytes received);
  void advance_payload(uint64_t length);
  void finish(Slot& slot);
  [[nodiscard]] bool receives_directly() const;

  Socket socket_;
  const LoadConnectionOptions options_;
  Workload workload_;
  LoadCounters& counters_;
  bool exhausted_ = false;

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  AlignedBuffer payloads_;

  // The batch that is being sent: its headers, one behind the other, and its pieces.
  std::vector<nbd::Request> headers_;
  std::vector<iovec> unsent_;
  size_t unsent_first_ = 0;

  AlignedBuffer receive_buffer_;
  size_t received_ = 0;
  uint64_t received_at_ = 0;
  Incoming incoming_;
};

/// Nanoseconds of the monotonic clock.
inline uint64_t clock_now() {
  return static_cast<uint64_t>(
      std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

}  // namespace usbd::bench

// SPDX-License-Identifier: Apache-2.0
//
// NbdSocket: whole messages over a stream socket with a time limit, for the handshake of the tests'
// client, which needs no speed.

#pragma once

#include <chrono>

#include "base/endian.h"
#include "base/unique_fd.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::testing {

/// Threads: one at a time.
class NbdSocket {
 public:
  /// Takes `fd` over. Every call below fails with kTimedOut if nothing moves for so long.
  NbdSocket(int fd, std::chrono::milliseconds timeout) : fd_(fd), timeout_(timeout) {}

  /// Sends all of `data`. Errors: kTimedOut, or what the system said.
  Result<void> send(Bytes data);
  /// Fills all of `data`. Errors: the same; kShutdown if the other end closed first.
  Result<void> receive(MutableBytes data);
  template <WireStruct T>
  Result<void> send_struct(const T& value) {
    return send(wire_bytes(value));
  }
  template <WireStruct T>
  Result<T> receive_struct() {
    T value;
    USBD_TRY_VOID(receive(std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::chrono::milliseconds timeout() const { return timeout_; }

 private:
  Result<void> wait(short events);

  UniqueFd fd_;
  std::chrono::milliseconds timeout_;
};

}  // namespace usbd::testing

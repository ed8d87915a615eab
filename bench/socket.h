// SPDX-License-Identifier: Apache-2.0
//
// Stream sockets for the benchmark programs: an owner for the descriptor, connecting and listening
// on unix sockets and on loopback TCP, and whole-buffer transfers for the handshake. What is
// measured does its own batched calls on the descriptor.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/endian.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::bench {

/// Owns one descriptor and closes it.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket();

  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

/// Where a server listens: a unix socket, or TCP if `unix_path` is empty.
struct Endpoint {
  std::string unix_path;
  /// "HOST:PORT" for a client; a server listens on the loopback address only.
  std::string tcp;
};

/// Errors: whatever connect() says, with the address as context.
Result<Socket> connect_to(const Endpoint& endpoint);
/// Replaces a unix socket that is in the way. Errors: whatever bind() says, with the address.
Result<Socket> listen_on(const Endpoint& endpoint);
/// Waits for a client. Errors: whatever accept() says.
Result<Socket> accept_from(const Socket& listener);

/// Asks the kernel for send and receive buffers of this size. Units: bytes; 0 leaves the default.
Result<void> set_buffer_size(const Socket& socket, uint64_t bytes);
/// Makes a receive that gets nothing for `seconds` fail with kAgain.
Result<void> set_receive_timeout(const Socket& socket, uint64_t seconds);

/// Fills all of `data`. Errors: kIo if the peer closes first, or what recv() says.
Result<void> read_exactly(const Socket& socket, MutableBytes data);
/// Receives one message of fixed length. Errors: those of read_exactly().
template <WireStruct T>
Result<T> read_message(const Socket& socket) {
  T message;
  USBD_TRY_VOID(read_exactly(socket, std::as_writable_bytes(std::span<T, 1>(&message, 1))));
  return message;
}
/// Sends all of `data`.
Result<void> write_exactly(const Socket& socket, Bytes data);

}  // namespace usbd::bench

// SPDX-License-Identifier: Apache-2.0
//
// Transport: what a session needs of its connection. SocketTransport is a plain non-blocking socket
// on an EventLoop; TLS will be another, and the tests and the fuzzer bring one of memory.

#pragma once

#include <cstdint>
#include <span>

#include <sys/uio.h>

#include "async/event_loop.h"

namespace usbd::nbd {

/// Told by a transport that it can go on. Threads: the loop's.
class TransportUser {
 public:
  virtual void on_readable() = 0;
  virtual void on_writable() = 0;
  /// Both directions are shut, or the connection was reset; nothing can be answered any more.
  virtual void on_hang_up() = 0;

 protected:
  ~TransportUser() = default;
};

/// Threads: its loop's.
class Transport {
 public:
  static constexpr int64_t kWouldBlock = -1;
  /// The peer has closed, or the connection has failed.
  static constexpr int64_t kClosed = -2;

  virtual ~Transport() = default;

  /// Says who is told. Called once, before anything else.
  virtual Result<void> open(TransportUser& user) = 0;
  /// Receives what is there into `buffers`: how many bytes (> 0), kWouldBlock or kClosed.
  virtual int64_t receive(std::span<iovec> buffers) = 0;
  /// Sends a part of `buffers`: how many bytes (> 0), kWouldBlock or kClosed.
  virtual int64_t send(std::span<iovec> buffers) = 0;
  /// Which of on_readable and on_writable the user wants to hear of, from now on.
  virtual void want(bool readable, bool writable) = 0;
  /// Asks the connection itself, now, whether its other end has given it up entirely.
  virtual bool is_hung_up() = 0;
  /// Ends the connection; the user is told nothing more.
  virtual void close() = 0;
};

class SocketTransport final : public Transport, private FdWatcher {
 public:
  /// Takes ownership of `fd`, a connected stream socket, and makes it non-blocking.
  SocketTransport(EventLoop& loop, int fd) : loop_(loop), fd_(fd) {}
  ~SocketTransport() override { close(); }

  Result<void> open(TransportUser& user) override;
  int64_t receive(std::span<iovec> buffers) override;
  int64_t send(std::span<iovec> buffers) override;
  void want(bool readable, bool writable) override;
  bool is_hung_up() override;
  void close() override;

 private:
  void on_events(uint32_t events) override;

  EventLoop& loop_;
  int fd_;
  TransportUser* user_ = nullptr;
  uint32_t wanted_ = 0;
};

}  // namespace usbd::nbd

// SPDX-License-Identifier: Apache-2.0
//
// For tests and the fuzzer: a connection of memory. The test holds the client's end, a Wire: it
// says what has arrived, in which pieces, how much can be sent, and when the other end is gone. The
// session holds the server's end, a WireTransport. It is level-triggered like a socket in epoll:
// whoever is interested is told again until nothing is left.

#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "frontends/nbd/transport.h"
#include "usbd/loop.h"

namespace usbd::nbd {

/// Threads: its loop's. Lifetime: outlives its transport, and the loop's last run.
class Wire {
 public:
  static constexpr size_t kNoLimit = ~size_t{0};

  explicit Wire(Loop& loop) : loop_(loop) { ready_.wire = this; }
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  // --- the client's end ---

  void send(std::string_view bytes) {
    if (gone()) return;
    incoming_ += bytes;
    poke();
  }
  /// What the server has sent since the last call.
  std::string take() { return std::exchange(outgoing_, {}); }
  /// From now on what the server sends is only counted.
  void discard() { discarding_ = true; }
  [[nodiscard]] uint64_t bytes_from_server() const { return total_; }
  /// Nothing more comes; what was sent is still read.
  void finish_sending() {
    finished_ = true;
    poke();
  }
  /// Both directions are given up, as when a kernel shuts its socket down.
  void hang_up() {
    hung_up_ = true;
    poke();
  }
  /// At most so many bytes come with one receive.
  void set_receive_max(size_t bytes) { receive_max_ = bytes; }
  /// At most so many bytes leave with one send.
  void set_send_max(size_t bytes) { send_max_ = bytes; }
  /// The client takes so many more bytes, then the connection is full.
  void set_room(size_t bytes) {
    room_ = bytes;
    poke();
  }
  /// Bytes sent that the session has not received.
  [[nodiscard]] size_t unread() const { return incoming_.size() - received_; }
  [[nodiscard]] bool closed_by_server() const { return closed_; }
  [[nodiscard]] bool gone() const { return hung_up_ || finished_; }

 private:
  friend class WireTransport;
  struct Ready final : Work {
    Ready() {
      run = [](Work& work) { static_cast<Ready&>(work).wire->tell(); };
    }
    Wire* wire = nullptr;
  };

  [[nodiscard]] bool readable() const {
    return want_readable_ && (unread() > 0 || finished_ || hung_up_);
  }
  [[nodiscard]] bool writable() const { return want_writable_ && (room_ > 0 || hung_up_); }

  void poke() {
    if (user_ == nullptr || posted_ || !(readable() || writable() || hung_up_)) return;
    posted_ = true;
    loop_.post(ready_);
  }

  /// As SocketTransport::on_events().
  void tell() {
    posted_ = false;
    if (user_ == nullptr) return;
    const bool may_write = writable();
    if (readable()) {
      user_->on_readable();
    } else if (hung_up_) {
      user_->on_hang_up();
      return;
    }
    if (user_ != nullptr && may_write && want_writable_) user_->on_writable();
    poke();
  }

  Loop& loop_;
  Ready ready_;
  bool posted_ = false;
  TransportUser* user_ = nullptr;
  bool want_readable_ = true;
  bool want_writable_ = false;

  std::string incoming_;
  size_t received_ = 0;
  std::string outgoing_;
  uint64_t total_ = 0;
  bool discarding_ = false;
  size_t receive_max_ = kNoLimit;
  size_t send_max_ = kNoLimit;
  size_t room_ = kNoLimit;
  bool finished_ = false;
  bool hung_up_ = false;
  bool closed_ = false;
};

class WireTransport final : public Transport {
 public:
  explicit WireTransport(Wire& wire) : wire_(wire) {}
  ~WireTransport() override { close(); }

  Result<void> open(TransportUser& user) override {
    wire_.user_ = &user;
    wire_.poke();
    return {};
  }

  int64_t receive(std::span<iovec> buffers) override {
    size_t left = std::min(wire_.unread(), wire_.receive_max_);
    if (left == 0) return wire_.gone() ? kClosed : kWouldBlock;
    const size_t before = wire_.received_;
    for (const iovec& buffer : buffers) {
      const size_t part = std::min(left, buffer.iov_len);
      std::memcpy(buffer.iov_base, wire_.incoming_.data() + wire_.received_, part);
      wire_.received_ += part;
      left -= part;
    }
    const size_t received = wire_.received_ - before;
    if (wire_.unread() == 0) {
      wire_.incoming_.clear();
      wire_.received_ = 0;
    }
    return static_cast<int64_t>(received);
  }

  int64_t send(std::span<iovec> buffers) override {
    if (wire_.hung_up_ || wire_.closed_) return kClosed;
    if (wire_.room_ == 0) return kWouldBlock;
    size_t left = std::min(wire_.room_, wire_.send_max_);
    size_t sent = 0;
    for (const iovec& buffer : buffers) {
      const size_t part = std::min(left, buffer.iov_len);
      if (!wire_.discarding_) {
        wire_.outgoing_.append(static_cast<const char*>(buffer.iov_base), part);
      }
      left -= part;
      sent += part;
    }
    wire_.total_ += sent;
    if (wire_.room_ != Wire::kNoLimit) wire_.room_ -= sent;
    return static_cast<int64_t>(sent);
  }

  void want(bool readable, bool writable) override {
    wire_.want_readable_ = readable;
    wire_.want_writable_ = writable;
    wire_.poke();
  }

  bool is_hung_up() override { return wire_.hung_up_; }

  void close() override {
    if (std::exchange(wire_.closed_, true)) return;
    wire_.user_ = nullptr;
  }

 private:
  Wire& wire_;
};

}  // namespace usbd::nbd

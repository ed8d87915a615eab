// SPDX-License-Identifier: Apache-2.0
//
// Sending and receiving. What a reply may hold is checked in nbd_client_replies.cc.

#include "client/nbd_client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <fmt/core.h>

#include "base/random.h"

namespace usbd::testing {
namespace {

constexpr size_t kIovecsMax = 64;

}  // namespace

Result<std::unique_ptr<NbdClient>> NbdClient::connect(const NbdAddress& address,
                                                      const NbdWishes& wishes,
                                                      std::chrono::milliseconds timeout) {
  USBD_TRY(const int fd, connect_socket(address));
  NbdSocket socket(fd, timeout);
  NbdHandshake handshake(socket);
  USBD_TRY_VOID(handshake.greet(wishes.no_zeroes));
  USBD_TRY(NbdAgreement agreement, handshake.negotiate(wishes));
  return std::make_unique<NbdClient>(std::move(socket), std::move(agreement));
}

void NbdClient::submit(NbdCall& call) {
  // Not in sequence: a server that makes up cookies is found out.
  const uint64_t cookie = mix64(++calls_made_);
  calls_.emplace(cookie, &call);
  Outgoing& out = outgoing_.emplace_back();
  out.header.flags = call.flags;
  out.header.type = call.command;
  out.header.cookie = cookie;
  out.header.offset = call.offset;
  out.header.length = call.length;
  out.payload = call.payload;
}

Result<void> NbdClient::send_some() {
  std::array<iovec, kIovecsMax> parts{};
  size_t count = 0;
  for (const Outgoing& out : outgoing_) {
    if (count + 2 > parts.size()) break;
    const Bytes header = wire_bytes(out.header);
    const size_t header_sent = std::min(out.sent, header.size());
    const Bytes rests[2] = {header.subspan(header_sent),
                            out.payload.subspan(out.sent - header_sent)};
    for (const Bytes rest : rests) {
      if (rest.empty()) continue;
      parts[count++] = {const_cast<std::byte*>(rest.data()), rest.size()};
    }
  }
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = count;
  const ssize_t sent = ::sendmsg(socket_.fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0) {
    if (errno == EAGAIN || errno == EINTR) return {};
    return Error::from_errno(errno, "sending to the server");
  }
  for (auto left = static_cast<size_t>(sent); left > 0;) {
    Outgoing& first = outgoing_.front();
    const size_t rest = sizeof first.header + first.payload.size() - first.sent;
    const size_t taken = std::min(left, rest);
    first.sent += taken;
    left -= taken;
    if (taken == rest) outgoing_.pop_front();
  }
  return {};
}

Result<void> NbdClient::receive_some() {
  // Large data goes straight to where it belongs.
  const bool direct = phase_ != Phase::kHeader && parsed_ == filled_;
  if (parsed_ > 0) {
    std::memmove(receive_buffer_.data(), receive_buffer_.data() + parsed_, filled_ - parsed_);
    filled_ -= parsed_;
    parsed_ = 0;
  }
  const MutableBytes into =
      direct ? target_.subspan(target_filled_) : MutableBytes(receive_buffer_).subspan(filled_);
  const ssize_t got = ::recv(socket_.fd(), into.data(), into.size(), MSG_DONTWAIT);
  if (got == 0) return Error(Errc::kShutdown, "the server closed the connection");
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return {};
    return Error::from_errno(errno, "receiving from the server");
  }
  (direct ? target_filled_ : filled_) += static_cast<size_t>(got);
  return parse();
}

Result<void> NbdClient::parse() {
  for (;;) {
    if (phase_ == Phase::kHeader) {
      USBD_TRY(const bool parsed, parse_header());
      if (!parsed) return {};
      continue;
    }
    const size_t part = std::min(target_.size() - target_filled_, filled_ - parsed_);
    if (part > 0) {
      std::memcpy(target_.data() + target_filled_, receive_buffer_.data() + parsed_, part);
    }
    target_filled_ += part;
    parsed_ += part;
    if (target_filled_ < target_.size()) return {};
    USBD_TRY_VOID(end_phase());
  }
}

Result<void> NbdClient::finish(std::span<const std::unique_ptr<NbdClient>> clients) {
  std::vector<pollfd> pollers(clients.size());
  for (;;) {
    bool busy = false;
    for (size_t i = 0; i < clients.size(); ++i) {
      const NbdClient& client = *clients[i];
      const bool waits = !client.calls_.empty();
      busy |= waits;
      const int events = waits ? (client.wants_to_send() ? POLLIN | POLLOUT : POLLIN) : 0;
      pollers[i] = {.fd = client.socket_.fd(), .events = static_cast<short>(events), .revents = 0};
    }
    if (!busy) return {};
    const auto timeout = clients[0]->socket_.timeout();
    const int ready = ::poll(pollers.data(), pollers.size(), static_cast<int>(timeout.count()));
    if (ready == 0) return Error(Errc::kTimedOut, "the server does not answer");
    if (ready < 0 && errno != EINTR) return Error::from_errno(errno, "poll");
    for (size_t i = 0; i < clients.size(); ++i) {
      if ((pollers[i].revents & POLLOUT) != 0) USBD_TRY_VOID(clients[i]->send_some());
      if ((pollers[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
        USBD_TRY_VOID(clients[i]->receive_some());
      }
    }
  }
}

Result<void> NbdClient::finish() {
  while (!calls_.empty()) {
    const int events = wants_to_send() ? POLLIN | POLLOUT : POLLIN;
    pollfd poller{.fd = socket_.fd(), .events = static_cast<short>(events), .revents = 0};
    const int ready = ::poll(&poller, 1, static_cast<int>(socket_.timeout().count()));
    if (ready == 0) return Error(Errc::kTimedOut, "the server does not answer");
    if (ready < 0 && errno != EINTR) return Error::from_errno(errno, "poll");
    if ((poller.revents & POLLOUT) != 0) USBD_TRY_VOID(send_some());
    if ((poller.revents & (POLLIN | POLLHUP | POLLERR)) != 0) USBD_TRY_VOID(receive_some());
  }
  return {};
}

Result<void> NbdClient::perform(NbdCall& call) {
  submit(call);
  return finish();
}

Result<void> NbdClient::disconnect() {
  wire::Request request;
  request.type = wire::kCmdDisconnect;
  USBD_TRY_VOID(socket_.send_struct(request));
  std::array<std::byte, 1> more{};
  const Result<void> end = socket_.receive(more);
  if (end) return Error(Errc::kInvalid, "the server answered NBD_CMD_DISC");
  return end.error().is(Errc::kShutdown) ? Result<void>() : end;
}

}  // namespace usbd::testing

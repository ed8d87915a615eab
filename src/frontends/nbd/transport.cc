// SPDX-License-Identifier: Apache-2.0
//
// Sockets, by plain non-blocking calls.

#include "frontends/nbd/transport.h"

#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace usbd::nbd {
namespace {

int64_t result_of(ssize_t moved) {
  if (moved > 0) return moved;
  if (moved < 0 && (errno == EAGAIN || errno == EINTR)) return Transport::kWouldBlock;
  return Transport::kClosed;
}

msghdr message(std::span<iovec> buffers) {
  msghdr header{};
  header.msg_iov = buffers.data();
  header.msg_iovlen = buffers.size();
  return header;
}

}  // namespace

Result<void> SocketTransport::open(TransportUser& user) {
  const int flags = fcntl(fd_, F_GETFL);
  if (flags < 0 || fcntl(fd_, F_SETFL, flags | O_NONBLOCK) != 0) {
    return Error::from_errno(errno, "cannot make a connection non-blocking");
  }
  user_ = &user;
  wanted_ = EPOLLIN;
  return loop_.watch(fd_, wanted_, *this);
}

int64_t SocketTransport::receive(std::span<iovec> buffers) {
  msghdr header = message(buffers);
  return result_of(recvmsg(fd_, &header, 0));
}

int64_t SocketTransport::send(std::span<iovec> buffers) {
  const msghdr header = message(buffers);
  return result_of(sendmsg(fd_, &header, MSG_NOSIGNAL));
}

void SocketTransport::want(bool readable, bool writable) {
  const uint32_t events = (readable ? EPOLLIN : 0U) | (writable ? EPOLLOUT : 0U);
  if (fd_ < 0 || events == wanted_) return;
  wanted_ = events;
  loop_.rewatch(fd_, events, *this);
}

bool SocketTransport::is_hung_up() {
  pollfd state{.fd = fd_, .events = 0, .revents = 0};
  return fd_ < 0 || (::poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR)) != 0);
}

void SocketTransport::close() {
  if (fd_ < 0) return;
  if (user_ != nullptr) loop_.unwatch(fd_, *this);
  ::close(fd_);
  fd_ = -1;
}

void SocketTransport::on_events(uint32_t events) {
  // What arrived before a hang-up is still read: a client may send and close at once.
  if ((events & EPOLLIN & wanted_) != 0) {
    user_->on_readable();
  } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    user_->on_hang_up();
    return;
  }
  if (fd_ >= 0 && (events & EPOLLOUT & wanted_) != 0) user_->on_writable();
}

}  // namespace usbd::nbd

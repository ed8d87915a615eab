// SPDX-License-Identifier: Apache-2.0
//
// Blocking transfers by poll() and non-blocking calls, so that a silent server is an error and not
// a test that hangs.

#include "client/nbd_socket.h"

#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

namespace usbd::testing {

Result<void> NbdSocket::wait(short events) {
  pollfd poller{.fd = fd_.get(), .events = events, .revents = 0};
  for (;;) {
    const int ready = ::poll(&poller, 1, static_cast<int>(timeout_.count()));
    if (ready > 0) return {};
    if (ready == 0) return Error(Errc::kTimedOut, "the server does not answer");
    if (errno != EINTR) return Error::from_errno(errno, "poll");
  }
}

Result<void> NbdSocket::send(Bytes data) {
  while (!data.empty()) {
    const ssize_t sent = ::send(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      data = data.subspan(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      USBD_TRY_VOID(wait(POLLOUT));
    } else if (errno != EINTR) {
      return Error::from_errno(errno, "sending to the server");
    }
  }
  return {};
}

Result<void> NbdSocket::receive(MutableBytes data) {
  while (!data.empty()) {
    const ssize_t got = ::recv(fd_.get(), data.data(), data.size(), MSG_DONTWAIT);
    if (got > 0) {
      data = data.subspan(static_cast<size_t>(got));
    } else if (got == 0) {
      return Error(Errc::kShutdown, "the server closed the connection");
    } else if (errno == EAGAIN) {
      USBD_TRY_VOID(wait(POLLIN));
    } else if (errno != EINTR) {
      return Error::from_errno(errno, "receiving from the server");
    }
  }
  return {};
}

}  // namespace usbd::testing

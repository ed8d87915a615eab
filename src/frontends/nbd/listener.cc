// SPDX-License-Identifier: Apache-2.0
//
// accept(2) and its errors.

#include "frontends/nbd/listener.h"

#include <cerrno>
#include <chrono>
#include <cstring>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"

namespace usbd::nbd {
namespace {

void set_option(int fd, int level, int option, int64_t given) {
  const auto value = static_cast<int>(given);
  // None of them is needed for correctness, so a refusal is no reason to turn the client away.
  (void)::setsockopt(fd, level, option, &value, sizeof(value));
}

void tune_tcp(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, limits::kTcpKeepIdle.count());
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, limits::kTcpKeepInterval.count());
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, limits::kTcpKeepProbes);
}

std::string unix_peer(int fd) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return "a local client";
  return fmt::format("process {} of user {}", credentials.pid, credentials.uid);
}

std::string tcp_peer(const sockaddr* address, socklen_t size) {
  char host[NI_MAXHOST] = "?";
  char port[NI_MAXSERV] = "?";
  ::getnameinfo(address, size, host, sizeof(host), port, sizeof(port),
                NI_NUMERICHOST | NI_NUMERICSERV);
  return std::strchr(host, ':') != nullptr ? fmt::format("[{}]:{}", host, port)
                                           : fmt::format("{}:{}", host, port);
}

/// The connection failed before it was taken; the next one may be sound. Ref: accept(2), "Error
/// handling".
bool concerns_one_connection(int number) {
  switch (number) {
    case EINTR:
    case ECONNABORTED:
    case EPERM:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
      return true;
    default:
      return false;
  }
}

}  // namespace

Listener::Listener(EventLoop& loop, ListeningSocket socket, ConnectionSink& sink)
    : loop_(loop), socket_(std::move(socket)), sink_(sink) {
  retry_.listener = this;
  retry_.run = [](Work& work) { static_cast<Retry&>(work).listener->resume(); };
  timer_.work = &retry_;
}

Listener::~Listener() {
  USBD_ASSERT(!started_ || stopped_);
}

Result<void> Listener::start() {
  USBD_ASSERT(!started_);
  USBD_TRY_VOID(loop_.watch(socket_.fd(), EPOLLIN, *this));
  started_ = true;
  watching_ = true;
  return {};
}

void Listener::stop() {
  if (stopped_) return;
  stopped_ = true;
  if (watching_) loop_.unwatch(socket_.fd(), *this);
  if (started_ && !watching_) loop_.disarm(timer_);
  watching_ = false;
  socket_.close();
}

void Listener::on_events(uint32_t) {
  for (int i = 0; i < limits::kAcceptsPerRound && watching_ && accept_one(); ++i) {
  }
}

bool Listener::accept_one() {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  auto* const plain = reinterpret_cast<sockaddr*>(&address);
  UniqueFd fd(::accept4(socket_.fd(), plain, &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
    if (concerns_one_connection(errno)) return true;
    pause(errno);
    return false;
  }
  std::string peer;
  if (socket_.endpoint().kind == Endpoint::Kind::kTcp) {
    tune_tcp(fd.get());
    peer = tcp_peer(plain, size);
  } else {
    peer = unix_peer(fd.get());
  }
  sink_.on_connection(std::move(fd), std::move(peer));
  return true;
}

void Listener::pause(int number) {
  const Nanos now = loop_.now();
  if (uint64_t held_back = 0; limiter_.allow(now, held_back)) {
    log::warning("{}: cannot take connections: {} ({} such lines held back)",
                 to_text(socket_.endpoint()), std::strerror(number), held_back);
  }
  loop_.unwatch(socket_.fd(), *this);
  watching_ = false;
  timer_.deadline = now + limits::kAcceptPause;
  loop_.arm(timer_);
}

void Listener::resume() {
  // stop() may have come between the timer and this.
  if (stopped_) return;
  const Result<void> watched = loop_.watch(socket_.fd(), EPOLLIN, *this);
  if (watched) {
    watching_ = true;
  } else {
    timer_.deadline = loop_.now() + limits::kAcceptPause;
    loop_.arm(timer_);
  }
}

}  // namespace usbd::nbd

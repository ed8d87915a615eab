// SPDX-License-Identifier: Apache-2.0
//
// See socket.h.

#include "bench/socket.h"

#include <charconv>
#include <cstring>
#include <memory>
#include <string_view>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

namespace usbd::bench {
namespace {

constexpr int kBacklog = 1024;

Error last_error(const std::string& what) {
  return Error::from_errno(errno, what);
}

Result<Socket> open_socket(int family) {
  Socket made(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (made.fd() < 0) return last_error("cannot make a socket");
  return made;
}

Result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return Error(Errc::kInvalid, "the socket path \"" + path + "\" has " +
                                     std::to_string(path.size()) + " bytes; at most " +
                                     std::to_string(sizeof(address.sun_path) - 1) + " fit");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

struct HostPort {
  std::string host;
  std::string port;
};

Result<HostPort> split_host_port(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon + 1 == text.size()) {
    return Error(Errc::kInvalid, "\"" + text + "\" is not HOST:PORT");
  }
  return HostPort{.host = text.substr(0, colon), .port = text.substr(colon + 1)};
}

Result<void> set_option(const Socket& socket, int level, int option, int value) {
  if (::setsockopt(socket.fd(), level, option, &value, sizeof(value)) != 0) {
    return last_error("setsockopt");
  }
  return {};
}

Result<Socket> connect_unix(const std::string& path) {
  USBD_TRY(const sockaddr_un address, unix_address(path));
  USBD_TRY(Socket socket, open_socket(AF_UNIX));
  if (::connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return last_error("cannot connect to " + path);
  }
  return socket;
}

Result<Socket> connect_tcp(const std::string& text) {
  USBD_TRY(const HostPort target, split_host_port(text));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &found);
  if (failed != 0) {
    return Error(Errc::kNotFound, "cannot resolve " + text + " (" + ::gai_strerror(failed) + ")");
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
  USBD_TRY(Socket socket, open_socket(found->ai_family));
  if (::connect(socket.fd(), found->ai_addr, found->ai_addrlen) != 0) {
    return last_error("cannot connect to " + text);
  }
  USBD_TRY_VOID(set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1));
  return socket;
}

Result<Socket> listen_unix(const std::string& path) {
  USBD_TRY(const sockaddr_un address, unix_address(path));
  USBD_TRY(Socket socket, open_socket(AF_UNIX));
  ::unlink(path.c_str());
  if (::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(socket.fd(), kBacklog) != 0) {
    return last_error("cannot listen on " + path);
  }
  return socket;
}

Result<Socket> listen_tcp(const std::string& text) {
  USBD_TRY(const HostPort target, split_host_port(text));
  uint16_t port = 0;
  const char* const end = target.port.data() + target.port.size();
  if (std::from_chars(target.port.data(), end, port).ptr != end) {
    return Error(Errc::kInvalid, "\"" + target.port + "\" is not a port");
  }
  USBD_TRY(Socket socket, open_socket(AF_INET));
  USBD_TRY_VOID(set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(socket.fd(), kBacklog) != 0) {
    return last_error("cannot listen on port " + target.port + " of 127.0.0.1");
  }
  return socket;
}

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

Result<Socket> connect_to(const Endpoint& endpoint) {
  return endpoint.unix_path.empty() ? connect_tcp(endpoint.tcp) : connect_unix(endpoint.unix_path);
}

Result<Socket> listen_on(const Endpoint& endpoint) {
  return endpoint.unix_path.empty() ? listen_tcp(endpoint.tcp) : listen_unix(endpoint.unix_path);
}

Result<Socket> accept_from(const Socket& listener) {
  Socket client(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  if (client.fd() < 0) return last_error("cannot accept a connection");
  const int one = 1;  // Fails on a unix socket, which has no such delay.
  ::setsockopt(client.fd(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  return client;
}

Result<void> set_buffer_size(const Socket& socket, uint64_t bytes) {
  if (bytes == 0) return {};
  USBD_TRY_VOID(set_option(socket, SOL_SOCKET, SO_SNDBUF, static_cast<int>(bytes)));
  return set_option(socket, SOL_SOCKET, SO_RCVBUF, static_cast<int>(bytes));
}

Result<void> set_receive_timeout(const Socket& socket, uint64_t seconds) {
  timeval limit{};
  limit.tv_sec = static_cast<time_t>(seconds);
  if (::setsockopt(socket.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0) {
    return last_error("setsockopt SO_RCVTIMEO");
  }
  return {};
}

Result<void> read_exactly(const Socket& socket, MutableBytes data) {
  while (!data.empty()) {
    const ssize_t got = ::recv(socket.fd(), data.data(), data.size(), MSG_WAITALL);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return last_error("cannot receive");
    if (got == 0) return Error(Errc::kIo, "the other side closed the connection");
    data = data.subspan(static_cast<size_t>(got));
  }
  return {};
}

Result<void> write_exactly(const Socket& socket, Bytes data) {
  while (!data.empty()) {
    const ssize_t sent = ::send(socket.fd(), data.data(), data.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return last_error("cannot send");
    data = data.subspan(static_cast<size_t>(sent));
  }
  return {};
}

}  // namespace usbd::bench

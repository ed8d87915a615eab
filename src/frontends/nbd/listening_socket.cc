// SPDX-License-Identifier: Apache-2.0
//
// Binding of unix and TCP sockets.

#include "frontends/nbd/listening_socket.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fmt/format.h>

#include "base/limits.h"

namespace usbd::nbd {
namespace {

constexpr mode_t kSocketMode = 0600;

Error failed(const Endpoint& endpoint, std::string_view what, int number) {
  return Error::from_errno(number, fmt::format("{}: {}", to_text(endpoint), what));
}

Error refused(const Endpoint& endpoint, Errc code, std::string_view why) {
  return Error(code, fmt::format("{}: {}", to_text(endpoint), why));
}

UniqueFd new_socket(int family) {
  return UniqueFd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

// ---- Unix sockets ----

struct UnixAddress {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
  static constexpr socklen_t kSize = sizeof(sockaddr_un);
};

Result<UnixAddress> unix_address(const Endpoint& endpoint) {
  UnixAddress out;
  if (endpoint.path.size() >= sizeof(out.address.sun_path)) {
    return refused(
        endpoint, Errc::kInvalid,
        fmt::format("the path has {} bytes and a unix socket's may have {}; take a shorter "
                    "one, or one relative to the working folder",
                    endpoint.path.size(), sizeof(out.address.sun_path) - 1));
  }
  std::memcpy(out.address.sun_path, endpoint.path.data(), endpoint.path.size());
  return out;
}

/// Holds servers apart that start at one time in one folder, so that none removes the socket that
/// another has just made. If the lock cannot be had the work goes on: somebody may hold it for
/// other reasons.
UniqueFd lock_folder_of(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) folder = ".";
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int i = 0; fd && i < limits::kFolderLockTries && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0;
       ++i) {
    ::poll(nullptr, 0, static_cast<int>(limits::kFolderLockPause.count()));
  }
  return fd;
}

/// Makes room at the path: removes a socket that nobody answers at.
Result<void> remove_stale(const Endpoint& endpoint, const UnixAddress& address) {
  struct stat status{};
  if (::lstat(endpoint.path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return failed(endpoint, "the socket cannot be made there", errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return refused(endpoint, Errc::kExists,
                   "something that is no socket is there; take another path or remove it");
  }
  const UniqueFd probe = new_socket(AF_UNIX);
  if (!probe) return failed(endpoint, "no socket could be made", errno);
  // A full queue (EAGAIN) is a live server too.
  if (::connect(probe.get(), address.get(), UnixAddress::kSize) == 0 || errno == EAGAIN) {
    return refused(endpoint, Errc::kBusy,
                   "a server is already answering there; stop it or take another path");
  }
  if (errno != ECONNREFUSED) {
    return failed(endpoint, "whether a server is alive there cannot be told", errno);
  }
  if (::unlink(endpoint.path.c_str()) != 0 && errno != ENOENT) {
    return failed(endpoint, "the socket of a server that is gone cannot be removed", errno);
  }
  return {};
}

/// Gives the new file its mode if the umask has taken bits away. Bound to the file, not to its
/// name: whatever may be at the path by now is left alone unless it is a socket.
Result<struct stat> settle_mode(const Endpoint& endpoint) {
  const UniqueFd file(::open(endpoint.path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat status{};
  if (!file || ::fstat(file.get(), &status) != 0) {
    return failed(endpoint, "the socket that was made is gone", errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return refused(endpoint, Errc::kExists, "the socket that was made has been replaced");
  }
  if ((status.st_mode & 07777) != kSocketMode &&
      ::chmod(fmt::format("/proc/self/fd/{}", file.get()).c_str(), kSocketMode) != 0) {
    return failed(endpoint, "the socket's mode cannot be set to 0600", errno);
  }
  return status;
}

Result<ListeningSocket> listen_unix(const Endpoint& endpoint) {
  USBD_TRY(const UnixAddress address, unix_address(endpoint));
  const UniqueFd folder_lock = lock_folder_of(endpoint.path);
  USBD_TRY_VOID(remove_stale(endpoint, address));
  UniqueFd fd = new_socket(AF_UNIX);
  if (!fd) return failed(endpoint, "no socket could be made", errno);
  // The file gets the mode that the socket has when it is bound, less the umask: never more.
  if (::fchmod(fd.get(), kSocketMode) != 0) {
    return failed(endpoint, "the socket's mode cannot be set to 0600", errno);
  }
  if (::bind(fd.get(), address.get(), UnixAddress::kSize) != 0) {
    return failed(endpoint, "the socket cannot be made there", errno);
  }
  USBD_TRY(const struct stat status, settle_mode(endpoint));
  if (::listen(fd.get(), SOMAXCONN) != 0)
    return failed(endpoint, "the socket cannot listen", errno);
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(endpoint.path, error);
  Endpoint real = endpoint;
  if (!error) real.path = absolute.lexically_normal();
  return ListeningSocket(std::move(fd), std::move(real), status.st_dev, status.st_ino);
}

// ---- TCP ----

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<AddressList> resolve(const Endpoint& endpoint) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int result =
      ::getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &list);
  if (result != 0) {
    return refused(
        endpoint, Errc::kNotFound,
        fmt::format("the host cannot be resolved ({})",
                    result == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(result)));
  }
  return AddressList(list, &::freeaddrinfo);
}

bool is_loopback(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  if (address.sa_family != AF_INET6) return false;
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

std::string address_text(const sockaddr* address, socklen_t size) {
  char host[NI_MAXHOST] = "?";
  ::getnameinfo(address, size, host, sizeof(host), nullptr, 0, NI_NUMERICHOST);
  return host;
}

Result<void> check_loopback(const Endpoint& endpoint, const addrinfo* list) {
  for (const addrinfo* at = list; at != nullptr; at = at->ai_next) {
    if (is_loopback(*at->ai_addr)) continue;
    return refused(
        endpoint, Errc::kAccess,
        fmt::format("{} is not a loopback address, and whoever reaches it could read and "
                    "write everything, since there is no TLS; listen at 127.0.0.1 or on a "
                    "unix socket, or allow it with -insecure-tcp",
                    address_text(at->ai_addr, at->ai_addrlen)));
  }
  return {};
}

uint16_t port_of(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

void set_port(sockaddr_storage& address, uint16_t port) {
  if (address.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(address).sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in&>(address).sin_port = htons(port);
  }
}

/// Listens at one address of the endpoint. Errors: as bare errno values.
Result<ListeningSocket> listen_tcp_address(const Endpoint& endpoint, const addrinfo& info,
                                           uint16_t port) {
  UniqueFd fd = new_socket(info.ai_family);
  if (!fd) return Error::from_errno(errno);
  const int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (info.ai_family == AF_INET6) {
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
  }
  sockaddr_storage address{};
  std::memcpy(&address, info.ai_addr, info.ai_addrlen);
  set_port(address, port);
  socklen_t size = info.ai_addrlen;
  auto* const plain = reinterpret_cast<sockaddr*>(&address);
  if (::bind(fd.get(), plain, size) != 0 || ::listen(fd.get(), SOMAXCONN) != 0 ||
      ::getsockname(fd.get(), plain, &size) != 0) {
    return Error::from_errno(errno);
  }
  Endpoint real = endpoint;
  real.host = address_text(plain, size);
  real.port = port_of(address);
  return ListeningSocket(std::move(fd), std::move(real));
}

/// An address whose family this machine has not; a host's other addresses will do.
bool is_missing_family(const Error& error) {
  return error.number() == EAFNOSUPPORT || error.number() == EADDRNOTAVAIL;
}

/// Listens at all addresses, all with the port of the first.
Result<std::vector<ListeningSocket>> listen_tcp_once(const Endpoint& endpoint,
                                                     const addrinfo* list) {
  std::vector<ListeningSocket> sockets;
  uint16_t port = endpoint.port;
  std::optional<Error> skipped;
  for (const addrinfo* at = list; at != nullptr; at = at->ai_next) {
    Result<ListeningSocket> socket = listen_tcp_address(endpoint, *at, port);
    if (socket) {
      port = socket->endpoint().port;
      sockets.push_back(*std::move(socket));
    } else if (is_missing_family(socket.error())) {
      skipped = socket.error();
    } else {
      return failed(endpoint,
                    fmt::format("cannot listen at {} port {}",
                                address_text(at->ai_addr, at->ai_addrlen), port),
                    socket.error().number());
    }
  }
  if (sockets.empty() && skipped) {
    return failed(endpoint, "the host has no address of this machine", skipped->number());
  }
  return sockets;
}

Result<std::vector<ListeningSocket>> listen_tcp(const Endpoint& endpoint, ListenOptions options) {
  USBD_TRY(const AddressList list, resolve(endpoint));
  if (!options.insecure_tcp) USBD_TRY_VOID(check_loopback(endpoint, list.get()));
  auto sockets = listen_tcp_once(endpoint, list.get());
  // A port that was free at the first address may be taken at the second.
  for (int i = 1; endpoint.port == 0 && i < limits::kSharedPortTries && !sockets &&
                  sockets.error().number() == EADDRINUSE;
       ++i) {
    sockets = listen_tcp_once(endpoint, list.get());
  }
  return sockets;
}

}  // namespace

ListeningSocket::ListeningSocket(ListeningSocket&& other) noexcept
    : fd_(std::move(other.fd_)),
      endpoint_(std::move(other.endpoint_)),
      owns_file_(std::exchange(other.owns_file_, false)),
      device_(other.device_),
      inode_(other.inode_) {}

void ListeningSocket::close() {
  if (std::exchange(owns_file_, false)) {
    struct stat status{};
    if (::lstat(endpoint_.path.c_str(), &status) == 0 && status.st_dev == device_ &&
        status.st_ino == inode_) {
      ::unlink(endpoint_.path.c_str());
    }
  }
  fd_.reset();
}

Result<std::vector<ListeningSocket>> listen_at(const Endpoint& endpoint, ListenOptions options) {
  if (endpoint.kind == Endpoint::Kind::kTcp) return listen_tcp(endpoint, options);
  USBD_TRY(ListeningSocket socket, listen_unix(endpoint));
  std::vector<ListeningSocket> sockets;
  sockets.push_back(std::move(socket));
  return sockets;
}

}  // namespace usbd::nbd

// SPDX-License-Identifier: Apache-2.0
//
// Reading addresses and connecting to them.

#include "client/nbd_address.h"

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/core.h>

#include "base/unique_fd.h"

namespace usbd::testing {
namespace {

std::string percent_decoded(const std::string& text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_code = text[i] == '%' && i + 2 < text.size() &&
                         std::isxdigit(static_cast<unsigned char>(text[i + 1])) != 0 &&
                         std::isxdigit(static_cast<unsigned char>(text[i + 2])) != 0;
    if (is_code) {
      decoded.push_back(
          static_cast<char>(std::strtoul(text.substr(i + 1, 2).c_str(), nullptr, 16)));
      i += 2;
    } else {
      decoded.push_back(text[i]);
    }
  }
  return decoded;
}

/// The path of a URI is the export's name, behind one slash.
std::string export_of(const std::string& path) {
  return percent_decoded(path.starts_with('/') ? path.substr(1) : path);
}

Result<NbdAddress> parse_unix(const std::string& rest, const std::string& text) {
  const size_t query = rest.find('?');
  const size_t socket = rest.find("socket=", query == std::string::npos ? rest.size() : query);
  if (socket == std::string::npos) {
    return Error(Errc::kInvalid, fmt::format("\"{}\" has no ?socket=PATH", text));
  }
  NbdAddress address;
  const size_t begin = socket + std::strlen("socket=");
  address.socket_path = percent_decoded(rest.substr(begin, rest.find('&', begin) - begin));
  address.export_name = export_of(rest.substr(0, query));
  return address;
}

Result<NbdAddress> parse_tcp(const std::string& rest, const std::string& text) {
  NbdAddress address;
  const size_t slash = rest.find('/');
  std::string authority = rest.substr(0, slash);
  if (slash != std::string::npos) address.export_name = export_of(rest.substr(slash));
  const size_t bracket = authority.find(']');
  const size_t colon = authority.find(':', bracket == std::string::npos ? 0 : bracket);
  if (colon != std::string::npos) address.port = authority.substr(colon + 1);
  authority = authority.substr(0, colon);
  const bool is_ipv6 = authority.starts_with('[') && authority.ends_with(']');
  address.host = is_ipv6 ? authority.substr(1, authority.size() - 2) : authority;
  if (address.host.empty()) return Error(Errc::kInvalid, fmt::format("\"{}\" has no host", text));
  return address;
}

Result<int> connect_unix(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) {
    return Error(Errc::kInvalid, fmt::format("the socket path \"{}\" is too long", path));
  }
  std::memcpy(name.sun_path, path.c_str(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
    return Error::from_errno(errno, fmt::format("cannot connect to \"{}\"", path));
  }
  return fd.release();
}

Result<int> connect_tcp(const NbdAddress& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
  if (code != 0) {
    return Error(Errc::kNotFound,
                 fmt::format("{}:{}: {}", address.host, address.port, ::gai_strerror(code)));
  }
  int error = ENOENT;
  UniqueFd fd;
  for (const addrinfo* at = found; at != nullptr && error != 0; at = at->ai_next) {
    fd.reset(::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol));
    error = fd && ::connect(fd.get(), at->ai_addr, at->ai_addrlen) == 0 ? 0 : errno;
  }
  ::freeaddrinfo(found);
  if (error == 0) return fd.release();
  return Error::from_errno(error,
                           fmt::format("cannot connect to {}:{}", address.host, address.port));
}

}  // namespace

Result<NbdAddress> NbdAddress::parse(const std::string& text) {
  const size_t scheme = text.find("://");
  if (scheme == std::string::npos) {
    if (text.empty()) return Error(Errc::kInvalid, "the address is empty");
    NbdAddress address;
    address.socket_path = text;
    return address;
  }
  const std::string name = text.substr(0, scheme);
  const std::string rest = text.substr(scheme + 3);
  if (name == "nbd+unix") return parse_unix(rest, text);
  if (name == "nbd") return parse_tcp(rest, text);
  return Error(Errc::kInvalid,
               fmt::format("\"{}\" is neither nbd://, nbd+unix:// nor the path of a socket", text));
}

Result<int> connect_socket(const NbdAddress& address) {
  return address.socket_path.empty() ? connect_tcp(address) : connect_unix(address.socket_path);
}

}  // namespace usbd::testing

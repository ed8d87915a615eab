// SPDX-License-Identifier: Apache-2.0
//
// Parsing of endpoints and percent-encoding of URIs.

#include "frontends/nbd/uri.h"

#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "frontends/nbd/text.h"

namespace usbd::nbd {
namespace {

/// Encodes all but RFC 3986's unreserved characters and `also`.
std::string percent_encode(std::string_view text, std::string_view also) {
  constexpr std::string_view kUnreserved =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string out;
  for (const char c : text) {
    if (kUnreserved.find(c) != std::string_view::npos || also.find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

bool is_ipv6(std::string_view host) {
  return host.find(':') != std::string_view::npos;
}

/// `host` as it stands in a URI. A zone's percent sign is encoded like any other (RFC 6874).
std::string uri_host(std::string_view host) {
  return is_ipv6(host) ? "[" + percent_encode(host, ":") + "]" : percent_encode(host, "");
}

std::optional<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, port);
  if (text.empty() || error != std::errc() || at != end) return std::nullopt;
  return port;
}

Error bad_endpoint(std::string_view text, std::string_view why) {
  return Error(Errc::kInvalid, fmt::format("{} is no place to listen at: {}", readable(text), why));
}

Result<Endpoint> parse_tcp(std::string_view text, std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) {
    return bad_endpoint(text, "the port is missing; write tcp:HOST:PORT");
  }
  std::string_view host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (is_ipv6(host)) {
    return bad_endpoint(text, "an IPv6 address needs brackets, as in tcp:[::1]:10809");
  }
  if (host.empty()) {
    return bad_endpoint(text, "the host is missing; write for instance tcp:127.0.0.1:10809");
  }
  const std::optional<uint16_t> port = parse_port(address.substr(colon + 1));
  if (!port) return bad_endpoint(text, "the port is a number from 0 (any free one) to 65535");
  return Endpoint{.kind = Endpoint::Kind::kTcp, .host = std::string(host), .port = *port};
}

}  // namespace

Result<Endpoint> parse_endpoint(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return bad_endpoint(text, "it contains a NUL");
  if (text.starts_with("tcp:")) return parse_tcp(text, text.substr(4));
  if (!text.starts_with("unix:")) {
    return bad_endpoint(text, "write unix:PATH or tcp:HOST:PORT");
  }
  const std::string_view path = text.substr(5);
  if (path.empty()) return bad_endpoint(text, "the socket's path is missing; write unix:PATH");
  return Endpoint{.kind = Endpoint::Kind::kUnix, .path = std::string(path)};
}

std::string to_text(const Endpoint& endpoint) {
  if (endpoint.kind == Endpoint::Kind::kUnix) return "unix:" + endpoint.path;
  return is_ipv6(endpoint.host) ? fmt::format("tcp:[{}]:{}", endpoint.host, endpoint.port)
                                : fmt::format("tcp:{}:{}", endpoint.host, endpoint.port);
}

std::string make_uri(const Endpoint& endpoint, std::string_view export_name) {
  const std::string name = percent_encode(export_name, "/");
  if (endpoint.kind == Endpoint::Kind::kUnix) {
    return fmt::format("nbd+unix:///{}?socket={}", name, percent_encode(endpoint.path, "/"));
  }
  return fmt::format("nbd://{}:{}/{}", uri_host(endpoint.host), endpoint.port, name);
}

}  // namespace usbd::nbd

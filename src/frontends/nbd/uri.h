// SPDX-License-Identifier: Apache-2.0
//
// Where an NBD server listens, as people write it and as clients are told it.
// Ref: NetworkBlockDevice/nbd, doc/uri.md; RFC 3986.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "usbd/result.h"

namespace usbd::nbd {

/// A place to listen at.
struct Endpoint {
  enum class Kind : uint8_t { kUnix, kTcp };

  Kind kind = Kind::kUnix;
  /// kUnix: the socket's path.
  std::string path = {};
  /// kTcp: a name or an address, without brackets.
  std::string host = {};
  /// kTcp; 0: any free one.
  uint16_t port = 0;

  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

/// Reads `unix:PATH` or `tcp:HOST:PORT` (`tcp:[ADDRESS]:PORT` for IPv6).
/// Errors: kInvalid; the context says what is wrong and what is allowed.
[[nodiscard]] Result<Endpoint> parse_endpoint(std::string_view text);

/// The way parse_endpoint() reads it.
[[nodiscard]] std::string to_text(const Endpoint& endpoint);

/// The URI by which a client reaches an export there, such as nbd+unix:///disk?socket=/run/x.sock.
/// Range: a kUnix path that is relative is only good for clients in the same folder.
[[nodiscard]] std::string make_uri(const Endpoint& endpoint, std::string_view export_name);

}  // namespace usbd::nbd

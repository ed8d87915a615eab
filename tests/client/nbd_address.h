// SPDX-License-Identifier: Apache-2.0
//
// Where an NBD server is: an NBD URI, or simply the path of a unix socket.
// Ref: NetworkBlockDevice/nbd, doc/uri.md.

#pragma once

#include <string>

#include "usbd/result.h"

namespace usbd::testing {

struct NbdAddress {
  /// Of a unix socket; empty: TCP.
  std::string socket_path;
  std::string host;
  std::string port = "10809";
  std::string export_name;

  /// Reads `nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH` or `PATH`.
  /// Errors: kInvalid; the context says what is wrong. TLS (nbds) is not supported.
  static Result<NbdAddress> parse(const std::string& text);
};

/// A connected stream socket. Errors: what the system said, with the address.
Result<int> connect_socket(const NbdAddress& address);

}  // namespace usbd::testing

// SPDX-License-Identifier: Apache-2.0
//
// The client's half of the NBD handshake (fixed newstyle, NBD_OPT_GO), enough for the load
// generator. It blocks; only what follows it is measured.

#pragma once

#include <cstdint>
#include <string>

#include "bench/socket.h"
#include "usbd/result.h"

namespace usbd::bench {

/// What the server says of an export.
struct ExportInfo {
  /// Units: bytes.
  uint64_t size = 0;
  /// Ref: NBD protocol, transmission flags.
  uint16_t flags = 0;
  /// Whether structured replies were agreed on.
  bool structured = false;
};

/// Brings `socket` from just connected to the transmission phase.
/// Errors: kIo (the server closed), kNotSupported (it does not speak fixed newstyle or refuses the
///         export), kInvalid (it breaks the protocol).
Result<ExportInfo> negotiate(const Socket& socket, const std::string& export_name,
                             bool want_structured);

}  // namespace usbd::bench

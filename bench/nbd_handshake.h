// SPDX-License-Identifier: Apache-2.0
//
// The server's half of the NBD handshake, as small as clients allow: one export, whatever its name,
// simple replies only.

#pragma once

#include <cstdint>

#include "bench/socket.h"
#include "usbd/result.h"

namespace usbd::bench {

/// Brings a client that has just connected to the transmission phase, in which it sees an export of
/// `size` bytes. Returns false if it leaves in order.
/// Errors: kIo (it left otherwise), kInvalid (it broke the protocol).
Result<bool> accept_client(const Socket& socket, uint64_t size);

}  // namespace usbd::bench

// SPDX-License-Identifier: Apache-2.0
//
// SocketSink: what a kernel attach needs of the NBD server: somebody to serve a connection.

#pragma once

#include <functional>

#include "base/unique_fd.h"

namespace usbd::nbd {

class SocketSink {
 public:
  virtual ~SocketSink() = default;

  /// Serves `socket`, an AF_UNIX stream whose other end is the kernel's: the transmission phase
  /// from its first byte, without a handshake. Takes it over and calls `on_closed` once, when it
  /// will not read from or write to it any more, whatever the reason. Threads:  may be called from
  /// any thread, one call at a time; must not wait for the connection.
  ///           `on_closed` may be called from any thread, also inside this call.
  /// Lifetime: `on_closed` holds what it needs and may be called after the attach is gone.
  virtual void adopt(UniqueFd socket, std::function<void()> on_closed) = 0;
};

}  // namespace usbd::nbd

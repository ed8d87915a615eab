// SPDX-License-Identifier: Apache-2.0
//
// KernelDriver: the two ways to tell the kernel of a device, netlink and ioctl, behind one
// interface. It knows of no session: it is given the kernel's ends of socket pairs.

#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "usbd/result.h"

namespace usbd::nbd {

/// What the kernel is told when a device is made.
struct ConnectRequest {
  /// Empty: any that is free, or a new one.
  std::optional<uint32_t> index;
  /// Units: bytes.
  uint64_t size = 0;
  uint32_t block_size = 0;
  /// Transmission flags; see uapi::kKnownFlags.
  uint16_t flags = 0;
  /// A request that is unanswered for so long has its socket shut; 0: the kernel's default, 30 s.
  std::chrono::seconds timeout{0};
  /// How long requests wait when no socket is left; 0: they fail at once.
  std::chrono::seconds dead_timeout{0};
  /// Names the volume: whoever reconnects must give the same. May be empty.
  std::string backend;
};

/// Threads: connect(), resize(), disconnect() from one thread at a time; replace() and
///          drain_notifications() from one other; the rest from any.
class KernelDriver {
 public:
  virtual ~KernelDriver() = default;

  /// "netlink" or "ioctl".
  [[nodiscard]] virtual std::string_view name() const = 0;

  /// Connects a device to `sockets`, the kernel's ends, and returns its index.
  /// Lifetime: the kernel keeps `sockets` open by itself.
  /// Errors:   kBusy: the index, or every index, is used by somebody; it was not touched.
  ///           kPerm; kInvalid; else what the kernel said.
  virtual Result<uint32_t> connect(const ConnectRequest& request,
                                   const std::vector<UniqueFd>& sockets) = 0;

  /// Whether replace() can do anything, so that the device outlives its sockets.
  [[nodiscard]] virtual bool can_replace() const = 0;

  /// Offers the kernel's end of a new socket in place of a dead one. Success does not mean that the
  /// kernel took it: then the other end hangs up once the caller has closed `socket`.
  virtual Result<void> replace(int socket) = 0;

  /// Readable when the kernel may have given up a socket; -1: there are no such notices.
  [[nodiscard]] virtual int notification_fd() const { return -1; }
  /// Reads all notices; returns how many concerned this device.
  virtual unsigned drain_notifications() { return 0; }

  /// Tells the kernel of a new size. Units: bytes.
  /// Order: only while sockets are alive and served: the kernel first waits for all requests.
  virtual Result<void> resize(uint64_t size) = 0;

  /// Ends the device: requests still in flight fail. Its node stays.
  virtual Result<void> disconnect() = 0;
};

}  // namespace usbd::nbd

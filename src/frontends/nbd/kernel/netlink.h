// SPDX-License-Identifier: Apache-2.0
//
// The kernel's generic netlink family "nbd": its messages, one call each, and the notices of dead
// sockets. Unlike ioctl it finds or makes a free device itself, and lets a device outlive its
// sockets.
//
// What nbd.c does that its header does not say:
// - CONNECT without an index takes the first device that nobody has connected *or open*, and makes
// a
//   new one if there is none. With an index it is EBUSY when the node is merely open, EINVAL while
//   the device is being torn down.
// - More than one socket needs NBD_FLAG_CAN_MULTI_CONN, else EINVAL. Each is a hardware queue, as
//   long as there are CPUs; more are spares.
// - RECONFIGURE must repeat the backend identifier that CONNECT gave. It skips sockets in silence
//   when no dead one can be replaced. With a changed size it freezes the queue, so that a request
//   which waits for a socket is waited for: sizes and sockets never go in one call.
// - DISCONNECT succeeds whether or not the device is connected.
//
// Ref: linux drivers/block/nbd.c, nbd_genl_connect, nbd_genl_reconfigure, nbd_reconnect_socket.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "frontends/nbd/kernel/driver.h"
#include "usbd/result.h"

struct nl_msg;
struct nl_sock;

namespace usbd::nbd::netlink {

struct MessageDeleter {
  void operator()(nl_msg* message) const;
};
using Message = std::unique_ptr<nl_msg, MessageDeleter>;

struct SocketDeleter {
  void operator()(nl_sock* socket) const;
};
using Socket = std::unique_ptr<nl_sock, SocketDeleter>;

struct ReconfigureRequest {
  uint32_t index = 0;
  std::string backend;
  /// The kernel's ends that shall replace dead ones.
  std::vector<int> sockets;
  /// Units: bytes. Never given together with sockets; asserted.
  std::optional<uint64_t> size;
};

/// The messages, as they go to family number `family`. Null: no memory.
Message build_connect(int family, const ConnectRequest& request, const std::vector<int>& sockets);
Message build_reconfigure(int family, const ReconfigureRequest& request);
Message build_disconnect(int family, uint32_t index);
Message build_status(int family, uint32_t index);

/// The index in an answer to CONNECT or in a LINK_DEAD notice; empty: there is none.
std::optional<uint32_t> parse_index(nl_msg* message);
/// Whether an answer to STATUS says that the device `index` is connected.
bool parse_connected(nl_msg* message, uint32_t index);

/// A connection to the family. Threads: one at a time.
class Client {
 public:
  /// Errors: kNotFound: this kernel (or network namespace) has no such family.
  static Result<Client> open();

  /// Errors: kBusy, kPerm, kInvalid; see the top of this file.
  Result<uint32_t> connect(const ConnectRequest& request, const std::vector<int>& sockets);
  Result<void> reconfigure(const ReconfigureRequest& request);
  Result<void> disconnect(uint32_t index);
  Result<bool> is_connected(uint32_t index);

 private:
  Client(Socket socket, int family) : socket_(std::move(socket)), family_(family) {}

  /// Sends `message`, hands answers to `on_answer` (may be null), and waits for the
  /// acknowledgement.
  Result<void> call(Message message, int (*on_answer)(nl_msg*, void*), void* argument);

  Socket socket_;
  int family_;
};

/// Hears of sockets that the kernel has given up. Threads: one at a time.
class DeadLinkListener {
 public:
  static Result<DeadLinkListener> open();

  /// Readable when there are notices.
  [[nodiscard]] int fd() const;
  /// The devices that the notices waiting name. Never waits. Notices may have been lost.
  std::vector<uint32_t> drain();

 private:
  explicit DeadLinkListener(Socket socket) : socket_(std::move(socket)) {}

  Socket socket_;
};

/// Errors: kNotFound: no such family; then there may still be ioctl.
Result<std::unique_ptr<KernelDriver>> make_driver();

}  // namespace usbd::nbd::netlink

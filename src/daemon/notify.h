// SPDX-License-Identifier: Apache-2.0
//
// Tells the service manager how the daemon is doing, by systemd's notification protocol: datagrams
// of NAME=value lines to the socket that NOTIFY_SOCKET names. Without that variable nothing is
// sent. Ref: systemd, sd_notify(3).

#pragma once

#include <string>
#include <string_view>

namespace usbd::daemon {

class Notifier {
 public:
  /// `socket`: the value of NOTIFY_SOCKET: an absolute path, or `@name` in the abstract namespace.
  /// Empty: nobody is told.
  explicit Notifier(std::string socket) : socket_(std::move(socket)) {}
  /// Reads NOTIFY_SOCKET and removes it from the environment, so that no child answers for us.
  static Notifier from_environment();

  void ready(std::string_view status) const;
  void status(std::string_view status) const;
  void stopping(std::string_view status) const;

 private:
  void send(const std::string& message) const;

  std::string socket_;
};

}  // namespace usbd::daemon

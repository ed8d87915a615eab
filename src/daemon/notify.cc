// SPDX-License-Identifier: Apache-2.0
//
// A message that cannot be delivered is logged and dropped: serving goes on without the manager.

#include "daemon/notify.h"

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>

#include <fmt/format.h>

#include "base/log.h"
#include "base/unique_fd.h"
#include "usbd/result.h"

namespace usbd::daemon {

Notifier Notifier::from_environment() {
  const char* const socket = std::getenv("NOTIFY_SOCKET");
  Notifier notifier(socket == nullptr ? "" : socket);
  ::unsetenv("NOTIFY_SOCKET");
  return notifier;
}

void Notifier::ready(std::string_view status) const {
  send(fmt::format("READY=1\nSTATUS={}\nMAINPID={}", status, ::getpid()));
}

void Notifier::status(std::string_view status) const {
  send(fmt::format("STATUS={}", status));
}

void Notifier::stopping(std::string_view status) const {
  send(fmt::format("STOPPING=1\nSTATUS={}", status));
}

void Notifier::send(const std::string& message) const {
  if (socket_.empty()) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const bool known = socket_.front() == '/' || socket_.front() == '@';
  if (!known || socket_.size() >= sizeof(address.sun_path)) {
    log::warning("NOTIFY_SOCKET \"{}\" is not an address of a unix socket", socket_);
    return;
  }
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_.front() == '@') address.sun_path[0] = '\0';
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  const ssize_t sent = ::sendto(fd.get(), message.data(), message.size(), MSG_NOSIGNAL,
                                reinterpret_cast<const sockaddr*>(&address), length);
  if (sent < 0) {
    log::warning("cannot tell the service manager at \"{}\": {}", socket_,
                 Error::from_errno(errno).message());
  }
}

}  // namespace usbd::daemon

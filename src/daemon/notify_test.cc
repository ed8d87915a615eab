// SPDX-License-Identifier: Apache-2.0
//
// What a service manager receives, on a path and in the abstract namespace.

#include "daemon/notify.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/unique_fd.h"

namespace usbd::daemon {
namespace {

/// The manager's end.
class Manager {
 public:
  explicit Manager(const std::string& name) : fd_(::socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name.front() == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  }

  std::string receive() {
    char buffer[512];
    const ssize_t got = ::recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    return got < 0 ? "nothing" : std::string(buffer, static_cast<size_t>(got));
  }

 private:
  UniqueFd fd_;
};

TEST(Notifier, TellsReadyStatusAndStopping) {
  std::string pattern = std::filesystem::temp_directory_path() / "notify_test.XXXXXX";
  const std::string dir = ::mkdtemp(pattern.data());
  {
    Manager manager(dir + "/socket");
    const Notifier notifier(dir + "/socket");
    notifier.ready("serving /dev/nbd0");
    notifier.status("busy");
    notifier.stopping("bye");
    EXPECT_EQ(manager.receive(),
              "READY=1\nSTATUS=serving /dev/nbd0\nMAINPID=" + std::to_string(::getpid()));
    EXPECT_EQ(manager.receive(), "STATUS=busy");
    EXPECT_EQ(manager.receive(), "STOPPING=1\nSTATUS=bye");
  }
  std::filesystem::remove_all(dir);
}

TEST(Notifier, ReachesAbstractSockets) {
  const std::string name = "@usbd-notify-test-" + std::to_string(::getpid());
  Manager manager(name);
  Notifier(name).status("x");
  EXPECT_EQ(manager.receive(), "STATUS=x");
}

TEST(Notifier, TakesTheVariableAway) {
  const std::string name = "@usbd-notify-env-" + std::to_string(::getpid());
  Manager manager(name);
  ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
  const Notifier notifier = Notifier::from_environment();
  EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr);
  notifier.status("x");
  EXPECT_EQ(manager.receive(), "STATUS=x");
}

TEST(Notifier, GoesOnWhenNobodyListens) {
  Notifier("").ready("x");
  Notifier("/nonexistent/socket").ready("x");
  Notifier("relative").ready("x");
  Notifier(std::string(200, '/')).ready("x");
}

}  // namespace
}  // namespace usbd::daemon

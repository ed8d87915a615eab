// SPDX-License-Identifier: Apache-2.0
//
// Sockets made in a folder of the test's own, and on loopback with ports the kernel picks.

#include "frontends/nbd/listening_socket.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace usbd::nbd {
namespace {

using testing::HasSubstr;

class ListenOnUnixSocket : public testing::Test {
 public:
  ListenOnUnixSocket() {
    std::string pattern = testing::TempDir() + "usbd-listen-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    path_ = folder_ + "/s.sock";
  }
  ~ListenOnUnixSocket() override { std::filesystem::remove_all(folder_); }

 protected:
  static Result<std::vector<ListeningSocket>> listen(const std::string& path) {
    return listen_at({.kind = Endpoint::Kind::kUnix, .path = path}, {});
  }
  static ListeningSocket listening(const std::string& path) {
    Result<std::vector<ListeningSocket>> made = listen(path);
    EXPECT_TRUE(made.has_value()) << (made ? "" : made.error().message());
    return std::move((*made)[0]);
  }
  static mode_t mode(const std::string& path) {
    struct stat status{};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0);
    return status.st_mode & 07777;
  }
  static bool connects(const std::string& path) {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path, path.data(), path.size());
    return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  bool exists() const { return std::filesystem::exists(std::filesystem::symlink_status(path_)); }
  /// What a server that was killed leaves behind.
  void leave_stale_socket() {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path, path_.data(), path_.size());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }

  std::string folder_;
  std::string path_;
};

TEST_F(ListenOnUnixSocket, AcceptsAndRemovesTheSocketAtTheEnd) {
  {
    const ListeningSocket socket = listening(path_);
    EXPECT_TRUE(connects(path_));
    EXPECT_EQ(socket.endpoint().path, path_);
  }
  EXPECT_FALSE(exists());
}

TEST_F(ListenOnUnixSocket, IsForItsOwnerAloneUnderAnyUmask) {
  for (const mode_t mask : {0000U, 0022U, 0077U, 0777U}) {
    const mode_t before = ::umask(mask);
    const ListeningSocket socket = listening(path_);
    ::umask(before);
    EXPECT_EQ(mode(path_), 0600U) << mask;
  }
}

TEST_F(ListenOnUnixSocket, ReplacesASocketNobodyAnswersAt) {
  leave_stale_socket();
  const ListeningSocket socket = listening(path_);
  EXPECT_TRUE(connects(path_));
}

TEST_F(ListenOnUnixSocket, LeavesALiveServerAlone) {
  const ListeningSocket first = listening(path_);
  const auto second = listen(path_);
  ASSERT_FALSE(second.has_value());
  EXPECT_TRUE(second.error().is(Errc::kBusy));
  EXPECT_THAT(second.error().message(), HasSubstr("already answering"));
  EXPECT_TRUE(connects(path_));
}

TEST_F(ListenOnUnixSocket, LeavesAFileOrLinkAlone) {
  std::ofstream(folder_ + "/precious") << "data";
  std::filesystem::create_symlink(folder_ + "/precious", path_);
  for (const std::string& path : {folder_ + "/precious", path_}) {
    const auto result = listen(path);
    ASSERT_FALSE(result.has_value());
    EXPECT_TRUE(result.error().is(Errc::kExists));
  }
  EXPECT_EQ(std::filesystem::file_size(folder_ + "/precious"), 4U);
}

TEST_F(ListenOnUnixSocket, LeavesAnothersSocketAtTheEnd) {
  {
    const ListeningSocket socket = listening(path_);
    std::filesystem::remove(path_);
    leave_stale_socket();
  }
  EXPECT_TRUE(exists());
}

TEST_F(ListenOnUnixSocket, RefusesAPathThatIsTooLong) {
  const auto result = listen(folder_ + "/" + std::string(108, 'x'));
  ASSERT_FALSE(result.has_value());
  EXPECT_TRUE(result.error().is(Errc::kInvalid));
  EXPECT_THAT(result.error().message(), HasSubstr("107"));
}

TEST_F(ListenOnUnixSocket, SaysWhichFolderIsMissing) {
  const auto result = listen(folder_ + "/none/s.sock");
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message(), HasSubstr("/none/s.sock"));
  EXPECT_TRUE(result.error().is(Errc::kNotFound));
}

TEST_F(ListenOnUnixSocket, TellsTheAbsolutePathOfARelativeOne) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder_);
  {
    const ListeningSocket socket = listening("s.sock");
    EXPECT_EQ(socket.endpoint().path, std::filesystem::current_path() / "s.sock");
  }
  std::filesystem::current_path(before);
  EXPECT_FALSE(exists());
}

Result<std::vector<ListeningSocket>> listen_tcp(const std::string& host, uint16_t port = 0,
                                                bool insecure = false) {
  return listen_at({.kind = Endpoint::Kind::kTcp, .host = host, .port = port},
                   {.insecure_tcp = insecure});
}

TEST(ListenOnTcp, TellsThePortTheKernelPicked) {
  const auto sockets = listen_tcp("127.0.0.1");
  ASSERT_TRUE(sockets.has_value()) << sockets.error().message();
  ASSERT_EQ(sockets->size(), 1U);
  const Endpoint& endpoint = sockets->front().endpoint();
  EXPECT_NE(endpoint.port, 0U);
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(endpoint.port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
}

TEST(ListenOnTcp, TakesAllAddressesOfANameWithOnePort) {
  const auto sockets = listen_tcp("localhost");
  ASSERT_TRUE(sockets.has_value()) << sockets.error().message();
  ASSERT_FALSE(sockets->empty());
  for (const ListeningSocket& socket : *sockets) {
    EXPECT_EQ(socket.endpoint().port, sockets->front().endpoint().port);
  }
}

TEST(ListenOnTcp, RefusesOtherThanLoopbackUnlessTold) {
  for (const char* const host : {"0.0.0.0", "::", "::ffff:10.0.0.1"}) {
    const auto result = listen_tcp(host);
    ASSERT_FALSE(result.has_value()) << host;
    EXPECT_TRUE(result.error().is(Errc::kAccess)) << result.error().message();
    EXPECT_THAT(result.error().message(), HasSubstr("-insecure-tcp"));
  }
  EXPECT_TRUE(listen_tcp("127.3.2.1").has_value());
  EXPECT_TRUE(listen_tcp("0.0.0.0", 0, true).has_value());
}

TEST(ListenOnTcp, SaysThatAPortIsTaken) {
  const auto first = listen_tcp("127.0.0.1");
  ASSERT_TRUE(first.has_value());
  const auto second = listen_tcp("127.0.0.1", first->front().endpoint().port);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().number(), EADDRINUSE);
  EXPECT_THAT(second.error().message(), HasSubstr("127.0.0.1"));
}

TEST(ListenOnTcp, SaysThatAHostIsUnknown) {
  const auto result = listen_tcp("no-such-host.invalid");
  ASSERT_FALSE(result.has_value());
  EXPECT_TRUE(result.error().is(Errc::kNotFound));
}

}  // namespace
}  // namespace usbd::nbd

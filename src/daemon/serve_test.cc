// SPDX-License-Identifier: Apache-2.0
//
// The public API: serving inside someone else's program, what it says it got, how it stops, and
// that a failed start leaves nothing behind.

#include "usbd/serve.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/unique_fd.h"

namespace usbd {
namespace {

using testing::HasSubstr;

/// What became of a device, known after it is gone.
struct DeviceFate {
  std::atomic<bool> closed{false};
  std::atomic<bool> destroyed{false};
};

class FatedDevice final : public BlockingDevice {
 public:
  FatedDevice(DeviceFate& fate, Result<void> close_result)
      : fate_(fate), close_result_(std::move(close_result)) {}
  ~FatedDevice() override { fate_.destroyed = true; }

  [[nodiscard]] std::string name() const override { return "fated"; }
  [[nodiscard]] uint64_t size() const override { return kSize; }
  Result<void> read_at(uint64_t offset, MutableBytes data) override {
    static_cast<void>(offset);
    std::ranges::fill(data, std::byte{7});
    return {};
  }
  Result<void> write_at(uint64_t offset, Bytes data, WriteFlags flags) override {
    static_cast<void>(offset);
    static_cast<void>(data);
    static_cast<void>(flags);
    return {};
  }
  Result<void> close() override {
    fate_.closed = true;
    return close_result_;
  }

  static constexpr uint64_t kSize = 1U << 20;

 private:
  DeviceFate& fate_;
  const Result<void> close_result_;
};

class ServerTest : public testing::Test {
 public:
  ~ServerTest() override { std::filesystem::remove_all(directory); }

 protected:
  ServerTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "serve_test.XXXXXX";
    directory = ::mkdtemp(pattern.data());
    socket = directory + "/s";
    options.name = "vol";
    options.exports = {"unix:" + socket};
    options.threads = 2;
  }

  Result<std::unique_ptr<Server>> start(Result<void> close_result = {}) {
    return Server::start(std::make_unique<FatedDevice>(fate, std::move(close_result)), options);
  }
  std::unique_ptr<Server> started(Result<void> close_result = {}) {
    Result<std::unique_ptr<Server>> server = start(std::move(close_result));
    EXPECT_TRUE(server) << server.error().message();
    return server ? *std::move(server) : nullptr;
  }
  /// The first bytes that a client sees at the socket; empty: nobody answers.
  [[nodiscard]] std::string greeting() const {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, socket.data(), socket.size());
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      return {};
    }
    char bytes[8] = {};
    if (::recv(fd.get(), bytes, sizeof(bytes), MSG_WAITALL) != sizeof(bytes)) return {};
    return {bytes, sizeof(bytes)};
  }

  DeviceFate fate;
  std::string directory;
  std::string socket;
  ServeOptions options;
};

TEST_F(ServerTest, ServesAndSaysWhere) {
  options.exports.emplace_back("tcp:127.0.0.1:0");
  const std::unique_ptr<Server> server = started();
  ASSERT_NE(server, nullptr);
  ASSERT_EQ(server->served_at().size(), 2U);
  EXPECT_EQ(server->served_at()[0].kind, ServedAt::Kind::kUnixSocket);
  EXPECT_EQ(server->served_at()[0].name, socket);
  EXPECT_EQ(server->served_at()[0].uri, "nbd+unix:///vol?socket=" + socket);
  EXPECT_EQ(server->served_at()[1].kind, ServedAt::Kind::kTcpSocket);
  EXPECT_THAT(server->served_at()[1].uri, testing::MatchesRegex("nbd://127.0.0.1:[0-9]+/vol"));
  EXPECT_EQ(server->size(), FatedDevice::kSize);
  EXPECT_EQ(greeting(), "NBDMAGIC");
  EXPECT_EQ(server->statistics().read.operations, 0U);
}

TEST_F(ServerTest, ClosesTheDeviceWhenStopped) {
  std::unique_ptr<Server> server = started();
  ASSERT_NE(server, nullptr);
  const Result<StopReport> stopped = server->stop();
  ASSERT_TRUE(stopped);
  EXPECT_TRUE(fate.closed);
  EXPECT_TRUE(stopped->left_waiting.empty());
  EXPECT_EQ(greeting(), "");
  EXPECT_FALSE(std::filesystem::exists(socket));
  server.reset();
  EXPECT_TRUE(fate.destroyed);
}

TEST_F(ServerTest, ClosesTheDeviceWhenDestroyed) {
  started().reset();
  EXPECT_TRUE(fate.closed);
  EXPECT_TRUE(fate.destroyed);
  EXPECT_FALSE(std::filesystem::exists(socket));
}

TEST_F(ServerTest, SaysWhatMadeTheFinalFlushFail) {
  const std::unique_ptr<Server> server = started(Error(Errc::kIo, "the disk is gone"));
  ASSERT_NE(server, nullptr);
  const Result<StopReport> stopped = server->stop();
  ASSERT_FALSE(stopped);
  EXPECT_TRUE(stopped.error().is(Errc::kIo));
}

TEST_F(ServerTest, WaitsForTheStopToken) {
  std::stop_source source;
  options.stop = source.get_token();
  const std::unique_ptr<Server> server = started();
  ASSERT_NE(server, nullptr);
  std::thread other([&source] { source.request_stop(); });
  EXPECT_TRUE(server->wait());
  other.join();
  EXPECT_TRUE(fate.closed);
}

TEST_F(ServerTest, ThatCannotStartClosesTheDevice) {
  options.exports = {"unix:" + directory + "/none/s"};
  ASSERT_FALSE(start());
  EXPECT_TRUE(fate.closed);
  EXPECT_TRUE(fate.destroyed);
}

TEST_F(ServerTest, ThatCannotStartEverywhereIsNowhere) {
  options.exports.push_back("unix:" + directory + "/none/s");
  ASSERT_FALSE(start());
  EXPECT_EQ(greeting(), "");
  EXPECT_FALSE(std::filesystem::exists(socket));
}

TEST_F(ServerTest, RefusesBadOptionsBeforeItTouchesTheDevice) {
  options.exports = {"usb"};
  EXPECT_FALSE(start());
  options.exports = {"ublk"};
  const Result<std::unique_ptr<Server>> ublk = start();
  ASSERT_FALSE(ublk);
  EXPECT_TRUE(ublk.error().is(Errc::kNotSupported));
  EXPECT_THAT(ublk.error().message(), HasSubstr("-export=ublk"));
  options.exports = {"none"};
  options.layers = {"nonsense"};
  EXPECT_FALSE(start());
  options.layers = {};
  options.busy_poll = std::chrono::milliseconds(11);
  const Result<std::unique_ptr<Server>> busy = start();
  ASSERT_FALSE(busy);
  EXPECT_THAT(busy.error().message(), HasSubstr("busy_poll is 0s to 10ms"));
  EXPECT_FALSE(fate.closed);
}

TEST_F(ServerTest, AutoHidesNoErrorButTheLackOfAKernelDevice) {
  options.exports = {"auto"};
  options.socket_directory = directory;
  options.nbd_timeout = std::chrono::hours(24 * 400);
  const Result<std::unique_ptr<Server>> server = start();
  ASSERT_FALSE(server);
  EXPECT_TRUE(server.error().is(Errc::kInvalid));
  EXPECT_THAT(server.error().message(), HasSubstr("-export=auto"));
  EXPECT_THAT(server.error().message(), HasSubstr("request timeout"));
  EXPECT_THAT(server.error().message(), HasSubstr("-export=unix:PATH"));
  EXPECT_FALSE(std::filesystem::exists(directory + "/vol.sock"));
}

TEST_F(ServerTest, PutsLayersOverTheDevice) {
  options.layers = {"readonly"};
  const std::unique_ptr<Server> server = started();
  ASSERT_NE(server, nullptr);
  EXPECT_TRUE(server->stop());
  EXPECT_TRUE(fate.closed);
}

TEST_F(ServerTest, ServesNobodyIfAsked) {
  options.exports = {"none"};
  const std::unique_ptr<Server> server = started();
  ASSERT_NE(server, nullptr);
  EXPECT_TRUE(server->served_at().empty());
}

TEST_F(ServerTest, LogsWhereItIsTold) {
  std::mutex mutex;
  std::vector<std::string> lines;
  set_log_sink([&](LogLevel level, std::string_view line) {
    const std::lock_guard lock(mutex);
    if (level == LogLevel::kInfo) lines.emplace_back(line);
  });
  options.layers = {"stats"};
  started().reset();
  set_log_sink([](LogLevel, std::string_view) {});
  EXPECT_THAT(lines, testing::Contains(HasSubstr("stats")));
}

TEST_F(ServerTest, WritesOnNoStandardStreamUnlessAsked) {
  set_log_sink({});
  options.layers = {"stats"};
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  {
    const std::unique_ptr<Server> server = started();
    EXPECT_EQ(greeting(), "NBDMAGIC");
    EXPECT_FALSE(start()) << "the socket is taken";
  }
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(ServerTest, RefusesASocketThatSomebodyServes) {
  const std::unique_ptr<Server> server = started();
  ASSERT_NE(server, nullptr);
  DeviceFate second;
  const Result<std::unique_ptr<Server>> other =
      Server::start(std::make_unique<FatedDevice>(second, Result<void>()), options);
  ASSERT_FALSE(other);
  EXPECT_TRUE(other.error().is(Errc::kBusy));
  EXPECT_EQ(greeting(), "NBDMAGIC");
}

/// usbd::serve() as the main of a program that is asked to stop right away.
class ServeDeathTest : public ServerTest {
 protected:
  [[noreturn]] void exit_as_main(std::vector<std::string> words, Result<void> close_result) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::raise(SIGTERM);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::unique_ptr<BlockingDevice> device =
        std::make_unique<FatedDevice>(fate, std::move(close_result));
    std::exit(serve(std::move(device), static_cast<int>(words.size()), argv.data()));
  }
};

TEST_F(ServeDeathTest, IsAWholeProgram) {
  EXPECT_EXIT(exit_as_main({"./mine", "-export=unix:" + socket}, {}), testing::ExitedWithCode(0),
              "\"fated\".*nbd.unix:///fated.*terminated normally");
}

TEST_F(ServeDeathTest, ExitsWith1IfTheLastFlushFails) {
  EXPECT_EXIT(exit_as_main({"./mine", "-export=none"}, Error(Errc::kIo, "the disk is gone")),
              testing::ExitedWithCode(1), "the disk is gone.*terminated with an error");
}

TEST_F(ServeDeathTest, ExitsWith2OnBadFlags) {
  EXPECT_EXIT(exit_as_main({"./mine", "-dev-type=mem"}, {}), testing::ExitedWithCode(2),
              "./mine: unknown flag .-dev-type.");
}

}  // namespace
}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// The keeper against a driver that stands for the kernel: it holds the other ends of the sockets,
// and can shut them, refuse new ones silently, or fail.

#include "frontends/nbd/kernel/socket_keeper.h"

#include <condition_variable>
#include <mutex>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"

namespace usbd::nbd {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 20s;

/// Waits on other threads without sleeping.
class Monitor {
 public:
  template <typename Change>
  void change(const Change& change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  template <typename Condition>
  bool await(const Condition& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, condition);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

class FakeKernel final : public KernelDriver {
 public:
  explicit FakeKernel(Monitor& shared) : monitor(shared) {}

  [[nodiscard]] std::string_view name() const override { return "fake"; }
  Result<uint32_t> connect(const ConnectRequest&, const std::vector<UniqueFd>&) override {
    return 0U;
  }
  [[nodiscard]] bool can_replace() const override { return replaces; }
  Result<void> replace(int socket) override {
    Result<void> result;
    monitor.change([&] {
      ++offers;
      if (failures > 0) {
        --failures;
        result = Errc::kInvalid;
      } else if (refusals > 0) {
        --refusals;
      } else {
        sockets.emplace_back(::fcntl(socket, F_DUPFD_CLOEXEC, 0));
      }
    });
    return result;
  }
  Result<void> resize(uint64_t) override { return {}; }
  Result<void> disconnect() override { return {}; }

  Monitor& monitor;
  bool replaces = true;
  int failures = 0;
  int refusals = 0;
  int offers = 0;
  std::vector<UniqueFd> sockets;
};

class FakeServer final : public SocketSink {
 public:
  explicit FakeServer(Monitor& shared) : monitor(shared) {}

  void adopt(UniqueFd socket, std::function<void()> on_closed) override {
    monitor.change([&] { sessions.push_back({std::move(socket), std::move(on_closed)}); });
  }

  struct Session {
    UniqueFd socket;
    std::function<void()> on_closed;
  };
  Monitor& monitor;
  std::vector<Session> sessions;
};

class SocketKeeperTest : public ::testing::Test {
 protected:
  void start(unsigned count) {
    keeper = std::make_unique<SocketKeeper>(
        kernel, server, SocketKeeper::Timing{.retry_min = 1ms, .retry_max = 5ms, .crowded = 5ms},
        [this](const Error& error) { monitor.change([&] { lost.push_back(error.message()); }); });
    std::vector<UniqueFd> ours;
    for (unsigned i = 0; i < count; ++i) {
      SocketPair pair = *SocketPair::make();
      ours.push_back(std::move(pair.ours));
      kernel.sockets.push_back(std::move(pair.kernels));
    }
    ASSERT_TRUE(keeper->start(std::move(ours)));
  }
  void kernel_shuts(size_t socket) {
    monitor.change([&] { ::shutdown(kernel.sockets[socket].get(), SHUT_RDWR); });
  }
  void session_ends(size_t session) {
    std::function<void()> on_closed;
    monitor.change([&] {
      server.sessions[session].socket.reset();
      on_closed = server.sessions[session].on_closed;
    });
    on_closed();
  }
  bool await_sessions(size_t count) {
    return monitor.await([&] { return server.sessions.size() >= count; });
  }
  /// Whether what is sent at the kernel's end `socket` arrives in `session`.
  bool are_connected(size_t socket, size_t session) {
    char byte = 'x';
    return ::send(kernel.sockets[socket].get(), &byte, 1, MSG_NOSIGNAL) == 1 &&
           ::recv(server.sessions[session].socket.get(), &byte, 1, MSG_DONTWAIT) == 1;
  }
  static bool has_ended(const UniqueFd& socket) {
    pollfd poll_fd{.fd = socket.get(), .events = POLLRDHUP, .revents = 0};
    return ::poll(&poll_fd, 1, 10'000) == 1 && (poll_fd.revents & (POLLRDHUP | POLLHUP)) != 0;
  }

  Monitor monitor;
  FakeKernel kernel{monitor};
  FakeServer server{monitor};
  std::vector<std::string> lost;
  std::unique_ptr<SocketKeeper> keeper;
};

TEST_F(SocketKeeperTest, GivesEverySocketToTheServer) {
  start(3);
  ASSERT_TRUE(await_sessions(3));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(are_connected(i, i));
  EXPECT_EQ(keeper->statistics().reconnects, 0U);
}

TEST_F(SocketKeeperTest, MakesSocketsThatCloseOnExec) {
  start(1);
  ASSERT_TRUE(await_sessions(1));
  kernel_shuts(0);
  ASSERT_TRUE(await_sessions(2));
  for (const auto& session : server.sessions) {
    EXPECT_NE(::fcntl(session.socket.get(), F_GETFD) & FD_CLOEXEC, 0);
  }
}

TEST_F(SocketKeeperTest, ReplacesASocketThatTheKernelShutThoughItsSessionReadsNothing) {
  start(2);
  kernel_shuts(0);
  ASSERT_TRUE(await_sessions(3));
  EXPECT_TRUE(are_connected(1, 1)) << "the other socket is left alone";
  EXPECT_TRUE(are_connected(2, 2));
  keeper->stop_replacing();
  EXPECT_EQ(keeper->statistics().reconnects, 1U);
  EXPECT_EQ(keeper->statistics().unfinished, 1U) << "the first session has not ended";
}

TEST_F(SocketKeeperTest, ReplacesTheSocketOfASessionThatEnded) {
  start(1);
  ASSERT_TRUE(await_sessions(1));
  session_ends(0);
  ASSERT_TRUE(await_sessions(2));
  EXPECT_TRUE(has_ended(kernel.sockets[0])) << "the kernel must learn that its socket is dead";
  EXPECT_TRUE(are_connected(1, 1));
  keeper->stop_replacing();
  EXPECT_EQ(keeper->statistics().unfinished, 0U);
}

TEST_F(SocketKeeperTest, TakesTheLateEndOfAReplacedSessionForNoNews) {
  start(1);
  kernel_shuts(0);
  ASSERT_TRUE(await_sessions(2));
  session_ends(0);
  keeper->stop_replacing();
  EXPECT_EQ(server.sessions.size(), 2U);
  EXPECT_TRUE(are_connected(1, 1));
}

TEST_F(SocketKeeperTest, OffersAgainWhatTheKernelDidNotTake) {
  start(1);
  ASSERT_TRUE(await_sessions(1));
  monitor.change([&] { kernel.refusals = 5; });
  kernel_shuts(0);
  ASSERT_TRUE(await_sessions(2));
  keeper->stop_replacing();
  EXPECT_EQ(kernel.offers, 6);
  EXPECT_EQ(keeper->statistics().refusals, 5U);
  EXPECT_EQ(server.sessions.size(), 2U) << "a refused socket never reaches the server";
}

TEST_F(SocketKeeperTest, SurvivesCallsThatFailForAWhile) {
  start(1);
  ASSERT_TRUE(await_sessions(1));
  monitor.change([&] { kernel.failures = limits::kKernelFailuresMax - 1; });
  kernel_shuts(0);
  ASSERT_TRUE(await_sessions(2));
  EXPECT_THAT(lost, ::testing::IsEmpty());
}

TEST_F(SocketKeeperTest, CountsTheDeviceAsLostWhenCallsGoOnFailing) {
  start(2);
  monitor.change([&] { kernel.failures = 1'000'000; });
  kernel_shuts(0);
  kernel_shuts(1);
  ASSERT_TRUE(monitor.await([&] { return !lost.empty(); }));
  keeper->stop();
  EXPECT_THAT(lost, ::testing::ElementsAre(::testing::HasSubstr("somebody has disconnected")));
}

TEST_F(SocketKeeperTest, LosesADeviceWhoseDriverReplacesNothing) {
  kernel.replaces = false;
  start(1);
  kernel_shuts(0);
  ASSERT_TRUE(monitor.await([&] { return !lost.empty(); }));
  EXPECT_EQ(kernel.offers, 0);
}

TEST_F(SocketKeeperTest, GoesOnReplacingWhenManySessionsAreUnfinished) {
  start(1);
  const size_t many = limits::kKernelUnfinishedMax + 10;
  for (size_t i = 0; i < many; ++i) {
    kernel_shuts(i);
    ASSERT_TRUE(await_sessions(i + 2));
  }
  keeper->stop_replacing();
  EXPECT_EQ(keeper->statistics().reconnects, many);
  EXPECT_EQ(keeper->statistics().unfinished, many);
}

TEST_F(SocketKeeperTest, StopsReplacingAndLeavesTheSocketsOpen) {
  start(1);
  ASSERT_TRUE(await_sessions(1));
  keeper->stop_replacing();
  EXPECT_TRUE(are_connected(0, 0));
  kernel_shuts(0);
  keeper->stop();
  EXPECT_EQ(kernel.offers, 0);
}

TEST_F(SocketKeeperTest, ShutsEverySocketWhenItStops) {
  start(2);
  ASSERT_TRUE(await_sessions(2));
  keeper->stop();
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(has_ended(kernel.sockets[i]));
    EXPECT_TRUE(has_ended(server.sessions[i].socket));
  }
}

TEST_F(SocketKeeperTest, MayBeGoneBeforeItsSessionsEnd) {
  start(1);
  ASSERT_TRUE(await_sessions(1));
  keeper.reset();
  session_ends(0);
}

}  // namespace
}  // namespace usbd::nbd

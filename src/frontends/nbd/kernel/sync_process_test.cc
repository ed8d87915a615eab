// SPDX-License-Identifier: Apache-2.0
//
// SyncProcess with commands that end well, badly, or not at all.

#include "frontends/nbd/kernel/sync_process.h"

#include <csignal>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace usbd::nbd {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Commands = std::vector<std::vector<std::string>>;

std::unique_ptr<SyncProcess> started(const Commands& commands) {
  Result<std::unique_ptr<SyncProcess>> process = SyncProcess::start(commands);
  EXPECT_TRUE(process) << (process ? "" : process.error().message());
  return process ? *std::move(process) : nullptr;
}

TEST(SyncProcess, SyncsWhatItIsTold) {
  const auto process = started({{"sync", "-f", ::testing::TempDir()}, {"true"}});
  ASSERT_NE(process, nullptr);
  const std::optional<Result<void>> ended = process->wait(60s);
  ASSERT_TRUE(ended.has_value());
  EXPECT_TRUE(ended->has_value()) << ended->error().message();
  EXPECT_TRUE(process->wait(0ms).has_value()) << "the answer stays";
}

TEST(SyncProcess, SaysWhatTheFirstFailureSaid) {
  const auto process = started({{"true"}, {"sync", "/none/such"}, {"sh", "-c", "exit 3"}});
  ASSERT_NE(process, nullptr);
  for (int i = 0; i < 2; ++i) {
    const std::optional<Result<void>> ended = process->wait(60s);
    ASSERT_TRUE(ended.has_value());
    ASSERT_FALSE(ended->has_value());
    EXPECT_TRUE(ended->error().is(Errc::kIo));
    EXPECT_THAT(ended->error().message(), HasSubstr("/none/such"));
  }
}

TEST(SyncProcess, IsLeftBehindWhenItTakesTooLong) {
  auto process = started({{"sh", "-c", "echo $$ >&2; exec sleep 600"}});
  ASSERT_NE(process, nullptr);
  EXPECT_FALSE(process->wait(20ms).has_value());
  EXPECT_FALSE(process->wait(0ms).has_value());
  const auto before = std::chrono::steady_clock::now();
  process.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - before, 60s);
}

TEST(SyncProcess, NamesAProgramThatIsNotThere) {
  const auto process = SyncProcess::start({{"sleep", "600"}, {"no-such-program-here"}});
  ASSERT_FALSE(process);
  EXPECT_TRUE(process.error().is(Errc::kNotFound));
  EXPECT_THAT(process.error().message(), HasSubstr("no-such-program-here"));
}

TEST(SyncProcess, EndsAlsoWhereChildrenAreReapedByTheSystem) {
  const auto before = std::signal(SIGCHLD, SIG_IGN);
  for (int i = 0; i < 50; ++i) {
    const auto process = started({{"true"}});
    ASSERT_NE(process, nullptr);
    const std::optional<Result<void>> ended = process->wait(60s);
    ASSERT_TRUE(ended.has_value());
    EXPECT_TRUE(ended->has_value());
  }
  std::signal(SIGCHLD, before);
}

}  // namespace
}  // namespace usbd::nbd

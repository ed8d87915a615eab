// SPDX-License-Identifier: Apache-2.0
//
// Signals as events.

#include "daemon/process.h"

#include <csignal>
#include <thread>

#include <sys/resource.h>

#include <gtest/gtest.h>

namespace usbd::daemon {
namespace {

using std::chrono::milliseconds;

TEST(Signals, AreReceivedAsEvents) {
  Result<Signals> signals = Signals::create();
  ASSERT_TRUE(signals);
  EXPECT_EQ(signals->wait(milliseconds(0)), Signals::Event::kTimeout);
  ::raise(SIGPIPE);
  EXPECT_EQ(signals->wait(milliseconds(0)), Signals::Event::kTimeout);
  ::raise(SIGUSR1);
  EXPECT_EQ(signals->wait(milliseconds(-1)), Signals::Event::kStatistics);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
    ::raise(number);
    EXPECT_EQ(signals->wait(milliseconds(-1)), Signals::Event::kStop);
  }
}

TEST(Signals, AreInterruptedFromOtherThreads) {
  Result<Signals> signals = Signals::create();
  ASSERT_TRUE(signals);
  std::thread other([&signals] { signals->interrupt(); });
  EXPECT_EQ(signals->wait(milliseconds(-1)), Signals::Event::kOther);
  other.join();
  EXPECT_EQ(signals->wait(milliseconds(0)), Signals::Event::kTimeout);
}

TEST(OpenFilesLimit, IsRaisedToTheHardLimit) {
  raise_open_files_limit();
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(limit.rlim_cur, limit.rlim_max);
}

}  // namespace
}  // namespace usbd::daemon

// SPDX-License-Identifier: Apache-2.0
//
// When looking pays, and that it costs little where it does not.

#include "async/busy_poll.h"

#include <gtest/gtest.h>

namespace usbd {
namespace {

using namespace std::chrono_literals;

/// How often of `sleeps` it is tried, when each try has the same end.
unsigned tries(BusyPoll& poll, unsigned sleeps, bool pays) {
  unsigned count = 0;
  for (unsigned i = 0; i < sleeps; ++i) {
    if (!poll.may_try()) continue;
    ++count;
    poll.tried(pays);
  }
  return count;
}

TEST(BusyPoll, GoesOnWhileItPays) {
  BusyPoll poll(50us);
  EXPECT_EQ(poll.limit(), Nanos(50us));
  EXPECT_EQ(tries(poll, 1000, true), 1000U);
}

TEST(BusyPoll, IsTriedSeldomWhereItDoesNotPay) {
  BusyPoll poll(50us);
  EXPECT_EQ(tries(poll, 7, false), 3U);  // the first, the third, and the seventh, four later
  tries(poll, 2 * limits::kBusyPollSkipMax, false);
  EXPECT_EQ(tries(poll, 10 * (limits::kBusyPollSkipMax + 1), false), 10U);
}

TEST(BusyPoll, GoesOnAtOnceWhenItPaysAgain) {
  BusyPoll poll(50us);
  tries(poll, 100'000, false);
  EXPECT_GE(tries(poll, limits::kBusyPollSkipMax + 100, true), 100U);
  EXPECT_EQ(tries(poll, 3, false), 2U);  // and has forgotten what was before
}

TEST(BusyPoll, IsOffWithoutTime) {
  BusyPoll poll(0us);
  EXPECT_EQ(tries(poll, 100, true), 0U);
}

}  // namespace
}  // namespace usbd

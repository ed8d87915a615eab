// SPDX-License-Identifier: Apache-2.0
//
// When calls count as short, and for how long they do not.

#include "async/call_pace.h"

#include <gtest/gtest.h>

namespace usbd {
namespace {

using namespace std::chrono_literals;

constexpr Nanos kShort = 20us;

TEST(CallPace, LetsShortCallsGoOn) {
  CallPace pace(kShort);
  Nanos now = 5s;
  for (int i = 0; i < 1000; ++i) {
    now += 15us;
    pace.took(15us, now);
    ASSERT_TRUE(pace.may_try(now));
  }
}

TEST(CallPace, PausesAfterAFewLongCalls) {
  CallPace pace(kShort);
  Nanos now = 5s;
  int calls = 0;
  for (; pace.may_try(now); ++calls) {
    ASSERT_LT(calls, 20);
    now += 60us;
    pace.took(60us, now);
  }
  EXPECT_GT(calls, 1);
  EXPECT_FALSE(pace.may_try(now + limits::kCallPauseMin - 1ns));
  EXPECT_TRUE(pace.may_try(now + limits::kCallPauseMin));
}

TEST(CallPace, TakesOneInterruptedCallForNoLongOne) {
  CallPace pace(kShort);
  Nanos now = 5s;
  for (int i = 0; i < 1000; ++i) {
    const Nanos duration = i % 32 == 0 ? Nanos(4ms) : Nanos(5us);
    now += duration;
    pace.took(duration, now);
    ASSERT_TRUE(pace.may_try(now)) << i;
  }
}

TEST(CallPace, PausesTwiceAsLongEachTimeThatItHappensAgainSoon) {
  CallPace pace(kShort);
  Nanos now = 5s;
  EXPECT_TRUE(pace.may_try(now));
  for (Nanos pause = limits::kCallPauseMin; pause < limits::kCallPauseMax; pause *= 2) {
    pace.pause(now);
    EXPECT_FALSE(pace.may_try(now + pause - 1ns));
    EXPECT_TRUE(pace.may_try(now + pause));
    now += pause;
  }
  pace.pause(now);
  EXPECT_FALSE(pace.may_try(now + limits::kCallPauseMax - 1ns));
  EXPECT_TRUE(pace.may_try(now + limits::kCallPauseMax));
  now += 2 * limits::kCallPauseMax;  // for so long calls have been short
  pace.pause(now);
  EXPECT_TRUE(pace.may_try(now + limits::kCallPauseMin));
}

}  // namespace
}  // namespace usbd

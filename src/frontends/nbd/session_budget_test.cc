// SPDX-License-Identifier: Apache-2.0
//
// What connections share is memory: how they wait for it and go on, and that clients that keep it,
// since they do not read or stop in the middle of a write, hold nobody up for long. At the end of
// each test the kit checks that nothing is kept: no claim, no buffer, no session.

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "frontends/nbd/testing/session_setup.h"

namespace usbd::nbd {
namespace {

using namespace std::chrono_literals;
using C = StreamClient;
using Pace = ScriptedDevice::Pace;

// --- the lines ---

TEST(SessionBudget, WaitsForTheBudgetAndIsResumed) {
  SessionKit kit(with(hollow(), kMiB));
  Peer& one = kit.connect();
  Peer& other = kit.connect(false);
  kit.device.pace = Pace::kPark;
  for (int i = 0; i < 10; ++i) {
    one.ask({.command = C::kRead, .length = kMiB / 2});
    other.ask({.command = C::kWrite, .offset = kMiB, .length = kMiB / 4});
    other.ask({.command = C::kWrite, .offset = 2 * kMiB, .length = 100});
  }
  kit.settle();
  EXPECT_LE(kit.device.parked(), 6U);
  EXPECT_GT(kit.budget.waiting(), 0U);
  work_off(kit);
  EXPECT_EQ(answered(one), 10U);
  EXPECT_EQ(answered(other), 20U);
}

TEST(SessionBudget, LeavesTheLineOfTheBudgetWhenItsClientGoes) {
  SessionKit kit(with(hollow(), kMiB));
  Peer& holder = kit.connect();
  Peer& leaver = kit.connect();
  Peer& next = kit.connect();
  kit.device.pace = Pace::kPark;
  holder.ask({.command = C::kRead, .length = kMiB / 2});
  kit.settle();
  leaver.ask({.command = C::kRead, .length = kMiB});
  kit.settle();
  next.ask({.command = C::kRead, .length = kMiB});
  kit.settle();
  EXPECT_EQ(kit.budget.waiting(), 2U);
  leaver.wire.hang_up();
  kit.settle();
  EXPECT_TRUE(leaver.ended);
  EXPECT_EQ(kit.budget.waiting(), 1U);
  work_off(kit);
  EXPECT_EQ(answered(holder), 1U);
  EXPECT_EQ(answered(next), 1U);
}

TEST(SessionBudget, LeavesTheLineAlsoWhileOneOfItsRequestsRuns) {
  SessionKit kit(with(hollow(), kMiB));
  Peer& leaver = kit.connect();
  Peer& next = kit.connect();
  kit.device.pace = Pace::kPark;
  leaver.ask({.command = C::kRead, .length = kMiB / 2});
  leaver.ask({.command = C::kRead, .length = kMiB});
  kit.settle();
  EXPECT_EQ(kit.budget.waiting(), 1U);
  leaver.wire.hang_up();
  kit.settle();
  EXPECT_EQ(kit.budget.waiting(), 0U) << "nobody waits behind one who has gone";
  EXPECT_TRUE(leaver.lost);
  EXPECT_FALSE(leaver.ended) << "its read still runs";
  next.ask({.command = C::kRead, .length = kMiB / 2});
  kit.settle();
  EXPECT_EQ(kit.device.parked(), 2U);
}

/// A refused write whose payload has not all come, behind a read that must wait for a buffer: what
/// is to be skipped was counted twice, and the requests after it were taken for payload.
TEST(SessionBudget, Regression_SkipsTheRestOfARefusedWriteOnceAfterAPause) {
  SessionKit kit(with(hollow(), kMiB));
  Peer& peer = kit.connect();
  kit.device.pace = Pace::kPark;
  peer.ask({.command = C::kRead, .length = kMiB});
  kit.settle();
  const std::string refused =
      peer.client.request({.command = C::kRead, .length = kMiB}) +
      peer.client.request({.command = C::kWrite, .offset = uint64_t{1} << 41, .length = 1000}, 'p');
  peer.wire.send(std::string_view(refused).substr(0, refused.size() - 400));
  kit.settle();
  kit.device.unpark_all();
  kit.settle();
  peer.wire.send(std::string_view(refused).substr(refused.size() - 400));
  peer.ask({.command = C::kRead, .length = 512});
  work_off(kit);
  EXPECT_FALSE(peer.lost);
  EXPECT_EQ(answered(peer), 4U);
}

TEST(SessionBudget, PaysForAWriteThatComesInPieces) {
  SessionKit kit(with(hollow(), kMiB));
  Peer& one = kit.connect();
  Peer& other = kit.connect();
  const std::string write = one.client.request({.command = C::kWrite, .length = kMiB}, 'w');
  one.wire.send(std::string_view(write).substr(0, 100'000));
  kit.settle();
  EXPECT_EQ(kit.budget.free(), 0U);
  const uint64_t cookie = other.ask({.command = C::kRead, .length = kMiB / 2});
  kit.settle();
  EXPECT_EQ(other.client.answer(cookie), nullptr);
  one.wire.send(std::string_view(write).substr(100'000));
  kit.settle();
  EXPECT_EQ(answered(one), 1U);
  EXPECT_NE(other.client.answer(cookie), nullptr);
}

// --- clients that do not read ---

TEST(SessionBudget, ToleratesAStoppedReaderWhoseBuffersNobodyWantsFor) {
  SessionKit kit(with(hollow(), 4 * kMiB));
  Peer& stopped = kit.connect();
  stopped.wire.set_room(0);
  stopped.ask({.command = C::kRead, .length = 2 * kMiB});
  kit.settle(5min);
  EXPECT_FALSE(stopped.lost);
  stopped.wire.set_room(Wire::kNoLimit);
  kit.settle();
  EXPECT_EQ(answered(stopped), 1U);
}

TEST(SessionBudget, ClosesAStoppedReaderWhenOthersWaitForItsBuffers) {
  SessionKit kit(with(hollow(), 4 * kMiB));
  Peer& stopped = kit.connect();
  stopped.wire.set_room(0);
  stopped.ask({.command = C::kRead, .length = 4 * kMiB});
  kit.settle(1min);
  Peer& other = kit.connect();
  EXPECT_FALSE(stopped.lost);
  other.ask({.command = C::kRead, .length = kMiB});
  kit.settle(2 * limits::kSlowConnectionGraceMax);
  EXPECT_TRUE(stopped.ended);
  EXPECT_EQ(answered(other), 1U);
}

TEST(SessionBudget, ToleratesAStoppedReaderWhoHoldsOnlyItsOwnReserve) {
  SessionKit kit(with(hollow(), 4 * kMiB));
  Peer& stopped = kit.connect();
  stopped.wire.set_room(0);
  for (int i = 0; i < 10; ++i) stopped.ask({.command = C::kRead, .length = 4096});
  kit.device.pace = Pace::kPark;
  Peer& holder = kit.connect();
  holder.ask({.command = C::kRead, .length = 4 * kMiB});
  kit.settle();
  Peer& other = kit.connect();
  other.ask({.command = C::kRead, .length = kMiB});
  kit.settle(1min);
  EXPECT_FALSE(stopped.lost) << "nobody waits for what it holds";
  EXPECT_FALSE(holder.lost) << "it is the device that is slow";
}

TEST(SessionBudget, ClosesAWriterThatStopsInTheMiddleWhenOthersWaitForItsBuffer) {
  SessionKit kit(with(hollow(), 4 * kMiB));
  Peer& stopped = kit.connect();
  stopped.wire.send(stopped.client.request({.command = C::kWrite, .length = 4 * kMiB}) + "x");
  kit.settle(1min);
  EXPECT_FALSE(stopped.lost);
  Peer& other = kit.connect();
  other.ask({.command = C::kWrite, .length = kMiB});
  kit.settle(2 * limits::kSlowConnectionGraceMax + 1s);
  EXPECT_TRUE(stopped.ended);
  EXPECT_EQ(answered(other), 1U);
}

TEST(SessionBudget, KeepsASlowReaderThatIsFastEnough) {
  SessionKit kit(with(hollow(), 8 * kMiB));
  Peer& slow = kit.connect();
  slow.wire.set_room(0);
  slow.ask({.command = C::kRead, .length = 4 * kMiB});
  slow.ask({.command = C::kRead, .length = 4 * kMiB});
  kit.settle(1s);
  Peer& other = kit.connect();
  other.ask({.command = C::kRead, .length = kMiB});
  const auto seconds = static_cast<uint64_t>(limits::kSlowConnectionGraceMax / 1s);
  for (int i = 0; i < 200 && answered(slow) < 2; ++i) {
    slow.wire.set_room(2 * limits::kSlowConnectionBytes / seconds);
    kit.settle(1s);
    EXPECT_FALSE(slow.lost);
  }
  EXPECT_EQ(answered(slow), 2U);
  EXPECT_EQ(answered(other), 1U);
}

/// Lets so many others wait for buffers; they keep what they get.
void let_wait(SessionKit& kit, int count, uint32_t length) {
  for (int i = 0; i < count; ++i) {
    Peer& peer = kit.connect();
    peer.wire.set_room(0);
    peer.ask({.command = C::kRead, .length = length});
  }
  kit.settle();
  EXPECT_EQ(kit.budget.waiting(), static_cast<size_t>(count));
}

TEST(SessionBudget, ToleratesAPauseWhileFewWait) {
  SessionKit kit(with(hollow(), 4 * kMiB));
  Peer& pausing = kit.connect();
  pausing.wire.set_room(0);
  pausing.ask({.command = C::kRead, .length = 4 * kMiB});
  kit.settle(1min);
  let_wait(kit, limits::kSlowConnectionFew, kMiB);
  kit.settle(limits::kSlowConnectionGraceMax - 100ms);
  EXPECT_FALSE(pausing.lost) << "time in which nobody waited does not count";
  pausing.wire.set_room(Wire::kNoLimit);
  kit.settle();
  EXPECT_EQ(answered(pausing), 1U);
}

TEST(SessionBudget, ToleratesAShorterPauseTheMoreWait) {
  Nanos before = limits::kSlowConnectionGraceMax + 2 * limits::kSlowConnectionGraceMin;
  for (const int others : {8, 20, 200}) {
    SessionKit kit(with(hollow(), 4 * kMiB));
    Peer& stopped = kit.connect();
    stopped.wire.send(stopped.client.request({.command = C::kWrite, .length = 4 * kMiB}) + "x");
    kit.settle();
    let_wait(kit, others, 4 * kMiB);
    const Nanos start = kit.loop.now();
    while (!stopped.lost) {
      ASSERT_LT(kit.loop.now() - start, before) << others;
      kit.settle(10ms);
    }
    before = kit.loop.now() - start;
    EXPECT_GE(before, limits::kSlowConnectionGraceMin);
  }
  EXPECT_LE(before, 2 * limits::kSlowConnectionGraceMin);
}

TEST(SessionBudget, KeepsAClientOfAMegabyteInASecondHoweverManyWait) {
  SessionKit kit(with(hollow(), 8 * kMiB));
  Peer& reader = kit.connect();
  Peer& writer = kit.connect();
  reader.wire.set_room(0);
  reader.ask({.command = C::kRead, .length = 4 * kMiB});
  std::string unsent = writer.client.request({.command = C::kWrite, .length = 4 * kMiB}, 'w');
  writer.wire.send(unsent.substr(0, 100));
  kit.settle();
  let_wait(kit, 500, 8 * kMiB);
  for (size_t sent = 100; sent < unsent.size(); sent += 10'000) {
    writer.wire.send(std::string_view(unsent).substr(sent, 10'000));
    reader.wire.set_room(10'000);
    kit.settle(10ms);
    ASSERT_FALSE(reader.lost || writer.lost);
  }
  reader.wire.set_room(Wire::kNoLimit);
  kit.settle();
  EXPECT_EQ(answered(reader), 1U);
  EXPECT_EQ(answered(writer), 1U);
}

TEST(SessionBudget, ServesSmallRequestsWhateverOthersHold) {
  SessionKit kit(with(hollow(), kMiB));
  Peer& holder = kit.connect();
  Peer& large = kit.connect();
  Peer& small = kit.connect();
  kit.device.pace = Pace::kPark;
  holder.ask({.command = C::kRead, .length = kMiB});
  kit.settle();
  large.ask({.command = C::kRead, .length = kMiB});
  kit.settle();
  kit.device.pace = Pace::kAtOnce;
  for (int i = 0; i < 500; ++i) {
    small.ask({.command = i % 2 == 0 ? C::kRead : C::kWrite, .length = 4096});
  }
  kit.settle();
  EXPECT_EQ(answered(small), 500U);
  EXPECT_EQ(answered(large), 0U);
  kit.device.unpark_all();
  kit.settle();
  EXPECT_EQ(answered(large), 1U);
}

// --- a thousand clients that keep all they can get ---

struct Crowd {
  const char* name;
  bool readers;
  std::vector<uint32_t> lengths;
  /// Within what each request of another client is answered.
  Nanos bound;
};

class SessionCrowd : public ::testing::TestWithParam<Crowd> {
 protected:
  SessionCrowd() { kit_.receive_max = limits::kReceivedTotalMax / 1001; }

  /// They ask for what they do not read, or begin writes that they do not go on with.
  void gather(int count) {
    const std::vector<uint32_t>& lengths = GetParam().lengths;
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      const C::Ask ask = {.command = GetParam().readers ? C::kRead : C::kWrite,
                          .length = lengths[i % lengths.size()]};
      Peer& peer = kit_.connect();
      peer.wire.set_room(0);
      peer.wire.discard();
      peer.wire.send(peer.client.request(ask) + (GetParam().readers ? "" : "a part"));
    }
    kit_.settle();
  }
  /// How long the answer takes.
  Nanos time_of(Peer& peer, C::Ask ask) {
    const Nanos start = kit_.loop.now();
    const size_t wanted = answered(peer) + 1;
    peer.ask(ask);
    for (kit_.settle(); answered(peer) < wanted; kit_.settle(10ms)) {
      if (kit_.loop.now() - start > 1h) break;
    }
    return kit_.loop.now() - start;
  }

  SessionKit kit_{with(hollow())};
};

INSTANTIATE_TEST_SUITE_P(
    Of, SessionCrowd,
    ::testing::Values(Crowd{"LargeWrites", false, {32 * kMiB}, 4s},
                      Crowd{"LargeReads", true, {32 * kMiB}, 4s},
                      Crowd{"WritesOfManySizes", false, {kMiB / 16, kMiB, 4 * kMiB, 32 * kMiB}, 8s},
                      Crowd{"ReadsOfManySizes", true, {kMiB / 16, kMiB, 4 * kMiB, 32 * kMiB}, 8s},
                      // In its own line each has to wait until those before it have been closed.
                      Crowd{"WritesOfTheSameSize", false, {4 * kMiB}, 20s}),
    [](const auto& crowd) { return crowd.param.name; });

TEST_P(SessionCrowd, HoldsUpNobodyForLong) {
  Peer& honest = kit_.connect();
  gather(1000);
  Nanos longest{0};
  for (int round = 0; round < 20; ++round) {
    for (const uint32_t length : {4096U, kMiB / 4, 4 * kMiB}) {
      for (const uint16_t command : {C::kWrite, C::kRead}) {
        const Nanos time = time_of(honest, {.command = command, .length = length});
        ASSERT_LE(time, GetParam().bound) << "round " << round << ", length " << length;
        longest = std::max(longest, time);
      }
    }
  }
  RecordProperty("longest_ms", static_cast<int>(longest / 1ms));
}

}  // namespace
}  // namespace usbd::nbd

// SPDX-License-Identifier: Apache-2.0
//
// Writes that meet others while they are received: in place, where a range is lent and may be
// wanted back, and on a kernel's socket, where a request whose socket was given up must not be
// done. At the end of each test the kit checks that nothing is kept: no claim, no buffer, no
// session.

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "frontends/nbd/testing/session_setup.h"

namespace usbd::nbd {
namespace {

using namespace std::chrono_literals;
using C = StreamClient;
using Pace = ScriptedDevice::Pace;

// --- writes that are received in place ---

constexpr uint32_t kLarge = 100'000;

/// The header of a write of kLarge bytes at 0, and the first `part` bytes of its payload.
void begin_large(Peer& peer, size_t part, char fill) {
  peer.wire.send(peer.client.request({.command = C::kWrite, .length = kLarge}) +
                 std::string(part, fill));
}

TEST(InPlace, AWriteGivesWayToOneThatComesMeanwhileAndIsThenDoneAsAWhole) {
  SessionKit kit(with(direct()));
  Peer& first = kit.connect();
  Peer& second = kit.connect();
  begin_large(first, 60'000, 'w');
  kit.settle();
  EXPECT_EQ(kit.served.locks().held_count(), 1U);
  EXPECT_EQ(kit.budget.free(), kit.budget.total()) << "it needs no buffer";
  second.ask({.command = C::kWrite, .offset = 10, .length = 10}, 's');
  second.ask({.command = C::kWrite, .offset = 50'000, .length = kLarge}, 's');
  kit.settle();
  EXPECT_EQ(answered(second), 2U);
  EXPECT_EQ(kit.device.bytes[10], std::byte{'s'});
  first.wire.send(std::string(kLarge - 60'000, 'w'));
  kit.settle();
  EXPECT_EQ(answered(first), 1U);
  for (size_t i = 0; i < kLarge; ++i) ASSERT_EQ(kit.device.bytes[i], std::byte{'w'}) << i;
  EXPECT_EQ(kit.device.bytes[kLarge], std::byte{'s'});
}

TEST(InPlace, Regression_OverlappingWritesNeverMix) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SeededRng rng(seed);
    SessionKit::Options options = with(direct(), rng.one_in(3) ? kMiB / 8 : 4 * kMiB);
    options.seed = seed;
    SessionKit kit(options);
    std::vector<size_t> unsent;
    for (char name = 'a'; name < 'd'; ++name) {
      begin_large(kit.connect(), 0, name);
      unsent.push_back(kLarge);
    }
    while (std::ranges::any_of(unsent, [](size_t rest) { return rest > 0; })) {
      const size_t which = rng.below(unsent.size());
      const size_t part = rng.between(0, unsent[which]);
      kit.peers[which]->wire.send(std::string(part, static_cast<char>('a' + which)));
      unsent[which] -= part;
      if (rng.one_in(2)) kit.settle(Nanos(rng.below(50)));
    }
    work_off(kit);
    for (const auto& peer : kit.peers) ASSERT_EQ(answered(*peer), 1U) << "seed " << seed;
    const std::byte winner = kit.device.bytes[0];
    for (size_t i = 0; i < kLarge; ++i) {
      ASSERT_EQ(kit.device.bytes[i], winner) << "seed " << seed << ", byte " << i;
    }
  }
}

TEST(InPlace, ClosesAWriterThatStopsInTheMiddleWhenItCanNotBeMovedAside) {
  SessionKit kit(with(direct(), kMiB));
  Budget::Waiter everything;
  everything.bytes = kMiB;
  ASSERT_TRUE(kit.budget.take_or_wait(everything));
  Peer& stopped = kit.connect();
  begin_large(stopped, 60'000, 'w');
  kit.settle(1min);
  EXPECT_FALSE(stopped.lost) << "nobody wants its range";
  Peer& other = kit.connect();
  other.ask({.command = C::kWrite, .offset = 10, .length = 10}, 's');
  kit.settle();
  EXPECT_EQ(answered(other), 0U);
  kit.settle(2 * limits::kSlowConnectionGraceMax + 1s);
  EXPECT_TRUE(stopped.ended);
  EXPECT_EQ(answered(other), 1U);
  kit.budget.give(kMiB);
}

TEST(InPlace, ReleasesEverythingWhenTheClientGoesWhileItsRangeIsWanted) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SeededRng rng(seed);
    SessionKit::Options options = with(direct(), rng.one_in(2) ? kMiB / 8 : 4 * kMiB);
    options.seed = seed;
    SessionKit kit(options);
    Peer& first = kit.connect();
    Peer& second = kit.connect();
    begin_large(first, 60'000, 'w');
    kit.settle();
    second.ask({.command = C::kWrite, .offset = 10, .length = 10}, 's');
    if (rng.one_in(3)) first.wire.send(std::string(kLarge - 60'000, 'w'));
    if (rng.one_in(2)) kit.settle(Nanos(rng.below(20)));
    rng.one_in(2) ? first.wire.hang_up() : first.session->stop();
    work_off(kit);
    EXPECT_TRUE(first.ended);
    EXPECT_EQ(answered(second), 1U);
  }
}

// --- ghost writes ---

/// A kernel's socket: given up with requests in it.
class GhostWrites : public ::testing::TestWithParam<bool> {
 protected:
  GhostWrites() : kit_(with(GetParam() ? direct() : ScriptedDevice::Options{})) {}

  Peer& kernel_socket() {
    Session::Options options;
    options.drop_when_hung_up = true;
    return kit_.connect(false, options);
  }
  void expect_untouched() {
    EXPECT_TRUE(
        std::ranges::all_of(kit_.device.bytes, [](std::byte b) { return b == std::byte{}; }));
    EXPECT_EQ(kit_.device.count(Op::kWrite) + kit_.device.count(Op::kTrim), 0U);
  }

  SessionKit kit_;
};

INSTANTIATE_TEST_SUITE_P(Memory, GhostWrites, ::testing::Bool(),
                         [](const auto& memory) { return memory.param ? "Direct" : "Pooled"; });

TEST_P(GhostWrites, ABatchOfAGivenUpSocketIsNotDone) {
  Peer& peer = kernel_socket();
  peer.ask({.command = C::kWrite, .length = 4096}, 'g');
  peer.ask({.command = C::kTrim, .offset = 4096, .length = 4096});
  peer.ask({.command = C::kZero, .offset = 8192, .length = 4096});
  peer.wire.hang_up();
  kit_.settle();
  EXPECT_TRUE(peer.ended);
  expect_untouched();
}

TEST_P(GhostWrites, ALargeWriteOfAGivenUpSocketIsNotBegun) {
  Peer& peer = kernel_socket();
  peer.wire.send(peer.client.request({.command = C::kWrite, .length = 100'000}) +
                 std::string(50'000, 'g'));
  peer.wire.hang_up();
  kit_.settle();
  EXPECT_TRUE(peer.ended);
  expect_untouched();
}

TEST_P(GhostWrites, ALargeWriteGivenUpInTheMiddleIsRepeatedByItsSecondCopy) {
  Peer& first = kernel_socket();
  Peer& second = kernel_socket();
  first.wire.send(first.client.request({.command = C::kWrite, .length = 100'000}) +
                  std::string(60'000, 'w'));
  kit_.settle();
  first.wire.send(std::string(40'000, 'w'));  // lies unread when the socket is given up
  first.wire.hang_up();
  second.ask({.command = C::kWrite, .length = 100'000}, 'w');
  second.ask({.command = C::kFlush});
  kit_.settle();
  EXPECT_TRUE(first.ended);
  EXPECT_EQ(answered(second), 2U);
  // What the kernel writes next must not be undone by what is left of the first copy.
  second.ask({.command = C::kWrite, .offset = 50'000, .length = 20'000}, 'n');
  kit_.settle();
  for (size_t i = 0; i < 100'000; ++i) {
    const char wanted = i >= 50'000 && i < 70'000 ? 'n' : 'w';
    ASSERT_EQ(kit_.device.bytes[i], static_cast<std::byte>(wanted)) << i;
  }
}

TEST_P(GhostWrites, AWriteThatWaitsForItsRangeIsDroppedWhenItsSocketIsGivenUp) {
  Peer& first = kernel_socket();
  Peer& second = kernel_socket();
  kit_.device.pace = Pace::kPark;
  const uint64_t trim = first.ask({.command = C::kTrim, .length = 4096});
  kit_.settle();
  ASSERT_EQ(kit_.device.parked(), 1U);
  second.ask({.command = C::kWrite, .length = 4096}, 'g');
  second.ask({.command = C::kWrite, .offset = 1000, .length = 50'000}, 'g');
  kit_.settle();
  second.wire.hang_up();
  kit_.device.unpark_all();
  kit_.settle();
  EXPECT_NE(first.client.answer(trim), nullptr);
  EXPECT_TRUE(second.ended);
  EXPECT_EQ(kit_.device.count(Op::kWrite), 0U);
  EXPECT_EQ(kit_.device.bytes[0], std::byte{0});
}

TEST_P(GhostWrites, ALongTrimStopsWhenItsSocketIsGivenUp) {
  SessionKit kit(with(hollow()));
  Session::Options options;
  options.drop_when_hung_up = true;
  Peer& peer = kit.connect(false, options);
  kit.device.pace = Pace::kPark;
  peer.ask({.command = C::kTrim, .length = 1U << 31});
  kit.settle();
  ASSERT_EQ(kit.device.parked(), 1U);
  peer.wire.hang_up();
  work_off(kit);
  EXPECT_EQ(kit.device.count(Op::kTrim), 1U);
  EXPECT_TRUE(peer.ended);
}

TEST_P(GhostWrites, AClientOfTheNetworkIsServedThoughItHasGone) {
  Peer& peer = kit_.connect(false);
  peer.ask({.command = C::kWrite, .length = 4096}, 'k');
  peer.wire.finish_sending();
  kit_.settle();
  EXPECT_EQ(kit_.device.bytes[0], std::byte{'k'});
}

}  // namespace
}  // namespace usbd::nbd

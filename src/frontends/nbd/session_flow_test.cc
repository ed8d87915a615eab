// SPDX-License-Identifier: Apache-2.0
//
// How a session holds back at its caps and goes on, and how it ends in every state. At the end of
// each test the kit checks that nothing is kept: no claim, no buffer, no session. What it shares
// with others: session_budget_test.cc, session_in_place_test.cc.

#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "frontends/nbd/testing/session_setup.h"

namespace usbd::nbd {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using C = StreamClient;
using Pace = ScriptedDevice::Pace;

// --- caps ---

TEST(SessionFlow, StopsReadingAtTheRequestCapAndGoesOn) {
  SessionKit kit(with(hollow()));
  Peer& peer = kit.connect();
  kit.device.pace = Pace::kPark;
  for (int i = 0; i < 3000; ++i) peer.ask({.command = C::kRead, .length = 512});
  kit.settle();
  EXPECT_EQ(kit.device.parked(), size_t{limits::kRequestsPerConnectionMax});
  for (int rounds = 0; answered(peer) < 3000; ++rounds) {
    ASSERT_LT(rounds, 3000);
    kit.device.unpark(0);
    kit.settle();
    EXPECT_LE(kit.device.parked(), size_t{limits::kRequestsPerConnectionMax});
  }
}

TEST(SessionFlow, CountsUnsentRepliesAgainstTheRequestCap) {
  SessionKit kit(with(direct()));
  Peer& peer = kit.connect();
  peer.wire.set_room(0);
  for (int i = 0; i < 20'000; ++i) peer.wire.send(peer.client.request({.command = C::kFlush}));
  kit.settle();
  EXPECT_EQ(kit.device.count(Op::kFlush), size_t{limits::kRequestsPerConnectionMax});
  EXPECT_GT(peer.wire.unread(), 0U) << "it stopped reading";
  for (int i = 0; i < 200'000 && answered(peer) < 20'000; ++i) {
    peer.wire.set_room(5000);
    kit.settle(1us);
  }
  EXPECT_EQ(answered(peer), 20'000U);
}

TEST(SessionFlow, AnswersAllOfALongQueueOfARapidReader) {
  SessionKit kit(with(direct()));
  Peer& peer = kit.connect();
  std::string requests;
  for (int i = 0; i < 30'000; ++i) requests += peer.client.request({.command = C::kFlush});
  peer.wire.send(requests);
  kit.settle();
  EXPECT_EQ(answered(peer), 30'000U);
}

/// Many requests in one receive whose replies use up the byte cap two by two and are sent at once:
/// each pause was over as soon as it had begun, and the next one began inside it.
TEST(SessionFlow, Regression_GoesOnThroughManyPausesWithoutNesting) {
  ScriptedDevice::Options options = hollow();
  options.tries = true;
  SessionKit kit(with(options));
  uintptr_t deepest = UINTPTR_MAX;
  uintptr_t highest = 0;
  kit.device.failure = [&](Op, ByteRange) -> std::optional<Errc> {
    const auto frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    deepest = std::min(deepest, frame);
    highest = std::max(highest, frame);
    return std::nullopt;
  };
  constexpr uint64_t kReads = 200;
  Peer& peer = kit.connect(false);
  peer.wire.discard();
  std::string requests;
  for (uint64_t i = 0; i < kReads; ++i) {
    requests += peer.client.request({.command = C::kRead, .length = 32 * kMiB});
  }
  peer.wire.send(requests);
  kit.settle();
  EXPECT_EQ(peer.wire.bytes_from_server(), kReads * (32 * kMiB + 16));
  EXPECT_LT(highest - deepest, 8U << 10);
}

TEST(SessionFlow, StopsReadingAtTheByteCapAndGoesOn) {
  SessionKit kit(with(hollow(), 512ULL << 20));
  Peer& peer = kit.connect();
  kit.device.pace = Pace::kPark;
  peer.wire.discard();
  for (int i = 0; i < 20; ++i) peer.ask({.command = C::kRead, .length = 8 * kMiB});
  kit.settle();
  EXPECT_EQ(kit.device.parked(), limits::kBytesPerConnectionMax / (8 * kMiB));
  work_off(kit);
  EXPECT_EQ(peer.wire.bytes_from_server(), 20U * (8 * kMiB + 28));
}

TEST(SessionFlow, CountsRepliesThatNobodyReadsAgainstTheByteCap) {
  SessionKit kit(with(hollow(), 512ULL << 20));
  Peer& peer = kit.connect();
  peer.wire.discard();
  peer.wire.set_room(100);
  for (int i = 0; i < 20; ++i) peer.ask({.command = C::kRead, .length = 8 * kMiB});
  kit.settle();
  EXPECT_EQ(kit.device.count(Op::kRead), limits::kBytesPerConnectionMax / (8 * kMiB));
  peer.wire.set_room(Wire::kNoLimit);
  kit.settle();
  EXPECT_EQ(peer.wire.bytes_from_server(), 20U * (8 * kMiB + 28));
}

/// Asks for anything, anywhere near the device, at a pace that changes.
void ask_at_random(Peer& peer, uint64_t size, SeededRng& rng) {
  peer.wire.set_receive_max(rng.one_in(2) ? Wire::kNoLimit : rng.between(1, 5000));
  peer.wire.set_room(rng.one_in(4) ? rng.below(20'000) : Wire::kNoLimit);
  const uint64_t offset = rng.below(size + 1000);
  const auto length = static_cast<uint32_t>(rng.below(rng.one_in(3) ? 200'000 : 5000));
  peer.ask({.command = static_cast<uint16_t>(rng.below(7)),
            .offset = offset,
            .length = length,
            .flags = rng.one_in(5) ? C::kFua : uint16_t{0}});
}

TEST(SessionFlow, ServesRandomLoadsWithALittleBudgetInManyOrders) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    SeededRng rng(seed);
    ScriptedDevice::Options device;
    device.size = 256 << 10;
    device.direct = seed % 4 == 0;
    device.tries = seed % 2 == 0;
    device.block_size = seed % 3 == 0 ? 512 : 1;
    SessionKit::Options options = with(device, 256 << 10);
    options.seed = seed;
    SessionKit kit(options);
    kit.device.pace = seed % 5 == 0 ? Pace::kAtOnce : Pace::kYield;
    size_t asked[3] = {};
    for (int i = 0; i < 3; ++i) kit.connect(i != 1);
    for (int round = 0; round < 60; ++round) {
      const size_t who = rng.below(3);
      Peer& peer = *kit.peers[who];
      ask_at_random(peer, device.size, rng);
      asked[who] = peer.client.pending() + answered(peer);
      if (rng.one_in(3)) kit.settle(10us);
    }
    for (const auto& peer : kit.peers) peer->wire.set_room(Wire::kNoLimit);
    kit.settle(5ms);
    for (size_t who = 0; who < 3; ++who) {
      const Peer& peer = *kit.peers[who];
      EXPECT_EQ(answered(peer), peer.lost ? answered(peer) : asked[who]);
    }
  }
}

// --- the handshake ---

std::string option(uint32_t number, const std::string& data) {
  return "IHAVEOPT" + C::be(number) + C::be(static_cast<uint32_t>(data.size())) + data;
}
const std::string& client_flags() {
  static const std::string kFlags = C::be(uint32_t{3});
  return kFlags;
}
std::string go(const std::string& name) {
  return option(7, C::be(static_cast<uint32_t>(name.size())) + name + C::be(uint16_t{0}));
}

TEST(SessionFlow, GoesFromHandshakeToTransmissionInOneReceive) {
  for (size_t piece : {1U, 5U, 1000U}) {
    SessionKit kit(with(direct()));
    Peer& peer = kit.greet();
    peer.wire.set_receive_max(piece);
    peer.wire.send(client_flags() + go("") +
                   peer.client.request({.command = C::kRead, .length = 3}));
    kit.loop.run_for(1ms);
    EXPECT_TRUE(peer.handshake_done);
    const std::string stream = peer.wire.take();
    EXPECT_EQ(stream.substr(0, 8), "NBDMAGIC");
    peer.client.feed(stream.substr(stream.size() - 19));
    EXPECT_EQ(peer.client.answers().size(), 1U);
  }
}

TEST(SessionFlow, ClosesAHandshakeThatTakesTooLong) {
  SessionKit kit(with(direct()));
  Peer& silent = kit.greet();
  Peer& dripping = kit.greet();
  Peer& good = kit.greet();
  good.wire.send(client_flags() + go(""));
  for (int i = 0; i < 9; ++i) {
    dripping.wire.send(std::string(1, client_flags()[static_cast<size_t>(i % 4)]));
    kit.settle(1s);
  }
  EXPECT_FALSE(silent.lost || dripping.lost);
  kit.settle(2s);
  EXPECT_TRUE(silent.ended);
  EXPECT_TRUE(dripping.ended);
  EXPECT_TRUE(silent.wire.closed_by_server());
  kit.settle(1h);
  EXPECT_FALSE(good.lost);
}

TEST(SessionFlow, SendsTheLastAnswerBeforeItClosesAfterTheHandshake) {
  SessionKit kit(with(direct()));
  Peer& peer = kit.greet();
  peer.wire.send(client_flags() + option(2, ""));  // NBD_OPT_ABORT
  kit.loop.run_for(1ms);
  EXPECT_TRUE(peer.ended);
  EXPECT_EQ(peer.wire.take().size(), 18U + 20U) << "greeting and acknowledgement";
}

TEST(SessionFlow, StopsReadingOptionsWhoseAnswersAreNotRead) {
  SessionKit kit(with(direct()));
  Peer& peer = kit.greet();
  kit.loop.run_for(1ms);
  EXPECT_EQ(peer.wire.take().size(), 18U);
  peer.wire.set_room(0);
  kit.receive_max = 4096;
  peer.wire.send(client_flags());
  for (int i = 0; i < 1000; ++i) peer.wire.send(option(3, ""));  // NBD_OPT_LIST
  kit.loop.run_for(1ms);
  EXPECT_GT(peer.wire.unread(), 5000U);
  peer.wire.set_room(Wire::kNoLimit);
  kit.loop.run_for(1ms);
  EXPECT_EQ(peer.wire.unread(), 0U);
  EXPECT_EQ(peer.wire.take().size(), 1000U * (20 + 4 + 20));
  peer.wire.send(go(""));
  kit.loop.run_for(1ms);
  EXPECT_TRUE(peer.handshake_done);
}

/// The timer may fire in the very round in which the session ends: whichever order the loop then
/// chooses, no work of a session that is gone may be run.
TEST(SessionFlow, Regression_SurvivesATimerThatFiresWhileItEnds) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SessionKit::Options options = with(direct());
    options.seed = seed;
    SessionKit kit(options);
    for (int i = 0; i < 4; ++i) kit.greet();
    kit.loop.run_for(limits::kHandshakeTimeout - Nanos(50) + Nanos(seed));
    for (const auto& peer : kit.peers) peer->wire.hang_up();
    kit.loop.run_for(1s);
  }
}

// --- ends ---

TEST(SessionEnd, ClosesAfterSomethingThatIsNoRequest) {
  SessionKit kit(with(direct()));
  Peer& peer = kit.connect();
  const uint64_t before = peer.ask({.command = C::kWrite, .length = 100});
  std::string bad = peer.client.request({.command = C::kRead, .length = 1});
  bad[0] = 'X';
  peer.wire.send(bad +
                 peer.client.request({.command = C::kWrite, .offset = 500, .length = 1}, 'y'));
  kit.settle();
  EXPECT_TRUE(peer.ended);
  EXPECT_TRUE(peer.wire.closed_by_server());
  EXPECT_NE(peer.client.answer(before), nullptr) << "what came before is done and answered";
  EXPECT_EQ(kit.device.bytes[500], std::byte{0}) << "what came after is not looked at";
}

TEST(SessionEnd, AnswersWhatCameBeforeADisconnect) {
  SessionKit kit(with(hollow()));
  Peer& peer = kit.connect();
  kit.device.pace = Pace::kPark;
  for (uint64_t i = 0; i < 10; ++i) {
    peer.ask({.command = C::kWrite, .offset = i * 100, .length = 50});
  }
  peer.wire.send(peer.client.request({.command = C::kDisc}));
  peer.ask({.command = C::kWrite, .length = 1});
  kit.settle();
  EXPECT_FALSE(peer.ended);
  work_off(kit);
  EXPECT_TRUE(peer.ended);
  EXPECT_EQ(answered(peer), 10U);
}

TEST(SessionEnd, AnswersWhatCameBeforeADisconnectAlsoWithoutBudget) {
  SessionKit kit(with(hollow(), kMiB));
  Peer& peer = kit.connect();
  kit.device.pace = Pace::kPark;
  for (uint64_t i = 0; i < 10; ++i) peer.ask({.command = C::kRead, .length = kMiB});
  peer.wire.send(peer.client.request({.command = C::kDisc}));
  kit.settle();
  EXPECT_FALSE(peer.ended);
  work_off(kit);
  EXPECT_EQ(answered(peer), 10U);
  EXPECT_TRUE(peer.ended);
}

TEST(SessionEnd, StopAnswersWhatRunsAndTakesNothingNew) {
  SessionKit kit(with(hollow()));
  Peer& peer = kit.connect();
  kit.device.pace = Pace::kPark;
  const uint64_t runs = peer.ask({.command = C::kRead, .length = 512});
  kit.settle();
  peer.session->stop();
  peer.ask({.command = C::kRead, .length = 512});
  kit.settle();
  EXPECT_FALSE(peer.ended);
  EXPECT_EQ(kit.device.parked(), 1U);
  work_off(kit);
  EXPECT_NE(peer.client.answer(runs), nullptr);
  EXPECT_TRUE(peer.ended);
  EXPECT_EQ(answered(peer), 1U);
}

TEST(SessionEnd, StopEndsAnIdleSessionAndAnIncompleteRequest) {
  SessionKit kit(with(direct()));
  Peer& idle = kit.connect();
  Peer& midway = kit.connect();
  Peer& pooled = kit.connect();
  midway.wire.send(midway.client.request({.command = C::kWrite, .length = 65536}) + "start");
  pooled.wire.send(pooled.client.request({.command = C::kWrite, .length = 9000}) + "start");
  kit.settle();
  for (const auto& peer : kit.peers) peer->session->stop();
  kit.settle();
  EXPECT_TRUE(idle.ended && midway.ended && pooled.ended);
  EXPECT_THAT(kit.device.stored, ElementsAre(ByteRange(0, 5)));
}

TEST(SessionEnd, StopInTheMiddleOfABudgetWaitEndsIt) {
  SessionKit kit(with(hollow(), kMiB));
  Peer& peer = kit.connect();
  kit.device.pace = Pace::kPark;
  for (int i = 0; i < 5; ++i) peer.ask({.command = C::kRead, .length = kMiB});
  kit.settle();
  peer.session->stop();
  work_off(kit);
  EXPECT_TRUE(peer.ended);
  EXPECT_EQ(answered(peer), 1U);
}

TEST(SessionEnd, AbortWaitsOnlyForWhatRunsInTheDevice) {
  SessionKit kit(with(hollow()));
  Peer& peer = kit.connect();
  kit.device.pace = Pace::kPark;
  peer.ask({.command = C::kWrite, .length = 4096});
  peer.ask({.command = C::kWrite, .length = 4096});  // waits for the first
  kit.settle();
  peer.session->abort("test");
  kit.settle();
  EXPECT_TRUE(peer.lost);
  EXPECT_TRUE(peer.wire.closed_by_server());
  EXPECT_FALSE(peer.ended);
  work_off(kit);
  EXPECT_TRUE(peer.ended);
  EXPECT_EQ(kit.device.count(Op::kWrite), 1U) << "the one that waited is dropped";
}

TEST(SessionEnd, ReleasesEverythingWhenTheClientGoesAtAnyMoment) {
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    SeededRng rng(seed);
    ScriptedDevice::Options device = seed % 3 == 0 ? direct() : ScriptedDevice::Options{};
    SessionKit::Options options = with(device, 256 << 10);
    options.seed = seed;
    SessionKit kit(options);
    kit.device.pace = seed % 2 == 0 ? Pace::kPark : Pace::kYield;
    Session::Options session_options;
    session_options.drop_when_hung_up = seed % 5 == 0;
    Peer& peer = kit.connect(true, session_options);
    Peer& witness = kit.connect();
    std::string stream;
    for (int i = 0; i < 20; ++i) {
      const auto length = static_cast<uint32_t>(rng.between(1, 90'000));
      stream += peer.client.request({.command = rng.one_in(2) ? C::kWrite : C::kRead,
                                     .offset = rng.below(100'000),
                                     .length = length},
                                    'k');
    }
    peer.wire.set_receive_max(rng.between(100, 100'000));
    peer.wire.send(stream.substr(0, rng.below(stream.size())));
    kit.settle(Nanos(rng.below(200)));
    rng.one_in(2) ? peer.wire.hang_up() : peer.wire.finish_sending();
    kit.settle();
    work_off(kit);
    EXPECT_TRUE(peer.ended);
    const uint64_t cookie = witness.ask({.command = C::kWrite, .length = 200'000});
    work_off(kit);
    EXPECT_NE(witness.client.answer(cookie), nullptr);
  }
}

}  // namespace
}  // namespace usbd::nbd

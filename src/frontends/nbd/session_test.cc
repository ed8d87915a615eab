// SPDX-License-Identifier: Apache-2.0
//
// What a session answers: every command, every refusal, every way the bytes may be cut, with
// devices of every pace. How it holds back and how it ends: session_flow_test.cc.

#include "frontends/nbd/session.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "frontends/nbd/testing/session_kit.h"

namespace usbd::nbd {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::SizeIs;
using C = StreamClient;
using Pace = ScriptedDevice::Pace;

constexpr uint32_t kPerm = 1;
constexpr uint32_t kIo = 5;
constexpr uint32_t kInvalid = 22;
constexpr uint32_t kNoSpace = 28;
constexpr uint32_t kNoAnswer = ~0U;

struct Way {
  const char* name;
  ScriptedDevice::Options device;
  Pace pace;
};

std::vector<Way> ways() {
  ScriptedDevice::Options direct;
  direct.direct = direct.tries = true;
  ScriptedDevice::Options tries;
  tries.tries = true;
  ScriptedDevice::Options blocks;
  blocks.block_size = 512;
  blocks.capabilities.fua = Support::kEmulated;
  return {{"Direct", direct, Pace::kAtOnce}, {"DirectSlow", direct, Pace::kYield},
          {"Try", tries, Pace::kAtOnce},     {"AtOnce", {}, Pace::kAtOnce},
          {"Yielding", {}, Pace::kYield},    {"Parking", {}, Pace::kPark},
          {"Blocks", blocks, Pace::kYield},  {"BlocksParking", blocks, Pace::kPark}};
}

/// A client of a device of one way, with simple or structured replies.
class SessionCommands : public ::testing::TestWithParam<std::tuple<Way, bool>> {
 protected:
  SessionCommands() : kit_({.device = way().device}), peer_(kit_.connect(structured())) {
    kit_.device.pace = way().pace;
  }
  static const Way& way() { return std::get<0>(GetParam()); }
  static bool structured() { return std::get<1>(GetParam()); }

  /// Waits until the device has nothing left to do.
  void settle() {
    kit_.settle();
    while (kit_.device.parked() > 0) {
      kit_.device.unpark_all();
      kit_.settle();
    }
  }
  C::Answer answer(C::Ask ask, char fill = 'x') {
    const uint64_t cookie = peer_.ask(ask, fill);
    settle();
    const C::Answer* const found = peer_.client.answer(cookie);
    return found != nullptr ? *found : C::Answer{.error = kNoAnswer};
  }
  uint32_t error(C::Ask ask, char fill = 'x') { return answer(ask, fill).error; }
  std::string read(uint64_t offset, uint32_t length) {
    const C::Answer found = answer({.command = C::kRead, .offset = offset, .length = length});
    EXPECT_EQ(found.error, 0U);
    return found.data;
  }

  SessionKit kit_;
  Peer& peer_;
};

INSTANTIATE_TEST_SUITE_P(Devices, SessionCommands,
                         ::testing::Combine(::testing::ValuesIn(ways()), ::testing::Bool()),
                         [](const auto& way) {
                           return std::string(std::get<0>(way.param).name) +
                                  (std::get<1>(way.param) ? "Structured" : "Simple");
                         });

TEST_P(SessionCommands, ReadsWhatWasWritten) {
  EXPECT_EQ(error({.command = C::kWrite, .offset = 4096, .length = 8192}, 'a'), 0U);
  EXPECT_EQ(error({.command = C::kWrite, .offset = 5000, .length = 10}, 'b'), 0U);
  EXPECT_EQ(read(4990, 30), std::string(10, 'a') + std::string(10, 'b') + std::string(10, 'a'));
  EXPECT_EQ(read(0, 4097), std::string(4096, '\0') + "a");
}

TEST_P(SessionCommands, WritesAndReadsLargePayloads) {
  EXPECT_EQ(error({.command = C::kWrite, .offset = 1000, .length = 700'000}, 'L'), 0U);
  EXPECT_EQ(read(999, 700'002),
            std::string(1, '\0') + std::string(700'000, 'L') + std::string(1, '\0'));
}

TEST_P(SessionCommands, ServesTheOtherCommands) {
  EXPECT_EQ(error({.command = C::kWrite, .offset = 0, .length = 65536}, 'z'), 0U);
  EXPECT_EQ(error({.command = C::kTrim, .offset = 4096, .length = 4096}), 0U);
  EXPECT_EQ(error({.command = C::kZero, .offset = 10'000, .length = 5}), 0U);
  EXPECT_EQ(error({.command = C::kZero, .offset = 20'480, .length = 4096, .flags = C::kNoHole}),
            0U);
  EXPECT_EQ(error({.command = C::kZero, .offset = 40'960, .length = 512, .flags = C::kFastZero}),
            0U);
  EXPECT_EQ(error({.command = C::kFlush}), 0U);
  EXPECT_EQ(error({.command = C::kCache, .offset = 1, .length = 2}), 0U);
  std::string expected(65536, 'z');
  for (const auto& [offset, length] :
       {std::pair(4096U, 4096U), {10'000U, 5U}, {20'480U, 4096U}, {40'960U, 512U}}) {
    std::fill_n(expected.begin() + offset, length, '\0');
  }
  EXPECT_EQ(read(0, 65536), expected);
}

TEST_P(SessionCommands, ServesFuaOnEveryCommand) {
  for (const uint16_t command : {C::kRead, C::kWrite, C::kFlush, C::kTrim, C::kCache, C::kZero}) {
    const uint32_t length = command == C::kFlush ? 0 : 512;
    EXPECT_EQ(error({.command = command, .length = length, .flags = C::kFua}), 0U) << command;
  }
  const bool native = way().device.capabilities.fua == Support::kNative;
  const auto durable = std::ranges::count_if(
      kit_.device.calls, [](const auto& call) { return call.fua || call.op == Op::kFlush; });
  // A write into direct memory has no call of its own.
  EXPECT_GE(durable, native && way().device.direct ? 3 : 4);
}

TEST_P(SessionCommands, AnswersBlockStatusOnlyToThoseWhoAgreedOnIt) {
  kit_.device.kinds = {{.length = 512},
                       {.length = 1024, .hole = true, .zero = true},
                       {.length = 1U << 20, .hole = false, .zero = true}};
  const C::Answer found = answer({.command = C::kStatus, .offset = 0, .length = 4096});
  if (!structured()) {
    EXPECT_EQ(found.error, kInvalid);
    return;
  }
  EXPECT_EQ(found.error, 0U);
  EXPECT_THAT(found.extents, ElementsAre(Pair(512U, 0U), Pair(1024U, 3U), Pair(2560U, 2U)));
  const C::Answer one = answer({.command = C::kStatus, .length = 4096, .flags = C::kReqOne});
  EXPECT_THAT(one.extents, ElementsAre(Pair(512U, 0U)));
}

TEST_P(SessionCommands, AnswersDfReadsInOnePiece) {
  const C::Answer found = answer({.command = C::kRead, .length = 100'000, .flags = C::kDf});
  EXPECT_EQ(found.error, structured() ? 0U : kInvalid);
  EXPECT_EQ(found.chunks, structured() ? 1U : 0U);
}

TEST_P(SessionCommands, RefusesWhatIsOutOfRangeAndGoesOn) {
  const uint64_t size = kit_.served.info().size;
  const uint32_t huge = 0xFFFFFFFF;
  EXPECT_EQ(error({.command = C::kRead, .offset = size, .length = 1}), kInvalid);
  EXPECT_EQ(error({.command = C::kRead, .offset = 0, .length = huge}), kInvalid);
  EXPECT_EQ(error({.command = C::kRead, .offset = 5, .length = 0}), kInvalid);
  EXPECT_EQ(error({.command = C::kRead, .offset = UINT64_MAX, .length = 16}), kInvalid);
  EXPECT_EQ(error({.command = C::kWrite, .offset = size - 1, .length = 2}), kNoSpace);
  EXPECT_EQ(error({.command = C::kWrite, .offset = UINT64_MAX - 1, .length = 2}), kNoSpace);
  EXPECT_EQ(error({.command = C::kZero, .offset = size, .length = 512}), kNoSpace);
  EXPECT_EQ(error({.command = C::kZero, .offset = 0, .length = huge}), kNoSpace);
  EXPECT_EQ(error({.command = C::kTrim, .offset = size - 5, .length = huge}), kInvalid);
  EXPECT_EQ(error({.command = C::kCache, .offset = size + 1, .length = 1}), kInvalid);
  EXPECT_EQ(error({.command = C::kFlush, .offset = 1}), kInvalid);
  EXPECT_EQ(error({.command = C::kFlush, .length = 512}), kInvalid);
  EXPECT_EQ(error({.command = C::kStatus, .offset = size, .length = 1}), kInvalid);
  EXPECT_EQ(read(size - 1, 1), std::string(1, '\0'));
}

TEST_P(SessionCommands, RefusesUnknownCommandsAndFlags) {
  for (const uint16_t command : std::initializer_list<uint16_t>{8, 9, 100, 0xFFFF}) {
    EXPECT_EQ(error({.command = command, .length = 100}), kInvalid) << command;
  }
  EXPECT_EQ(error({.command = C::kRead, .length = 1, .flags = 32}), kInvalid);
  EXPECT_EQ(error({.command = C::kRead, .length = 1, .flags = C::kNoHole}), kInvalid);
  EXPECT_EQ(error({.command = C::kTrim, .length = 1, .flags = C::kFastZero}), kInvalid);
  EXPECT_EQ(error({.command = C::kFlush, .flags = 0x8000}), kInvalid);
  EXPECT_EQ(error({.command = C::kWrite, .length = 3, .flags = C::kDf}), kInvalid);
  EXPECT_EQ(error({.command = C::kWrite, .length = 90'000, .flags = C::kNoHole}), kInvalid);
  EXPECT_EQ(read(0, 2), std::string(2, '\0')) << "the payloads of refused writes are skipped";
}

TEST_P(SessionCommands, GivesADevicesErrorsWithoutData) {
  kit_.device.failure = [](Op, ByteRange) { return Errc::kIo; };
  const bool in_place = way().device.direct;  // direct memory cannot fail
  EXPECT_EQ(error({.command = C::kRead, .length = 5000}), in_place ? 0U : kIo);
  EXPECT_EQ(error({.command = C::kWrite, .length = 5000}), in_place ? 0U : kIo);
  EXPECT_EQ(error({.command = C::kWrite, .length = 100'000}), in_place ? 0U : kIo);
  EXPECT_EQ(error({.command = C::kFlush}), kIo);
  EXPECT_EQ(error({.command = C::kTrim, .length = 512}), kIo);
  EXPECT_EQ(error({.command = C::kZero, .length = 512}), kIo);
  EXPECT_EQ(error({.command = C::kCache, .length = 512}), kIo);
  EXPECT_EQ(error({.command = C::kStatus, .length = 512}), structured() ? kIo : kInvalid);
  kit_.device.failure = [](Op op, ByteRange) -> std::optional<Errc> {
    if (op != Op::kWrite) return std::nullopt;
    return Errc::kNoSpace;
  };
  EXPECT_EQ(error({.command = C::kWrite, .length = 512}), in_place ? 0U : kNoSpace);
  kit_.device.failure = nullptr;
  EXPECT_EQ(error({.command = C::kFlush}), 0U) << "an error concerns the one request";
  EXPECT_EQ(kit_.served.stats().snapshot().in_flight, 0U);
}

TEST_P(SessionCommands, AnswersManyAtOnceEachWithItsOwnData) {
  for (uint32_t i = 0; i < 64; ++i) {
    peer_.wire.send(peer_.client.request({.command = C::kWrite, .offset = i * 1024, .length = 1024},
                                         static_cast<char>('!' + i)));
  }
  settle();
  std::vector<uint64_t> cookies;
  for (uint32_t i = 0; i < 64; ++i) {
    cookies.push_back(peer_.ask({.command = C::kRead, .offset = i * 1024, .length = 1024}));
  }
  settle();
  for (uint32_t i = 0; i < 64; ++i) {
    const C::Answer* const found = peer_.client.answer(cookies[i]);
    ASSERT_NE(found, nullptr) << i;
    EXPECT_EQ(found->data, std::string(1024, static_cast<char>('!' + i)));
  }
}

TEST_P(SessionCommands, UnderstandsRequestsCutAtEveryByte) {
  for (size_t piece = 1; piece <= 40; ++piece) {
    peer_.wire.set_receive_max(piece);
    peer_.wire.set_send_max(piece);
    const char fill = static_cast<char>('A' + piece);
    const uint64_t offset = piece * 100;
    peer_.wire.send(
        peer_.client.request({.command = C::kFlush}) +
        peer_.client.request({.command = C::kWrite, .offset = offset, .length = 50}, fill) +
        peer_.client.request({.command = C::kWrite, .offset = UINT64_MAX / 2, .length = 33}, 'x') +
        peer_.client.request({.command = C::kTrim, .offset = 9000, .length = 1}));
    settle();
    ASSERT_EQ(read(offset, 50), std::string(50, fill)) << "in pieces of " << piece;
    EXPECT_EQ(peer_.client.pending(), 0U);
  }
}

TEST_P(SessionCommands, UnderstandsAStreamCutAnywhere) {
  SeededRng rng(99);
  std::string model(65536, '\0');
  for (int round = 0; round < 40; ++round) {
    const uint64_t offset = rng.below(60'000);
    const auto length = static_cast<uint32_t>(rng.between(1, 65536 - offset));
    const char fill = static_cast<char>(rng.between('a', 'z'));
    peer_.wire.set_receive_max(rng.between(1, 50'000));
    peer_.wire.set_send_max(rng.between(1, 50'000));
    EXPECT_EQ(error({.command = C::kWrite, .offset = offset, .length = length}, fill), 0U);
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(offset), length, fill);
    ASSERT_EQ(read(0, 65536), model) << "round " << round;
  }
}

// --- what depends on the export ---

uint32_t error_of(SessionKit& kit, Peer& peer, C::Ask ask) {
  const uint64_t cookie = peer.ask(ask);
  kit.settle();
  const C::Answer* const found = peer.client.answer(cookie);
  return found != nullptr ? found->error : kNoAnswer;
}

TEST(Session, RefusesUnalignedRequestsOfAStrictExport) {
  SessionKit::Options options;
  options.device.block_size = 512;
  options.served.strict_alignment = true;
  SessionKit kit(options);
  Peer& peer = kit.connect();
  EXPECT_EQ(error_of(kit, peer, {.command = C::kRead, .offset = 1, .length = 512}), kInvalid);
  EXPECT_EQ(error_of(kit, peer, {.command = C::kWrite, .offset = 0, .length = 511}), kInvalid);
  EXPECT_EQ(error_of(kit, peer, {.command = C::kTrim, .offset = 512, .length = 1000}), kInvalid);
  EXPECT_EQ(error_of(kit, peer, {.command = C::kWrite, .offset = 512, .length = 512}), 0U);
}

TEST(Session, RefusesChangesOfAReadOnlyExport) {
  SessionKit::Options options;
  options.served.read_only = true;
  SessionKit kit(options);
  Peer& peer = kit.connect();
  for (const uint16_t command : {C::kWrite, C::kTrim, C::kZero}) {
    EXPECT_EQ(error_of(kit, peer, {.command = command, .length = 100'000}), kPerm);
  }
  EXPECT_EQ(error_of(kit, peer, {.command = C::kRead, .length = 512}), 0U);
  EXPECT_TRUE(kit.device.count(Op::kWrite) == 0 && kit.device.count(Op::kTrim) == 0);
}

TEST(Session, RefusesWhatTheDeviceHasNot) {
  SessionKit::Options options;
  options.device.capabilities = {.trim = Support::kNone, .write_zeroes = Support::kEmulated};
  SessionKit kit(options);
  Peer& peer = kit.connect();
  EXPECT_EQ(error_of(kit, peer, {.command = C::kTrim, .length = 512}), kInvalid);
  EXPECT_EQ(error_of(kit, peer, {.command = C::kZero, .length = 512, .flags = C::kFastZero}),
            kInvalid)
      << "the flag was not offered";
  EXPECT_EQ(error_of(kit, peer, {.command = C::kZero, .length = 512}), 0U);
}

TEST(Session, SkipsTheLargestPayloadThereIs) {
  SessionKit kit({});
  Peer& peer = kit.connect();
  const uint64_t cookie = peer.ask({.command = C::kRead, .length = 1});
  peer.wire.send(peer.client.request({.command = C::kWrite, .length = 0x0FFFFFFF}));
  const uint64_t refused = peer.client.last_cookie();
  const std::string piece(1 << 20, 'j');
  for (uint64_t left = 0x0FFFFFFF; left > 0;) {
    const uint64_t part = std::min<uint64_t>(left, piece.size());
    peer.wire.send(std::string_view(piece).substr(0, part));
    left -= part;
    kit.settle(Nanos(1000));
  }
  const uint64_t after = peer.ask({.command = C::kRead, .length = 7});
  kit.settle();
  ASSERT_NE(peer.client.answer(cookie), nullptr);
  ASSERT_NE(peer.client.answer(refused), nullptr);
  EXPECT_EQ(peer.client.answer(refused)->error, kInvalid);
  ASSERT_NE(peer.client.answer(after), nullptr);
  EXPECT_THAT(peer.client.answer(after)->data, SizeIs(7));
  EXPECT_EQ(kit.device.count(Op::kWrite), 0U);
}

TEST(Session, AnswersInTheMiddleOfASlowOne) {
  SessionKit kit({});
  Peer& peer = kit.connect();
  kit.device.pace = Pace::kPark;
  const uint64_t slow = peer.ask({.command = C::kRead, .length = 512});
  kit.settle();
  kit.device.pace = Pace::kAtOnce;
  EXPECT_EQ(error_of(kit, peer, {.command = C::kRead, .offset = 0, .length = 512}), 0U);
  EXPECT_EQ(peer.client.answer(slow), nullptr);
  kit.device.unpark_all();
  kit.settle();
  EXPECT_NE(peer.client.answer(slow), nullptr);
}

TEST(Session, KeepsOverlappingWritesOfTwoClientsApart) {
  SessionKit kit({});
  Peer& one = kit.connect();
  Peer& other = kit.connect(false);
  kit.device.pace = Pace::kPark;
  const uint64_t first = one.ask({.command = C::kWrite, .offset = 0, .length = 4096}, '1');
  kit.settle();
  const uint64_t second = other.ask({.command = C::kWrite, .offset = 2048, .length = 4096}, '2');
  const uint64_t third = one.ask({.command = C::kTrim, .offset = 0, .length = 100});
  const uint64_t apart = other.ask({.command = C::kWrite, .offset = 8192, .length = 10}, '4');
  kit.settle();
  EXPECT_EQ(kit.device.parked(), 2U) << "the first and the one apart";
  kit.device.unpark_all();
  kit.settle();
  EXPECT_NE(one.client.answer(first), nullptr);
  EXPECT_NE(other.client.answer(apart), nullptr);
  EXPECT_EQ(other.client.answer(second), nullptr);
  EXPECT_EQ(kit.device.parked(), 2U) << "those that waited for the first";
  kit.device.unpark_all();
  kit.settle();
  EXPECT_NE(one.client.answer(third), nullptr);
  EXPECT_NE(other.client.answer(second), nullptr);
  EXPECT_EQ(kit.device.bytes[0], std::byte{0});
  EXPECT_EQ(kit.device.bytes[100], std::byte{'1'});
  EXPECT_EQ(kit.device.bytes[2048], std::byte{'2'});
}

TEST(Session, CountsWhatItDoes) {
  SessionKit kit({.device = {.direct = true, .tries = true}});
  Peer& peer = kit.connect();
  peer.ask({.command = C::kWrite, .length = 4096});
  peer.ask({.command = C::kWrite, .offset = 8192, .length = 50'000});
  peer.ask({.command = C::kRead, .length = 1000});
  peer.ask({.command = C::kRead, .length = 0});
  peer.ask({.command = C::kFlush});
  peer.ask({.command = C::kTrim, .length = 4096});
  kit.settle();
  const StatsSnapshot counted = kit.served.stats().snapshot();
  EXPECT_EQ(counted.of(Op::kWrite).operations, 2U);
  EXPECT_EQ(counted.of(Op::kWrite).bytes, 54'096U);
  EXPECT_EQ(counted.of(Op::kRead).operations, 2U);
  EXPECT_EQ(counted.of(Op::kRead).errors, 1U);
  EXPECT_EQ(counted.of(Op::kRead).bytes, 1000U);
  EXPECT_EQ(counted.of(Op::kFlush).operations, 1U);
  EXPECT_EQ(counted.of(Op::kTrim).bytes, 4096U);
  EXPECT_EQ(counted.in_flight, 0U);
}

TEST(Session, TellsADirectDeviceWhatWasStored) {
  SessionKit kit({.device = {.direct = true, .tries = true}});
  Peer& peer = kit.connect();
  peer.ask({.command = C::kWrite, .offset = 10, .length = 20});
  peer.ask({.command = C::kWrite, .offset = 65536, .length = 65536});
  peer.ask({.command = C::kWrite, .offset = 100, .length = 5, .flags = C::kFua});
  kit.settle();
  EXPECT_THAT(kit.device.stored,
              ElementsAre(ByteRange(10, 20), ByteRange(65536, 65536), ByteRange(100, 5)));
}

}  // namespace
}  // namespace usbd::nbd

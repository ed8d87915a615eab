// SPDX-License-Identifier: Apache-2.0
//
// What a device with large blocks or few operations is asked for, call by call, and that clients
// who do not know of its blocks never lose a byte to each other: against a model, in seeded orders.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "base/assert.h"
#include "base/limits.h"
#include "base/random.h"
#include "core/export.h"

namespace usbd {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint64_t kMiB = 1 << 20;

struct Shape {
  Geometry geometry;
  Capabilities capabilities = {};
  /// Suspend in every call, so that requests mix.
  bool waits = false;
  /// Whether there are bytes behind it; without, any size costs nothing.
  bool stores = true;
};

/// Notes every call, and asserts what the interface promises to a device: whole blocks, within its
/// size, at most max_io, and no two changes of one byte outstanding.
class RecordingDevice final : public Device {
 public:
  explicit RecordingDevice(Shape shape) : shape_(shape) {
    if (shape_.stores) bytes.resize(shape_.geometry.size);
  }

  std::string name() const override { return "recording"; }
  Geometry geometry() const override { return shape_.geometry; }
  Capabilities capabilities() const override { return shape_.capabilities; }

  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    const ByteRange range(offset, data.size());
    USBD_ASSERT(range.length <= shape_.geometry.max_io);
    note("read", range, "");
    co_await pause(range);
    const std::optional<Error> error = take_error();
    if (error) co_return *error;
    if (shape_.stores) std::memcpy(data.data(), bytes.data() + offset, data.size());
    co_return Result<void>();
  }
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override {
    const ByteRange range(offset, data.size());
    USBD_ASSERT(range.length <= shape_.geometry.max_io);
    note("write", range, flags.fua ? " fua" : "");
    enter(range);
    co_await pause(range);
    const std::optional<Error> error = take_error();
    if (!error && shape_.stores) std::memcpy(bytes.data() + offset, data.data(), data.size());
    leave(range);
    if (error) co_return *error;
    co_return Result<void>();
  }
  Task<Result<void>> flush() override {
    calls.emplace_back("flush");
    const std::optional<Error> error = take_error();
    if (error) co_return *error;
    co_return Result<void>();
  }
  Task<Result<void>> trim(ByteRange range, WriteFlags flags) override {
    note("trim", range, flags.fua ? " fua" : "");
    co_return co_await clear(range);
  }
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags flags) override {
    note("zero", range,
         fmt::format("{}{}{}", flags.fua ? " fua" : "", flags.no_hole ? " no_hole" : "",
                     flags.fast_only ? " fast" : ""));
    co_return co_await clear(range);
  }
  Task<Result<std::vector<Extent>>> extents(ByteRange range, size_t extents_max) override {
    calls.push_back(fmt::format("extents {}+{} {}", range.offset, range.length, extents_max));
    co_return extents_answer;
  }
  Task<Result<void>> cache(ByteRange range) override {
    note("cache", range, "");
    co_return Result<void>();
  }
  Task<Result<void>> close() override { co_return Result<void>(); }

  std::vector<std::string> take_calls() { return std::exchange(calls, {}); }
  /// The n-th call from now fails with `code` (1: the next).
  void fail(int nth, Errc code) {
    fail_in_ = nth;
    error_ = code;
  }

  std::vector<std::byte> bytes;
  std::vector<std::string> calls;
  std::vector<Extent> extents_answer;
  /// What was being changed when a call came that overlaps it: must stay empty.
  std::vector<ByteRange> changing;

 private:
  Task<void> pause(ByteRange range) {
    if (shape_.waits) {
      for (uint64_t i = 0; i <= range.offset / 512 % 3; ++i) co_await Loop::current().schedule();
    }
  }
  Task<Result<void>> clear(ByteRange range) {
    enter(range);
    co_await pause(range);
    const std::optional<Error> error = take_error();
    if (!error && shape_.stores) std::memset(bytes.data() + range.offset, 0, range.length);
    leave(range);
    if (error) co_return *error;
    co_return Result<void>();
  }
  void note(const char* what, ByteRange range, const std::string& flags) {
    const uint64_t block = shape_.geometry.block_size;
    USBD_ASSERT(range.length > 0 && range.end() <= shape_.geometry.size);
    USBD_ASSERT(range.offset % block == 0 && range.length % block == 0);
    calls.push_back(fmt::format("{} {}+{}{}", what, range.offset, range.length, flags));
  }
  void enter(ByteRange range) {
    for (const ByteRange& other : changing) EXPECT_FALSE(other.overlaps(range));
    changing.push_back(range);
  }
  void leave(ByteRange range) { changing.erase(std::ranges::find(changing, range)); }
  std::optional<Error> take_error() {
    if (fail_in_ == 0) return std::nullopt;
    --fail_in_;
    if (fail_in_ > 0) return std::nullopt;
    return Error(error_);
  }

  const Shape shape_;
  int fail_in_ = 0;
  Errc error_ = Errc::kIo;
};

struct Client final : Requester {
  bool is_gone() override { return gone_after-- <= 0; }
  int gone_after = 1 << 30;
};

/// One export of one recording device, and requests to it.
class Bench {
 public:
  explicit Bench(Shape shape) : device(shape), served(device, {}) {}

  int change(Request request, Bytes data = {}) {
    EXPECT_EQ(served.check(request), 0);
    return outcome(loop.run(served.change(request, data, false, client)));
  }
  int write(ByteRange range, uint8_t fill, bool fua = false) {
    const std::vector<std::byte> data(range.length, std::byte{fill});
    return change({.op = Op::kWrite, .fua = fua, .range = range}, data);
  }
  int read(ByteRange range, std::vector<std::byte>& data) {
    data.assign(range.length, std::byte{0xEE});
    return outcome(loop.run(served.read(range, data)));
  }
  static int outcome(const std::optional<Result<void>>& result) {
    EXPECT_TRUE(result.has_value()) << "the request hangs";
    return !result || *result ? 0 : result->error().number();
  }
  /// Every byte of the device, as text runs: "0*100 7*12".
  [[nodiscard]] std::string content() const {
    std::string text;
    for (size_t i = 0; i < device.bytes.size();) {
      size_t end = i;
      while (end < device.bytes.size() && device.bytes[end] == device.bytes[i]) ++end;
      text +=
          fmt::format("{}{}*{}", i > 0 ? " " : "", std::to_integer<int>(device.bytes[i]), end - i);
      i = end;
    }
    return text;
  }

  RecordingDevice device;
  Export served;
  Client client;
  SimLoop loop{{}};
};

Shape blocks_of(uint32_t block_size, uint64_t blocks) {
  return {.geometry = {.size = block_size * blocks, .block_size = block_size}};
}

Capabilities native() {
  return {.trim = Support::kNative,
          .write_zeroes = Support::kNative,
          .fast_zero = true,
          .fua = Support::kNative,
          .extents = Support::kNative};
}

Shape native_blocks_of(uint32_t block_size, uint64_t blocks) {
  Shape shape = blocks_of(block_size, blocks);
  shape.capabilities = native();
  return shape;
}

// --- writes ---

TEST(Emulation, PassesWholeBlocksThrough) {
  Bench bench(blocks_of(512, 16));
  EXPECT_EQ(bench.write({512, 1024}, 1), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("write 512+1024"));
}

TEST(Emulation, ReadsModifiesAndWritesTheBlockOfASmallWrite) {
  Bench bench(blocks_of(512, 4));
  EXPECT_EQ(bench.write({512, 512}, 7), 0);
  bench.device.take_calls();
  EXPECT_EQ(bench.write({600, 100}, 9), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("read 512+512", "write 512+512"));
  EXPECT_EQ(bench.content(), "0*512 7*88 9*100 7*324 0*1024");
}

TEST(Emulation, SplitsAnUnalignedWriteIntoEdgesAndMiddle) {
  Bench bench(blocks_of(512, 8));
  EXPECT_EQ(bench.write({0, 4096}, 1), 0);
  bench.device.take_calls();
  EXPECT_EQ(bench.write({500, 1600}, 2), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("read 0+512", "write 0+512", "write 512+1536",
                                                     "read 2048+512", "write 2048+512"));
  EXPECT_EQ(bench.content(), "1*500 2*1600 1*1996");
}

TEST(Emulation, WritesAcrossABlockBoundaryWithoutAWholeBlock) {
  Bench bench(blocks_of(4096, 3));
  EXPECT_EQ(bench.write({4090, 10}, 3), 0);
  EXPECT_THAT(bench.device.take_calls(),
              ElementsAre("read 0+4096", "write 0+4096", "read 4096+4096", "write 4096+4096"));
  EXPECT_EQ(bench.content(), "0*4090 3*10 0*8188");
}

TEST(Emulation, EndsAnUnalignedWriteAtTheFirstError) {
  Bench bench(blocks_of(512, 8));
  bench.device.fail(1, Errc::kIo);
  EXPECT_EQ(bench.write({10, 600}, 5), EIO);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("read 0+512"));
  bench.device.fail(2, Errc::kNoSpace);
  EXPECT_EQ(bench.write({10, 600}, 5), ENOSPC);
  EXPECT_EQ(bench.content(), "0*4096");
  EXPECT_EQ(bench.served.locks().held_count(), 0U);
  EXPECT_EQ(bench.write({10, 600}, 5), 0) << "an error concerns one request";
}

TEST(Emulation, SplitsWhatIsLongerThanTheDeviceTakes) {
  Shape shape = blocks_of(512, 16);
  shape.geometry.max_io = 1024;
  Bench bench(shape);
  EXPECT_EQ(bench.write({0, 2560}, 4), 0);
  EXPECT_THAT(bench.device.take_calls(),
              ElementsAre("write 0+1024", "write 1024+1024", "write 2048+512"));
  std::vector<std::byte> data;
  EXPECT_EQ(bench.read({512, 1536}, data), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("read 512+1024", "read 1536+512"));
  EXPECT_TRUE(std::ranges::all_of(data, [](std::byte byte) { return byte == std::byte{4}; }));
}

// --- reads ---

TEST(Emulation, ReadsWholeBlocksAndGivesThePartAskedFor) {
  Bench bench(blocks_of(512, 8));
  for (uint8_t i = 0; i < 8; ++i) EXPECT_EQ(bench.write({i * 512U, 512}, i), 0);
  bench.device.take_calls();
  std::vector<std::byte> data;
  EXPECT_EQ(bench.read({1023, 514}, data), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("read 512+1536"));
  EXPECT_EQ(data.front(), std::byte{1});
  EXPECT_EQ(data[1], std::byte{2});
  EXPECT_EQ(data[512], std::byte{2});
  EXPECT_EQ(data[513], std::byte{3});
}

TEST(Emulation, GivesAReadsError) {
  Bench bench(blocks_of(512, 8));
  std::vector<std::byte> data;
  bench.device.fail(1, Errc::kIo);
  EXPECT_EQ(bench.read({1, 5}, data), EIO);
  bench.device.fail(1, Errc::kIo);
  EXPECT_EQ(bench.read({0, 512}, data), EIO);
}

// --- FUA ---

TEST(Emulation, FlushesAfterAChangeWithFuaThatTheDeviceLacks) {
  Shape shape = blocks_of(512, 8);
  shape.capabilities.trim = shape.capabilities.write_zeroes = Support::kNative;
  Bench bench(shape);
  EXPECT_EQ(bench.write({0, 512}, 1, true), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("write 0+512", "flush"));
  EXPECT_EQ(bench.change({.op = Op::kTrim, .fua = true, .range = {0, 512}}), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("trim 0+512", "flush"));
  EXPECT_EQ(bench.change({.op = Op::kWriteZeroes, .fua = true, .range = {0, 512}}), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("zero 0+512", "flush"));
}

TEST(Emulation, FailsAFuaWriteWhoseFlushFailed) {
  Bench bench(blocks_of(512, 8));
  bench.device.fail(2, Errc::kIo);
  EXPECT_EQ(bench.write({0, 512}, 1, true), EIO);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("write 0+512", "flush"));
}

TEST(Emulation, DoesNotFlushAfterAFailedWrite) {
  Bench bench(blocks_of(512, 8));
  bench.device.fail(1, Errc::kNoSpace);
  EXPECT_EQ(bench.write({0, 512}, 1, true), ENOSPC);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("write 0+512"));
}

TEST(Emulation, HandsFuaToADeviceThatHasIt) {
  Bench bench(native_blocks_of(512, 8));
  EXPECT_EQ(bench.write({100, 1024}, 1, true), 0);
  EXPECT_THAT(bench.device.take_calls(),
              ElementsAre("read 0+512", "write 0+512 fua", "write 512+512 fua", "read 1024+512",
                          "write 1024+512 fua"));
  EXPECT_EQ(bench.change({.op = Op::kTrim, .fua = true, .range = {0, 1024}}), 0);
  EXPECT_EQ(bench.change({.op = Op::kWriteZeroes, .fua = true, .range = {0, 1024}}), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("trim 0+1024 fua", "zero 0+1024 fua"));
}

// --- trims and zeroings ---

TEST(Emulation, ZeroesTheRaggedEdgesOfATrim) {
  Shape shape = native_blocks_of(512, 8);
  shape.capabilities.fua = Support::kEmulated;
  Bench bench(shape);
  EXPECT_EQ(bench.write({0, 4096}, 1), 0);
  bench.device.take_calls();
  EXPECT_EQ(bench.change({.op = Op::kTrim, .range = {500, 2000}}), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("trim 512+1536", "read 0+512", "write 0+512",
                                                     "read 2048+512", "write 2048+512"));
  EXPECT_EQ(bench.content(), "1*500 0*2000 1*1596");
}

TEST(Emulation, ZeroesWithinOneBlock) {
  Shape shape = native_blocks_of(4096, 2);
  for (const Op op : {Op::kTrim, Op::kWriteZeroes}) {
    Bench bench(shape);
    EXPECT_EQ(bench.write({0, 8192}, 1), 0);
    bench.device.take_calls();
    EXPECT_EQ(bench.change({.op = op, .range = {10, 20}}), 0);
    EXPECT_THAT(bench.device.take_calls(), ElementsAre("read 0+4096", "write 0+4096 fua"));
    EXPECT_EQ(bench.change({.op = op, .range = {4196, 3996}}), 0);
    EXPECT_EQ(bench.content(), "1*10 0*20 1*4166 0*3996") << op_name(op);
  }
}

TEST(Emulation, TrimsByZeroingWhereThatIsWhatTheDeviceHas) {
  Shape shape = blocks_of(512, 8);
  shape.capabilities.trim = Support::kEmulated;
  shape.capabilities.write_zeroes = Support::kNative;
  Bench bench(shape);
  EXPECT_EQ(bench.change({.op = Op::kTrim, .range = {512, 1024}}), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("zero 512+1024"));
}

TEST(Emulation, WritesZerosWhereTheDeviceHasNoZeroing) {
  Shape shape = blocks_of(512, 8192);  // 4 MiB
  shape.geometry.max_io = 2 * kMiB;
  Bench bench(shape);
  EXPECT_EQ(bench.write({0, 2 * kMiB}, 1), 0);
  bench.device.take_calls();
  EXPECT_EQ(bench.change({.op = Op::kWriteZeroes, .range = {512, 2 * kMiB}}), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre(fmt::format("write 512+{}", kMiB),
                                                     fmt::format("write {}+{}", kMiB + 512, kMiB)));
  EXPECT_EQ(bench.content(), fmt::format("1*512 0*{}", 4 * kMiB - 512));
}

TEST(Emulation, WritesZerosWhenTheDeviceCannotZeroThisOnce) {
  Bench bench(native_blocks_of(512, 8));
  bench.device.fail(1, Errc::kNotSupported);
  EXPECT_EQ(bench.change({.op = Op::kWriteZeroes, .fua = true, .no_hole = true, .range = {0, 512}}),
            0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("zero 0+512 fua no_hole", "write 0+512 fua"));
  bench.device.fail(1, Errc::kIo);
  EXPECT_EQ(bench.change({.op = Op::kWriteZeroes, .range = {0, 512}}), EIO);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("zero 0+512")) << "only for kNotSupported";
}

TEST(Emulation, RefusesFastZeroingRatherThanBeSlow) {
  const Request fast{.op = Op::kWriteZeroes, .fast_only = true, .range = {0, 1024}};
  Bench none(blocks_of(512, 8));
  EXPECT_EQ(none.change(fast), EOPNOTSUPP);
  EXPECT_THAT(none.device.take_calls(), IsEmpty());
  Request ragged = fast;
  ragged.range = {5, 1024};
  EXPECT_EQ(none.change(ragged), EOPNOTSUPP);
  EXPECT_THAT(none.device.take_calls(), IsEmpty()) << "nothing is changed before it is refused";

  Bench has(native_blocks_of(512, 8));
  EXPECT_EQ(has.change(fast), 0);
  EXPECT_THAT(has.device.take_calls(), ElementsAre("zero 0+1024 fast"));
  has.device.fail(1, Errc::kNotSupported);
  EXPECT_EQ(has.change(fast), EOPNOTSUPP);
  EXPECT_THAT(has.device.take_calls(), ElementsAre("zero 0+1024 fast"));
}

TEST(Emulation, ChangesNothingWhenARaggedFastZeroingIsRefused) {
  Bench bench(native_blocks_of(512, 8));
  EXPECT_EQ(bench.write({0, 4096}, 1), 0);
  bench.device.fail(1, Errc::kNotSupported);
  EXPECT_EQ(bench.change({.op = Op::kWriteZeroes, .fast_only = true, .range = {100, 2000}}),
            EOPNOTSUPP);
  EXPECT_EQ(bench.content(), "1*4096");
}

TEST(Emulation, DoesNotRefuseALongFastZeroingOnceAPartIsZero) {
  const uint64_t chunk = limits::kTrimChunk;
  Shape shape{.geometry = {.size = 8 * chunk, .block_size = 4096},
              .capabilities = native(),
              .stores = false};
  Bench bench(shape);
  const Request request{.op = Op::kWriteZeroes, .fast_only = true, .range = {0, 3 * chunk}};
  bench.device.fail(2, Errc::kNotSupported);
  EXPECT_EQ(bench.change(request), 0);
  EXPECT_EQ(bench.device.take_calls()[1], fmt::format("zero {}+{}", chunk, chunk));
  bench.device.fail(1, Errc::kNotSupported);
  EXPECT_EQ(bench.change(request), EOPNOTSUPP);
  EXPECT_EQ(bench.device.take_calls().size(), 1U);
}

TEST(Emulation, PassesNoHoleOn) {
  Bench bench(native_blocks_of(512, 8));
  EXPECT_EQ(bench.change({.op = Op::kWriteZeroes, .no_hole = true, .range = {0, 512}}), 0);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("zero 0+512 no_hole"));
}

// --- long clearings ---

Shape large(uint64_t size) {
  return {.geometry = {.size = size, .block_size = 4096},
          .capabilities = native(),
          .waits = true,
          .stores = false};
}

TEST(Emulation, TrimsLongRangesInPiecesThatEndOnRoundOffsets) {
  const uint64_t chunk = limits::kTrimChunk;
  Bench bench(large(8 * chunk));
  EXPECT_EQ(bench.change({.op = Op::kTrim, .range = {chunk / 2, 2 * chunk}}), 0);
  EXPECT_THAT(bench.device.take_calls(),
              ElementsAre(fmt::format("trim {}+{}", chunk / 2, chunk / 2),
                          fmt::format("trim {}+{}", chunk, chunk),
                          fmt::format("trim {}+{}", 2 * chunk, chunk / 2)));
  EXPECT_EQ(bench.served.locks().held_count(), 0U);
}

Task<void> write_block(Export& served, uint64_t offset, Requester& client, Nanos& finished) {
  const std::vector<std::byte> data(4096);
  const Request request{.op = Op::kWrite, .range = {offset, data.size()}};
  const Result<void> result = co_await served.change(request, data, false, client);
  EXPECT_TRUE(result.has_value());
  finished = Loop::current().now();
}

TEST(Emulation, LetsWritesInBetweenThePiecesOfALongTrim) {
  const uint64_t chunk = limits::kTrimChunk;
  Bench bench(large(64 * chunk));
  Nanos first{0};
  Nanos last{0};
  bench.loop.spawn(write_block(bench.served, 0, bench.client, first));
  bench.loop.spawn(write_block(bench.served, 64 * chunk - 4096, bench.client, last));
  EXPECT_EQ(bench.change({.op = Op::kTrim, .range = {0, 64 * chunk}}), 0);
  const Nanos trimmed = bench.loop.now();
  bench.loop.run_until_idle();
  EXPECT_LT(first, trimmed);
  EXPECT_LT(last, trimmed) << "a write to the end waited for the whole trim";
}

TEST(Emulation, StopsALongTrimWhoseRequesterIsGone) {
  const uint64_t chunk = limits::kTrimChunk;
  Bench bench(large(8 * chunk));
  bench.client.gone_after = 2;
  EXPECT_EQ(bench.change({.op = Op::kTrim, .range = {0, 4 * chunk}}), ECANCELED);
  EXPECT_EQ(bench.device.take_calls().size(), 2U);
  EXPECT_EQ(bench.served.locks().held_count(), 0U);
}

TEST(Emulation, EndsALongTrimAtTheFirstError) {
  const uint64_t chunk = limits::kTrimChunk;
  Bench bench(large(8 * chunk));
  bench.device.fail(2, Errc::kIo);
  EXPECT_EQ(bench.change({.op = Op::kTrim, .range = {0, 4 * chunk}}), EIO);
  EXPECT_EQ(bench.device.take_calls().size(), 2U);
  EXPECT_EQ(bench.served.locks().held_count(), 0U);
}

TEST(Emulation, FlushesOnceAfterALongTrimWithFua) {
  const uint64_t chunk = limits::kTrimChunk;
  for (const Support fua : {Support::kEmulated, Support::kNative}) {
    Shape shape = large(8 * chunk);
    shape.capabilities.fua = fua;
    Bench bench(shape);
    EXPECT_EQ(bench.change({.op = Op::kTrim, .fua = true, .range = {0, 2 * chunk}}), 0);
    EXPECT_THAT(bench.device.take_calls(),
                ElementsAre(fmt::format("trim 0+{}", chunk),
                            fmt::format("trim {}+{}", chunk, chunk), "flush"));
  }
}

// --- claims ---

TEST(Emulation, DropsAChangeWhoseRequesterIsGoneWhenItsTurnComes) {
  Bench bench(blocks_of(512, 8));
  std::array<RangeLocks::Claim, 1> held{RangeLocks::Claim{{0, 512}}};
  bench.served.locks().try_acquire(held);
  Nanos finished{0};
  bench.client.gone_after = 0;
  const std::vector<std::byte> data(512);
  std::optional<int> outcome;
  const auto run = [](Export& served, Bytes payload, Requester& client,
                      std::optional<int>& result) -> Task<void> {
    const Request request{.op = Op::kWrite, .range = {0, 512}};
    const Result<void> done = co_await served.change(request, payload, false, client);
    result = done ? 0 : done.error().number();
  };
  bench.loop.spawn(run(bench.served, data, bench.client, outcome));
  bench.loop.run_until_idle();
  EXPECT_FALSE(outcome.has_value());
  bench.served.locks().release(held);
  bench.loop.run_until_idle();
  EXPECT_EQ(outcome, ECANCELED);
  EXPECT_THAT(bench.device.take_calls(), IsEmpty());
  EXPECT_EQ(bench.served.locks().held_count(), 0U);
  EXPECT_EQ(finished, Nanos(0));
}

TEST(Emulation, ReleasesTheClaimItWasGiven) {
  Bench bench(blocks_of(512, 8));
  std::array<RangeLocks::Claim, 1> claim{RangeLocks::Claim{{0, 512}}};
  bench.served.locks().try_acquire(claim);
  const std::vector<std::byte> data(10);
  const Request request{.op = Op::kWrite, .range = {3, 10}};
  EXPECT_EQ(Bench::outcome(bench.loop.run(bench.served.change(request, data, true, bench.client))),
            0);
  EXPECT_EQ(bench.served.locks().held_count(), 0U);
}

// --- extents, cache ---

TEST(Emulation, ClipsExtentsToWhatWasAsked) {
  Bench bench(native_blocks_of(4096, 16));
  bench.device.extents_answer = {{.length = 4096, .hole = true, .zero = true},
                                 {.length = 8192},
                                 {.length = 40960, .hole = true, .zero = true}};
  const auto found = bench.loop.run(bench.served.extents({5000, 10'000}, 10));
  ASSERT_TRUE(found && *found);
  EXPECT_THAT(**found, ElementsAre(Extent{3192, true, true}, Extent{6808, false, false}));
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("extents 4096+12288 10"));
}

TEST(Emulation, CallsAllDataWhereTheDeviceKnowsNoExtents) {
  Bench bench(blocks_of(512, 8));
  const auto found = bench.loop.run(bench.served.extents({5, 1000}, 1));
  ASSERT_TRUE(found && *found);
  EXPECT_THAT(**found, ElementsAre(Extent{1000, false, false}));
  EXPECT_THAT(bench.device.take_calls(), IsEmpty());
}

TEST(Emulation, CachesWholeBlocks) {
  Bench bench(blocks_of(512, 8));
  const auto done = bench.loop.run(bench.served.cache({500, 20}));
  ASSERT_TRUE(done && *done);
  EXPECT_THAT(bench.device.take_calls(), ElementsAre("cache 0+1024"));
}

// --- many at once, against a model ---

constexpr uint64_t kClients = 8;
constexpr uint64_t kStripe = 300;  // bytes of each client: several share a block

/// One client that owns some bytes and changes only those; whatever others do to the blocks they
/// share, it must find what it wrote.
Task<void> own_bytes(Export& served, uint64_t first, uint64_t seed, Requester& client) {
  SeededRng rng(seed);
  std::vector<std::byte> model(kStripe);
  for (int i = 0; i < 60; ++i) {
    const uint64_t offset = rng.below(kStripe);
    const uint64_t length = rng.between(1, kStripe - offset);
    const ByteRange range(first + offset, length);
    const Op op = rng.one_in(3) ? (rng.one_in(2) ? Op::kTrim : Op::kWriteZeroes) : Op::kWrite;
    std::vector<std::byte> data(op == Op::kWrite ? length : 0);
    rng.fill(data);
    const Request request{.op = op, .fua = rng.one_in(8), .range = range};
    const Result<void> changed = co_await served.change(request, data, false, client);
    EXPECT_TRUE(changed.has_value());
    data.resize(length);
    std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(offset));
    std::vector<std::byte> found(kStripe);
    const ByteRange all(first, kStripe);
    const Result<void> read = co_await served.read(all, found);
    EXPECT_TRUE(read.has_value());
    EXPECT_EQ(found, model);
  }
}

void check_neighbours(Shape shape, uint64_t seed) {
  shape.waits = true;
  RecordingDevice device(shape);
  Export served(device, {});
  Client client;
  SimLoop loop({.seed = seed});
  for (uint64_t i = 0; i < kClients; ++i) {
    loop.spawn(own_bytes(served, 77 + i * kStripe, seed * 100 + i, client));
  }
  EXPECT_EQ(loop.run_until_idle(), SimEnd::kIdle) << "seed " << seed;
  EXPECT_EQ(served.locks().held_count(), 0U);
  EXPECT_TRUE(device.changing.empty());
}

TEST(Emulation, NeverLosesANeighboursBytesInRandomOrders) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    Shape shape = blocks_of(seed % 2 == 0 ? 512 : 4096, seed % 2 == 0 ? 8 : 1);
    if (seed % 3 == 0) shape.capabilities = native();
    if (seed % 2 == 0 && seed % 4 == 0) shape.geometry.max_io = 512;
    if (shape.capabilities.trim == Support::kNone) {
      shape.capabilities.trim = Support::kEmulated;
      shape.capabilities.write_zeroes = Support::kNative;
    }
    check_neighbours(shape, seed);
  }
}

}  // namespace
}  // namespace usbd

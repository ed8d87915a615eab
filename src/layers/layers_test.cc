// SPDX-License-Identifier: Apache-2.0
//
// The layers on a device of bytes, in virtual time.

#include "layers/layers.h"

#include <algorithm>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "base/log.h"
#include "layers/fault_layer.h"
#include "layers/spec.h"
#include "layers/stats_layer.h"

namespace usbd {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr uint64_t kSize = 1U << 20;

/// A device of bytes that can everything, and notes whether it was closed.
class ByteDevice final : public Device {
 public:
  explicit ByteDevice(bool& closed) : closed_(closed) {}

  [[nodiscard]] std::string name() const override { return "bytes"; }
  [[nodiscard]] Geometry geometry() const override { return {.size = kSize}; }
  [[nodiscard]] Capabilities capabilities() const override {
    return {.trim = Support::kNative,
            .write_zeroes = Support::kNative,
            .fast_zero = true,
            .fua = Support::kNative,
            .extents = Support::kNative,
            .resize = Support::kNone,
            .never_blocks = true};
  }
  Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
    std::ranges::copy(Bytes(bytes_).subspan(offset, data.size()), data.begin());
    co_return Result<void>();
  }
  Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags /*flags*/) override {
    std::ranges::copy(data, bytes_.begin() + static_cast<long>(offset));
    co_return Result<void>();
  }
  Task<Result<void>> flush() override { co_return Result<void>(); }
  Task<Result<void>> trim(ByteRange range, WriteFlags /*flags*/) override {
    std::ranges::fill(MutableBytes(bytes_).subspan(range.offset, range.length), std::byte{0});
    co_return Result<void>();
  }
  Task<Result<void>> write_zeroes(ByteRange range, ZeroFlags /*flags*/) override {
    return trim(range, {});
  }
  Task<Result<void>> close() override {
    closed_ = true;
    co_return Result<void>();
  }
  std::optional<Result<void>> try_read(uint64_t offset, MutableBytes data) override {
    std::ranges::copy(Bytes(bytes_).subspan(offset, data.size()), data.begin());
    return Result<void>();
  }
  std::optional<Result<void>> try_write(uint64_t offset, Bytes data, WriteFlags) override {
    std::ranges::copy(data, bytes_.begin() + static_cast<long>(offset));
    return Result<void>();
  }
  std::optional<Result<void>> try_flush() override { return Result<void>(); }
  MutableBytes direct(ByteRange range) override {
    return MutableBytes(bytes_).subspan(range.offset, range.length);
  }

 private:
  bool& closed_;
  std::vector<std::byte> bytes_ = std::vector<std::byte>(kSize);
};

class LayerTest : public ::testing::Test {
 protected:
  void make(std::string_view spec) {
    Result<std::unique_ptr<Device>> made = make_layer(spec, std::make_unique<ByteDevice>(closed_));
    ASSERT_TRUE(made.has_value()) << made.error().message();
    device_ = *std::move(made);
  }
  Result<void> run(Task<Result<void>> task) { return *loop_.run(std::move(task)); }
  Result<void> write(uint64_t offset, int value, uint64_t length = 4096) {
    const std::vector<std::byte> data(length, static_cast<std::byte>(value));
    return run(device_->write(offset, data, {}));
  }
  Result<void> read(uint64_t offset, int* value = nullptr) {
    std::vector<std::byte> data(4096);
    const Result<void> result = run(device_->read(offset, data));
    if (value != nullptr) *value = static_cast<int>(data[0]);
    return result;
  }
  /// How long `task` takes in virtual time. Units: milliseconds.
  int64_t time_of(Task<Result<void>> task) {
    const Nanos start = loop_.now();
    EXPECT_TRUE(run(std::move(task)).has_value());
    return std::chrono::duration_cast<std::chrono::milliseconds>(loop_.now() - start).count();
  }
  int64_t time_of_read() { return time_of(device_->read(0, buffer_)); }
  int64_t time_of_write() { return time_of(device_->write(0, buffer_, {})); }
  void wait(Nanos span) {
    loop_.spawn(sleep(span));
    EXPECT_EQ(loop_.run_until_idle(), SimEnd::kIdle);
  }
  static Task<void> sleep(Nanos span) { co_await Loop::current().sleep_for(span); }

  SimLoop loop_{SimLoop::Options{}};
  bool closed_ = false;
  std::unique_ptr<Device> device_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(4096);
};

TEST(Layers, ChecksASpecWithoutADevice) {
  for (const char* good :
       {"readonly", "stats", "delay:read=10ms", "delay:all=stall,for=1m30s", "delay:flush=0",
        "fault",
        "fault:op=write+trim,error=ENOSPC,rate=0.5,after=1,count=2,range=1MiB+4KiB,seed=9"}) {
    EXPECT_TRUE(check_layer(good).has_value()) << good;
  }
}

TEST(Layers, SaysWhatIsWrongWithASpec) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"", "no name"},
      {"cow", "there are delay, fault, readonly, stats"},
      {"readonly:x=1", "has no key x"},
      {"stats:", "key=value"},
      {"delay:read", "key=value"},
      {"delay:=5", "key=value"},
      {"delay:read=1s,read=2s", "twice"},
      {"delay:read=10", "read=10"},
      {"delay:read=ten", "duration"},
      {"delay:read=-1s", "duration"},
      {"delay:read=9999999999h", "duration"},
      {"delay:read=", "duration"},
      {"delay:rread=1s", "rread"},
      {"delay:write=stall,after=1s", "for=DURATION"},
      {"fault:op=wirte", "wirte"},
      {"fault:op=", "all, or"},
      {"fault:error=EWHAT", "EIO, ENOSPC"},
      {"fault:rate=1.5", "from 0 to 1"},
      {"fault:rate=x", "from 0 to 1"},
      {"fault:rate=0.5x", "from 0 to 1"},
      {"fault:count=-1", "whole number"},
      {"fault:count=5x", "whole number"},
      {"fault:range=5", "OFFSET+LENGTH"},
      {"fault:range=5+0", "OFFSET+LENGTH"},
      {"fault:range=1X+5", "OFFSET+LENGTH"},
      {"fault:range=9999999TiB+5", "OFFSET+LENGTH"},
      {"fault:range=+5", "OFFSET+LENGTH"},
      {"fault:range=5+", "OFFSET+LENGTH"},
      {"delay:all=5", "duration"},
      {"delay:all=-5s", "duration"},
  };
  for (const auto& [spec, expected] : cases) {
    const Result<void> checked = check_layer(spec);
    ASSERT_FALSE(checked.has_value()) << spec;
    EXPECT_TRUE(checked.error().is(Errc::kInvalid));
    EXPECT_THAT(checked.error().message(), HasSubstr(expected)) << spec;
  }
}

TEST(Layers, ExplainsEveryLayer) {
  for (const char* name : {"delay:", "fault:", "readonly\n", "stats\n"}) {
    EXPECT_THAT(layer_help(), HasSubstr(name));
  }
}

TEST_F(LayerTest, ClosesTheDeviceBelow) {
  for (const char* spec : {"readonly", "stats", "delay:all=1s", "fault"}) {
    closed_ = false;
    make(spec);
    EXPECT_EQ(time_of(device_->close()), 0) << "closing passes no gate";
    EXPECT_TRUE(closed_) << spec;
  }
}

TEST_F(LayerTest, DelaysChosenRequests) {
  make("delay:read=10ms,flush=2s");
  EXPECT_EQ(time_of_read(), 10);
  EXPECT_EQ(time_of_write(), 0);
  EXPECT_EQ(time_of(device_->flush()), 2000);
  EXPECT_FALSE(device_->capabilities().never_blocks);
  EXPECT_FALSE(device_->try_read(0, buffer_).has_value()) << "goes by the gate";
  EXPECT_FALSE(device_->try_write(0, buffer_, {}).has_value());
  EXPECT_FALSE(device_->try_flush().has_value());
  EXPECT_TRUE(device_->direct(ByteRange(0, 4096)).empty());
}

TEST_F(LayerTest, DelaysAllKindsButTheOnesNamed) {
  make("delay:all=5ms,trim=1s,read=0");
  EXPECT_EQ(time_of_read(), 0);
  EXPECT_EQ(time_of_write(), 5);
  EXPECT_EQ(time_of(device_->trim(ByteRange(0, 4096), {})), 1000);
  EXPECT_EQ(time_of(device_->write_zeroes(ByteRange(0, 4096), {})), 5);
  EXPECT_EQ(time_of(device_->cache(ByteRange(0, 4096))), 5);
}

TEST_F(LayerTest, StallsUntilTheWindowIsOver) {
  make("delay:write=stall,after=5s,for=6s");
  EXPECT_EQ(time_of_write(), 0);
  wait(7s);
  EXPECT_EQ(time_of_read(), 0);
  EXPECT_EQ(time_of_write(), 4000 - 1);  // the first request was some 100 ns after the start
  EXPECT_EQ(time_of_write(), 0);
}

TEST_F(LayerTest, DelaysOnlyInItsWindow) {
  make("delay:read=10ms,after=1s,for=1s");
  EXPECT_EQ(time_of_read(), 0);
  wait(1500ms);
  EXPECT_EQ(time_of_read(), 10);
  wait(1s);
  EXPECT_EQ(time_of_read(), 0);
}

TEST_F(LayerTest, FailsTheRequestsOfARule) {
  make("fault:op=write,error=ENOSPC,after=2,count=3");
  for (int i = 0; i < 8; ++i) {
    EXPECT_TRUE(read(0).has_value());
    const Result<void> written = write(0, i);
    ASSERT_EQ(written.has_value(), i < 2 || i >= 5) << i;
    if (!written) {
      EXPECT_TRUE(written.error().is(Errc::kNoSpace));
    }
  }
  EXPECT_EQ(static_cast<FaultLayer&>(*device_).injected(), 3U);
}

TEST_F(LayerTest, LeavesTheDeviceUntouchedByAFault) {
  make("fault:op=write+trim+write_zeroes,after=1");
  ASSERT_TRUE(write(0, 5).has_value());
  EXPECT_FALSE(write(0, 6).has_value());
  EXPECT_FALSE(run(device_->trim(ByteRange(0, 4096), {})).has_value());
  EXPECT_FALSE(run(device_->write_zeroes(ByteRange(0, 4096), {})).has_value());
  int value = 0;
  ASSERT_TRUE(read(0, &value).has_value());
  EXPECT_EQ(value, 5);
}

TEST_F(LayerTest, FailsOnlyInItsRange) {
  make("fault:range=64KiB+4KiB");
  EXPECT_TRUE(read(60 << 10).has_value());
  EXPECT_FALSE(read(64 << 10).has_value());
  EXPECT_FALSE(read((60 << 10) + 1).has_value());
  EXPECT_TRUE(read(68 << 10).has_value());
  EXPECT_TRUE(run(device_->flush()).has_value());
}

TEST_F(LayerTest, ReadsSizesAndDurationsAsTheDaemonsFlagsDo) {
  const Result<LayerSpec> spec =
      LayerSpec::parse("x:decimal=1K+2k,binary=1.5KiB+64 ki,wait=1.5h,plus=+1s");
  ASSERT_TRUE(spec.has_value());
  EXPECT_EQ(**spec->range("decimal"), ByteRange(1000, 2000));
  EXPECT_EQ(**spec->range("binary"), ByteRange(1536, 64 << 10));
  EXPECT_EQ(**spec->duration("wait"), 90min);
  EXPECT_EQ(**spec->duration("plus"), 1s);
}

TEST_F(LayerTest, FailsEveryKindOfRequest) {
  make("fault:error=EPERM");
  EXPECT_TRUE(read(0).error().is(Errc::kPerm));
  EXPECT_TRUE(run(device_->flush()).error().is(Errc::kPerm));
  EXPECT_TRUE(run(device_->cache(ByteRange(0, 1))).error().is(Errc::kPerm));
  EXPECT_TRUE(loop_.run(device_->extents(ByteRange(0, 1), 1))->error().is(Errc::kPerm));
}

TEST_F(LayerTest, FailsTheSameRequestsForTheSameSeed) {
  const auto pattern = [this](const char* spec) {
    make(spec);
    std::string failed;
    for (int i = 0; i < 400; ++i) failed += read(0).has_value() ? '.' : 'x';
    return failed;
  };
  const std::string first = pattern("fault:rate=0.1,seed=5");
  EXPECT_EQ(pattern("fault:rate=0.1,seed=5"), first);
  EXPECT_NE(pattern("fault:rate=0.1,seed=6"), first);
  const auto failures = std::ranges::count(first, 'x');
  EXPECT_GT(failures, 15);
  EXPECT_LT(failures, 80);
}

TEST_F(LayerTest, RefusesEveryChange) {
  make("readonly");
  const Capabilities can = device_->capabilities();
  EXPECT_TRUE(can.read_only);
  EXPECT_EQ(can.trim, Support::kNone);
  EXPECT_TRUE(write(0, 1).error().is(Errc::kReadOnly));
  EXPECT_TRUE(device_->try_write(0, buffer_, {})->error().is(Errc::kReadOnly));
  EXPECT_TRUE(run(device_->trim(ByteRange(0, 1), {})).error().is(Errc::kReadOnly));
  EXPECT_TRUE(run(device_->write_zeroes(ByteRange(0, 1), {})).error().is(Errc::kReadOnly));
  EXPECT_TRUE(run(device_->resize(1)).error().is(Errc::kReadOnly));
  EXPECT_TRUE(device_->direct(ByteRange(0, 4096)).empty());
  EXPECT_TRUE(read(0).has_value());
  EXPECT_TRUE(device_->try_read(0, buffer_)->has_value());
}

TEST_F(LayerTest, CountsAndLogsWhatReachesTheDevice) {
  make("stats");
  ASSERT_TRUE(write(0, 1).has_value());
  ASSERT_TRUE(device_->try_write(0, buffer_, {})->has_value());
  ASSERT_TRUE(run(device_->flush()).has_value());
  ASSERT_TRUE(device_->try_flush()->has_value());
  ASSERT_TRUE(run(device_->trim(ByteRange(0, 100), {})).has_value());
  ASSERT_TRUE(loop_.run(device_->extents(ByteRange(0, 100), 1))->has_value());
  const auto& stats = static_cast<StatsLayer&>(*device_);
  EXPECT_EQ(stats.counts(Op::kWrite).operations, 2U);
  EXPECT_EQ(stats.counts(Op::kWrite).bytes, 8192U);
  EXPECT_EQ(stats.counts(Op::kFlush).operations, 2U);
  EXPECT_EQ(stats.counts(Op::kExtents).operations, 1U);
  EXPECT_EQ(stats.counts(Op::kRead).operations, 0U);
  std::string logged;
  log::set_sink([&logged](log::Level, std::string_view line) { logged += line; });
  ASSERT_TRUE(run(device_->close()).has_value());
  log::set_sink([](log::Level, std::string_view) {});
  EXPECT_THAT(logged, HasSubstr("stats(bytes): write 2 (8192 bytes, 0 errors), flush 2"));
}

TEST_F(LayerTest, StacksAndCountsTheFaultsBelow) {
  make("fault:op=read");
  Result<std::unique_ptr<Device>> top = make_layer("stats", std::move(device_));
  ASSERT_TRUE(top.has_value());
  device_ = *std::move(top);
  EXPECT_EQ(device_->name(), "stats(fault(bytes))");
  EXPECT_FALSE(read(0).has_value());
  EXPECT_EQ(static_cast<StatsLayer&>(*device_).counts(Op::kRead).errors, 1U);
  EXPECT_EQ(static_cast<StatsLayer&>(*device_).summary(), "read 1 (0 bytes, 1 errors)");
}

}  // namespace
}  // namespace usbd

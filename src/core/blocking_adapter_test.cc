// SPDX-License-Identifier: Apache-2.0
//
// A BlockingDevice behind the Device interface: on the pool, not more at once than agreed, back on
// the loop that asked, results and errors as they were.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "async/runtime.h"
#include "async/scope.h"
#include "async/testing.h"
#include "base/assert.h"
#include "usbd/blocking_device.h"

namespace usbd {
namespace {

using testing::TestLoop;

/// Counts who is inside, and can hold its callers until enough of them have come.
class MeetingDevice final : public BlockingDevice {
 public:
  struct Options {
    bool single_threaded = false;
    /// Each call waits until so many are inside together (at most two seconds).
    int meet = 1;
  };
  explicit MeetingDevice(Options options) : options_(options) {}

  std::string name() const override { return "meeting"; }
  uint64_t size() const override { return bytes_.size(); }
  uint32_t block_size() const override { return 512; }
  Capabilities capabilities() const override {
    return {.trim = Support::kNative,
            .write_zeroes = Support::kNative,
            .fua = Support::kNative,
            .extents = Support::kNative,
            .never_blocks = true};
  }
  bool single_threaded() const override { return options_.single_threaded; }

  Result<void> read_at(uint64_t offset, MutableBytes data) override {
    meet();
    std::memcpy(data.data(), bytes_.data() + offset, data.size());
    return {};
  }
  Result<void> write_at(uint64_t offset, Bytes data, WriteFlags flags) override {
    meet();
    if (flags.fua) ++fua_writes;
    std::memcpy(bytes_.data() + offset, data.data(), data.size());
    return {};
  }
  Result<void> flush() override {
    ++flushes;
    return Error(Errc::kIo, "the disk is gone");
  }
  Result<void> trim(ByteRange range, WriteFlags) override {
    std::memset(bytes_.data() + range.offset, 0, range.length);
    return {};
  }
  Result<void> write_zeroes(ByteRange, ZeroFlags flags) override {
    if (flags.fast_only) return Errc::kNotSupported;
    return Errc::kNoSpace;
  }
  Result<std::vector<Extent>> extents(ByteRange range, size_t extents_max) override {
    return std::vector<Extent>{{.length = range.length, .hole = extents_max == 7, .zero = false}};
  }
  Result<void> close() override {
    ++closes;
    return {};
  }

  std::atomic<int> most_inside{0};
  std::atomic<int> fua_writes{0};
  std::atomic<int> flushes{0};
  std::atomic<int> closes{0};

 private:
  void meet() {
    std::unique_lock lock(mutex_);
    ++inside_;
    most_inside = std::max(most_inside.load(), inside_);
    threads_.insert_or_assign(std::this_thread::get_id(), true);
    changed_.notify_all();
    changed_.wait_for(lock, std::chrono::seconds(2),
                      [this] { return met_ || inside_ >= options_.meet; });
    met_ = met_ || inside_ >= options_.meet;
    --inside_;
  }

  const Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int inside_ = 0;
  bool met_ = false;
  std::map<std::thread::id, bool> threads_;
  std::vector<std::byte> bytes_ = std::vector<std::byte>(65536);
};

struct Made {
  explicit Made(MeetingDevice::Options options, WorkerPool& pool, unsigned concurrency_max) {
    auto blocking = std::make_unique<MeetingDevice>(options);
    inner = blocking.get();
    device = make_device(std::move(blocking), pool, concurrency_max);
  }
  MeetingDevice* inner = nullptr;
  std::unique_ptr<Device> device;
};

Task<void> read_once(Device& device, uint64_t offset) {
  Loop& home = Loop::current();
  std::vector<std::byte> data(512);
  const Result<void> result = co_await device.read(offset, data);
  EXPECT_TRUE(result.has_value());
  EXPECT_EQ(&Loop::current(), &home);
}

Task<void> read_many(Device& device, uint64_t count) {
  Scope scope;
  for (uint64_t i = 0; i < count; ++i) scope.spawn(read_once(device, i % 128 * 512));
  co_await scope.close();
}

TEST(BlockingAdapter, CallsSeveralAtOnceButNotMoreThanAgreed) {
  TestLoop test;
  const Made made({.meet = 3}, test.pool(), 3);
  test.run(read_many(*made.device, 40));
  EXPECT_EQ(made.inner->most_inside, 3);
}

TEST(BlockingAdapter, NeverOverlapsCallsOfASingleThreadedDevice) {
  TestLoop test;
  const Made made({.single_threaded = true}, test.pool(), 8);
  test.run(read_many(*made.device, 200));
  EXPECT_EQ(made.inner->most_inside, 1);
}

/// Two loops, which make short calls themselves, ask the same device; returns how many calls were
/// inside it at once.
int read_from_two_loops(MeetingDevice::Options options, unsigned concurrency_max) {
  Result<std::unique_ptr<Runtime>> runtime =
      Runtime::start({.loops = 2, .blocking_threads_max = 4, .use_uring = false});
  USBD_ASSERT(runtime.has_value());
  const Made made(options, (*runtime)->blocking_pool(), concurrency_max);
  {
    std::vector<std::jthread> callers;
    for (unsigned loop = 0; loop < 2; ++loop) {
      callers.emplace_back([&, loop] { (*runtime)->run(read_many(*made.device, 300), loop); });
    }
  }
  return made.inner->most_inside;
}

TEST(BlockingAdapter, ReturnsEachCallToItsOwnLoop) {
  EXPECT_LE(read_from_two_loops({}, 2), 2);
  EXPECT_EQ(read_from_two_loops({.single_threaded = true}, 2), 1);
}

TEST(BlockingAdapter, LetsCallsWaitForEachOtherThoughALoopMakesThemItself) {
  EXPECT_EQ(read_from_two_loops({.meet = 3}, 3), 3);
}

Task<void> use_everything(Device& device) {
  std::vector<std::byte> written(1024, std::byte{7});
  const WriteFlags fua{.fua = true};
  const Result<void> write = co_await device.write(512, written, fua);
  EXPECT_TRUE(write.has_value());
  std::vector<std::byte> found(1024);
  const Result<void> read = co_await device.read(512, found);
  EXPECT_TRUE(read.has_value());
  EXPECT_EQ(found, written);
  const ByteRange half(512, 512);
  const WriteFlags plain;
  const Result<void> trim = co_await device.trim(half, plain);
  EXPECT_TRUE(trim.has_value());
  const Result<void> again = co_await device.read(512, found);
  EXPECT_TRUE(again.has_value());
  EXPECT_EQ(found[511], std::byte{0});
  EXPECT_EQ(found[512], std::byte{7});

  const ZeroFlags fast{.fast_only = true};
  const Result<void> refused = co_await device.write_zeroes(half, fast);
  EXPECT_TRUE(!refused && refused.error().is(Errc::kNotSupported));
  const ZeroFlags slow;
  const Result<void> full = co_await device.write_zeroes(half, slow);
  EXPECT_TRUE(!full && full.error().is(Errc::kNoSpace));
  const Result<void> flush = co_await device.flush();
  EXPECT_TRUE(!flush && flush.error().message().starts_with("the disk is gone"));
  const Result<std::vector<Extent>> extents = co_await device.extents(half, 7);
  EXPECT_TRUE(extents && extents->front() == (Extent{512, true, false}));
  const Result<void> resize = co_await device.resize(1 << 20);
  EXPECT_TRUE(!resize && resize.error().is(Errc::kNotSupported));
  const Result<void> cache = co_await device.cache(half);
  EXPECT_TRUE(cache.has_value());
  const Result<void> close = co_await device.close();
  EXPECT_TRUE(close.has_value());
}

TEST(BlockingAdapter, PassesEveryOperationAndItsOutcomeOn) {
  TestLoop test;
  const Made made({}, test.pool(), 1);
  test.run(use_everything(*made.device));
  EXPECT_EQ(made.inner->fua_writes, 1);
  EXPECT_EQ(made.inner->flushes, 1);
  EXPECT_EQ(made.inner->closes, 1);
}

TEST(BlockingAdapter, HasTheShapeOfItsDeviceAndNeverClaimsNotToBlock) {
  TestLoop test;
  const Made made({}, test.pool(), 1);
  EXPECT_EQ(made.device->name(), "meeting");
  const Geometry geometry = made.device->geometry();
  EXPECT_EQ(geometry.size, 65536U);
  EXPECT_EQ(geometry.block_size, 512U);
  EXPECT_EQ(geometry.logical_block_size, 512U);
  EXPECT_FALSE(made.device->capabilities().never_blocks);
  EXPECT_EQ(made.device->capabilities().trim, Support::kNative);
  std::vector<std::byte> data(512);
  EXPECT_FALSE(made.device->try_read(0, data).has_value());
  EXPECT_FALSE(made.device->try_write(0, data, {}).has_value());
  EXPECT_TRUE(made.device->direct({0, 512}).empty());
}

}  // namespace
}  // namespace usbd

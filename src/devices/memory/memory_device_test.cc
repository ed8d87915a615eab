// SPDX-License-Identifier: Apache-2.0
//
// MemoryDevice: its bytes, and the memory it takes and gives back.

#include "devices/memory/memory_device.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <vector>

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "base/random.h"

namespace usbd {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMiB = 1U << 20;
// ThreadSanitizer leaves an application less room: there a "TiB" is 16 GiB.
#if defined(__SANITIZE_THREAD__)
constexpr uint64_t kTiB = uint64_t{16} << 30;
#else
constexpr uint64_t kTiB = uint64_t{1} << 40;
#endif

/// What the kernel says this process has in memory. Units: bytes.
uint64_t process_resident() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  statm >> total >> resident;
  return resident * kPage;
}

Extent data(uint64_t length) {
  return {.length = length, .hole = false, .zero = false};
}
Extent hole(uint64_t length) {
  return {.length = length, .hole = true, .zero = true};
}

class MemoryDeviceTest : public ::testing::Test {
 protected:
  void open(uint64_t size) {
    Result<std::unique_ptr<MemoryDevice>> made = MemoryDevice::open({.size = size});
    ASSERT_TRUE(made.has_value()) << made.error().message();
    device_ = *std::move(made);
  }
  template <typename T>
  T run(Task<T> task) {
    std::optional<T> value = loop_.run(std::move(task));
    EXPECT_TRUE(value.has_value()) << "the task did not finish";
    return *std::move(value);
  }
  void write(uint64_t offset, uint64_t length, int value) {
    const std::vector<std::byte> bytes(length, static_cast<std::byte>(value));
    ASSERT_TRUE(device_->try_write(offset, bytes, {})->has_value());
  }
  void trim(uint64_t offset, uint64_t length) {
    ASSERT_TRUE(run(device_->trim(ByteRange(offset, length), {})).has_value());
  }
  bool reads_as(uint64_t offset, uint64_t length, int value) {
    if (length == 0) return true;
    std::vector<std::byte> bytes(length, std::byte{0xEE});
    EXPECT_TRUE(device_->try_read(offset, bytes)->has_value());
    return std::ranges::count(bytes, static_cast<std::byte>(value)) == static_cast<int64_t>(length);
  }
  std::vector<Extent> extents(uint64_t offset, uint64_t length, size_t max = 100) {
    return *run(device_->extents(ByteRange(offset, length), max));
  }

  SimLoop loop_{SimLoop::Options{}};
  std::unique_ptr<MemoryDevice> device_;
};

TEST_F(MemoryDeviceTest, RefusesSizesThatMakeNoSense) {
  for (const uint64_t size : {uint64_t{0}, MemoryDevice::kSizeMax + 1, UINT64_MAX}) {
    const auto made = MemoryDevice::open({.size = size});
    ASSERT_FALSE(made.has_value());
    EXPECT_TRUE(made.error().is(Errc::kInvalid));
    EXPECT_THAT(made.error().message(), ::testing::HasSubstr(std::to_string(size)));
  }
}

TEST_F(MemoryDeviceTest, SaysWhenTheSystemReservesNoAddressSpace) {
  rlimit old_limit{};
  getrlimit(RLIMIT_AS, &old_limit);
  rlimit limit = old_limit;
  limit.rlim_cur = uint64_t{8} << 30;
  if (setrlimit(RLIMIT_AS, &limit) != 0) GTEST_SKIP() << "machine: cannot set RLIMIT_AS";
  const auto made = MemoryDevice::open({.size = kTiB});
  setrlimit(RLIMIT_AS, &old_limit);
  ASSERT_FALSE(made.has_value());
  EXPECT_TRUE(made.error().is(Errc::kNoMemory)) << made.error().message();
}

TEST_F(MemoryDeviceTest, TakesMemoryOnlyForWhatIsWritten) {
  const uint64_t before = process_resident();
  open(kTiB);
  write(kTiB / 2 + 1, 1, 1);
  write(kTiB - kMiB, kMiB, 2);
  EXPECT_EQ(device_->resident_bytes(), kMiB + kPage);
  // Far from a terabyte; sanitizers add a share of their own.
  EXPECT_LT(process_resident() - before, 32 * kMiB);
  EXPECT_TRUE(reads_as(kTiB / 2, 1, 0));
  EXPECT_TRUE(reads_as(kTiB / 2 + 1, 1, 1));
  EXPECT_TRUE(reads_as(kTiB - kMiB, kMiB, 2));
}

TEST_F(MemoryDeviceTest, GivesTrimmedMemoryBack) {
  open(32 * kMiB);
  write(0, 16 * kMiB, 1);
  const uint64_t full = process_resident();
  trim(kMiB, 14 * kMiB);
  EXPECT_EQ(device_->resident_bytes(), 2 * kMiB);
  EXPECT_LT(process_resident() + 12 * kMiB, full);
  EXPECT_TRUE(reads_as(0, kMiB, 1));
  EXPECT_TRUE(reads_as(kMiB, 14 * kMiB, 0));
  EXPECT_TRUE(reads_as(15 * kMiB, kMiB, 1));
}

TEST_F(MemoryDeviceTest, TrimsRaggedEdgesToTheByte) {
  open(16 * kPage);
  const std::vector<ByteRange> ranges = {{100, 50},           {4000, 200},
                                         {1, 4095},           {4096, 4096},
                                         {4095, 4098},        {3 * kPage + 7, 9'000},
                                         {15 * kPage + 1, 5}, {0, 16 * kPage}};
  for (const ByteRange& range : ranges) {
    write(0, 16 * kPage, 5);
    trim(range.offset, range.length);
    EXPECT_TRUE(reads_as(range.offset, range.length, 0)) << range.offset;
    EXPECT_TRUE(reads_as(0, range.offset, 5)) << range.offset;
    EXPECT_TRUE(reads_as(range.end(), 16 * kPage - range.end(), 5)) << range.offset;
  }
}

TEST_F(MemoryDeviceTest, TrimsTheEndOfAnOddSize) {
  open(2 * kPage + 100);
  write(0, 2 * kPage + 100, 5);
  EXPECT_EQ(device_->resident_bytes(), 3 * kPage);
  trim(kPage, kPage + 100);
  EXPECT_EQ(device_->resident_bytes(), kPage);
  EXPECT_THAT(extents(0, 2 * kPage + 100), ElementsAre(data(kPage), hole(kPage + 100)));
}

TEST_F(MemoryDeviceTest, TrimsASparseTerabyteAtOnce) {
  open(kTiB);
  for (uint64_t i = 0; i < 100; ++i) write(i * (kTiB / 100) / kPage * kPage, kPage, 1);
  const auto start = std::chrono::steady_clock::now();
  trim(0, kTiB);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  EXPECT_EQ(device_->resident_bytes(), 0U);
  EXPECT_THAT(extents(0, kTiB), ElementsAre(hole(kTiB)));
}

TEST_F(MemoryDeviceTest, LetsTheLoopWorkWhileItReleasesAndZeroes) {
  open(512 * kMiB);
  for (uint64_t i = 0; i < 8; ++i) write(i * 64 * kMiB, 1, 1);
  const uint64_t before = loop_.steps();
  trim(0, 512 * kMiB);
  EXPECT_GE(loop_.steps() - before, 8U);
  ASSERT_TRUE(run(device_->write_zeroes(ByteRange(0, 16 * kMiB), {.no_hole = true})).has_value());
  EXPECT_GE(loop_.steps() - before, 12U);
}

TEST_F(MemoryDeviceTest, KeepsMemoryWhenZeroingWithoutHoles) {
  open(8 * kMiB);
  write(0, kMiB, 1);
  ASSERT_TRUE(run(device_->write_zeroes(ByteRange(100, 5 * kMiB), {.no_hole = true})).has_value());
  EXPECT_TRUE(reads_as(0, 100, 1));
  EXPECT_TRUE(reads_as(100, 5 * kMiB, 0));
  EXPECT_EQ(device_->resident_bytes(), 5 * kMiB + kPage);
  ASSERT_TRUE(run(device_->write_zeroes(ByteRange(0, 8 * kMiB), {.fast_only = true})).has_value());
  EXPECT_EQ(device_->resident_bytes(), 0U);
}

TEST_F(MemoryDeviceTest, DescribesItsExtents) {
  open(64 * kMiB);
  write(10 * kPage, 2 * kPage, 1);
  write(20 * kPage + 9, 1, 1);
  EXPECT_THAT(extents(0, 64 * kMiB), ElementsAre(hole(10 * kPage), data(2 * kPage), hole(8 * kPage),
                                                 data(kPage), hole(64 * kMiB - 21 * kPage)));
  EXPECT_THAT(extents(10 * kPage + 5, 3 * kPage),
              ElementsAre(data(2 * kPage - 5), hole(kPage + 5)));
  EXPECT_THAT(extents(0, 64 * kMiB, 2), ElementsAre(hole(10 * kPage), data(2 * kPage)));
}

TEST_F(MemoryDeviceTest, LendsItsMemory) {
  open(kMiB);
  const MutableBytes lent = device_->direct(ByteRange(5000, 100));
  ASSERT_EQ(lent.size(), 100U);
  std::memset(lent.data(), 7, 100);
  device_->direct_written(ByteRange(5000, 100));
  EXPECT_TRUE(reads_as(5000, 100, 7));
  EXPECT_EQ(device_->resident_bytes(), kPage);
  trim(4096, 4096);
  EXPECT_EQ(lent[0], std::byte{0});
}

TEST_F(MemoryDeviceTest, ReadsLikeAModelAfterRandomChanges) {
  constexpr uint64_t kSize = 64 * kPage + 13;
  open(kSize);
  std::vector<std::byte> model(kSize);
  SeededRng rng(21);
  for (int i = 0; i < 5'000; ++i) {
    const uint64_t offset = rng.below(kSize);
    const uint64_t length = rng.between(1, std::min<uint64_t>(kSize - offset, 5 * kPage));
    const auto value = static_cast<int>(rng.between(1, 255));
    switch (rng.below(4)) {
      case 0:
        write(offset, length, value);
        std::memset(model.data() + offset, value, length);
        break;
      case 1:
        trim(offset, length);
        std::memset(model.data() + offset, 0, length);
        break;
      case 2:
        ASSERT_TRUE(
            run(device_->write_zeroes(ByteRange(offset, length), {.no_hole = rng.one_in(2)}))
                .has_value());
        std::memset(model.data() + offset, 0, length);
        break;
      default:
        break;
    }
    std::vector<std::byte> found(length);
    ASSERT_TRUE(run(device_->read(offset, found)).has_value());
    ASSERT_TRUE(std::equal(found.begin(), found.end(), model.begin() + static_cast<long>(offset)))
        << "step " << i;
  }
}

TEST_F(MemoryDeviceTest, GivesLockedMemoryBackToo) {
  open(kMiB);
  write(0, kMiB, 1);
  MutableBytes all = device_->direct(ByteRange(0, kMiB));
  if (mlock(all.data(), all.size()) != 0)
    GTEST_SKIP() << "machine: mlock of 1 MiB is not allowed here";
  trim(0, kMiB);
  EXPECT_TRUE(reads_as(0, kMiB, 0));
}

TEST_F(MemoryDeviceTest, SaysWhatItIs) {
  open(kMiB);
  const Capabilities capabilities = device_->capabilities();
  EXPECT_TRUE(capabilities.ephemeral);
  EXPECT_TRUE(capabilities.never_blocks);
  EXPECT_FALSE(capabilities.volatile_cache);
  EXPECT_TRUE(device_->try_flush()->has_value());
  EXPECT_TRUE(run(device_->flush()).has_value());
  EXPECT_TRUE(run(device_->close()).has_value());
}

}  // namespace
}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// Every device of this project through the conformance suite.

#include <filesystem>

#include <unistd.h>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "async/fault_file.h"
#include "base/random.h"
#include "devices/file/file_device.h"
#include "devices/memory/memory_device.h"
#include "usbd/testing/conformance.h"

namespace usbd::testing {
namespace {

/// A size that is no multiple of anything, so that the tail is seen.
constexpr uint64_t kOddSize = (6U << 20) + 12'345;

/// Of a device that is too large to be read all through often.
constexpr uint64_t kSmallSpan = 8U << 20;

USBD_CONFORMANCE(OddMemoryDevice, [] { return usbd::MemoryDevice::open({.size = kOddSize}); });
USBD_CONFORMANCE(TinyMemoryDevice, [] { return usbd::MemoryDevice::open({.size = 1}); });
TEST(MemoryDevice, ConformsBeyondFourGiB) {
  const DeviceUnderTest device(
      [] { return usbd::MemoryDevice::open({.size = (9ULL << 30U) + 511}); });
  const ConformanceReport report =
      check_device(device, options_from_environment({.span_max = kSmallSpan}));
  EXPECT_TRUE(report.passed()) << report.text();
}

class FileDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_ = options_from_environment({.operations = 6'000});
    path_ = std::filesystem::current_path() / fmt::format("conformance-{}.bin", ::getpid());
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  FileDevice::Options file_options() {
    FileDevice::Options options;
    options.path = path_.string();
    options.size = (6U << 20) + 4096;
    return options;
  }

  void conforms(const FileDevice::Options& file_options) {
    DeviceUnderTest device([file_options] { return FileDevice::open(file_options); });
    device.durable = true;
    const ConformanceReport report = check_device(device, options_);
    EXPECT_TRUE(report.passed()) << report.text();
  }

  ConformanceOptions options_;
  std::filesystem::path path_;
};

TEST_F(FileDeviceTest, ConformsOnThePageCache) {
  conforms(file_options());
}

TEST_F(FileDeviceTest, ConformsWithSmallBlocks) {
  FileDevice::Options options = file_options();
  options.logical_block_size = 512;
  options.size = (6U << 20) + 512;
  conforms(options);
}

TEST_F(FileDeviceTest, ConformsBeyondFourGiB) {
  FileDevice::Options options = file_options();
  options.size = (1ULL << 40U) + 4096;
  options_.span_max = kSmallSpan;
  conforms(options);
}

TEST_F(FileDeviceTest, ConformsWithDirectIo) {
  FileDevice::Options options = file_options();
  options.direct = true;
  conforms(options);
}

/// The file device on a disk that loses its power and fails, in an order from the seed.
class FileDeviceOnFaultDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    options_ = options_from_environment({.operations = 12'000, .crash_every = 100});
    while (options_.seed == 0) options_.seed = SystemRng().next() >> 32U;
  }

  void conforms(FaultDisk::Options disk_options, bool with_faults = false) {
    disk_options.seed = options_.seed;
    FaultDisk disk(disk_options);
    SeededRng rng = SeededRng(options_.seed).fork(9);
    DeviceUnderTest device([&] {
      if (with_faults) inject(disk, rng);
      FileDevice::Traits traits;
      traits.punches = disk_options.punches;
      traits.probe_punch = false;
      return FileDevice::make(disk.open(), traits);
    });
    device.durable = true;
    device.may_fail = with_faults;
    device.crash = [&disk] { disk.crash(); };
    auto subject = make_simulated_subject(device, options_.seed);
    ASSERT_TRUE(subject.has_value()) << subject.error().message();
    const ConformanceReport report = run_conformance(**subject, options_);
    fmt::print("{}\n", report.text());
    EXPECT_TRUE(report.passed()) << report.text();
  }

  /// Faults for the life of one opening.
  static void inject(FaultDisk& disk, SeededRng& rng) {
    disk.clear_faults();
    for (const FileOp op : {FileOp::kWrite, FileOp::kRead, FileOp::kAllocate, FileOp::kMap}) {
      for (int i = 0; i < 5; ++i) {
        disk.inject({.op = op,
                     .after = rng.below(80),
                     .count = rng.between(1, 2),
                     .error = rng.one_in(2) ? Errc::kIo : Errc::kNoSpace,
                     .partial = rng.one_in(2)});
      }
    }
    if (rng.one_in(4)) disk.inject({.op = FileOp::kSync, .after = rng.below(40)});
  }

  ConformanceOptions options_;
};

TEST_F(FileDeviceOnFaultDisk, KeepsWhatWasFlushedWhenPowerIsLost) {
  conforms({.size = 4U << 20});
}

TEST_F(FileDeviceOnFaultDisk, KeepsItWhereTheFilesystemCannotPunch) {
  conforms({.size = 4U << 20, .punches = false, .zeroes = false, .knows_holes = false});
}

TEST_F(FileDeviceOnFaultDisk, KeepsItWithLargeBlocks) {
  conforms({.size = 4U << 20, .block_size = 4096});
}

TEST_F(FileDeviceOnFaultDisk, KeepsItWhenTheDiskFailsNowAndThen) {
  conforms({.size = 4U << 20}, true);
}

}  // namespace
}  // namespace usbd::testing

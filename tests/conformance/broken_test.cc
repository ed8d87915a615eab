// SPDX-License-Identifier: Apache-2.0
//
// The suite is worth something only if it fails where it should: devices and servers with one
// fault each, and after how many operations the fault was seen.

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <functional>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "conformance/broken_device.h"
#include "conformance/crash_disk.h"
#include "usbd/testing/conformance.h"

namespace usbd::testing {
namespace {

constexpr ConformanceOptions kOptions{
    .seed = 20'261'122, .operations = 60'000, .depth_max = 16, .span_max = 16U << 20};

DeviceUnderTest crashable(CrashDisk& disk) {
  DeviceUnderTest device([&disk] { return disk.open(); });
  device.durable = true;
  device.crash = [&disk] { disk.crash(); };
  return device;
}

void expect_found(const std::string& fault, const ConformanceReport& report) {
  EXPECT_FALSE(report.passed()) << fault << ": not found in " << report.operations << " operations";
  const std::string first_line = report.failure.substr(0, report.failure.find('\n'));
  fmt::print("{}: found after {} operations: {}\n", fault, report.operations, first_line);
}

class BrokenDeviceTest : public ::testing::TestWithParam<DeviceFault> {};

TEST_P(BrokenDeviceTest, IsFound) {
  const uint64_t size = GetParam() == DeviceFault::kCutsOffsetsTo32Bits ? 5ULL << 30U : 4U << 20;
  CrashDisk disk({.seed = 3, .size = size});
  DeviceUnderTest device = crashable(disk);
  const DeviceUnderTest broken_opener(
      [&disk, fault = GetParam()] { return make_broken_device(disk.open(), fault, 77); });
  device.open = broken_opener.open;
  auto subject = make_simulated_subject(device, kOptions.seed);
  ASSERT_TRUE(subject.has_value()) << subject.error().message();
  expect_found(describe(GetParam()), run_conformance(**subject, kOptions));
}

std::vector<DeviceFault> all_device_faults() {
  std::vector<DeviceFault> faults;
  for (int i = 0; i <= static_cast<int>(DeviceFault::kLast); ++i) {
    faults.push_back(static_cast<DeviceFault>(i));
  }
  return faults;
}

INSTANTIATE_TEST_SUITE_P(Each, BrokenDeviceTest, ::testing::ValuesIn(all_device_faults()),
                         [](const auto& fault) {
                           std::string name = describe(fault.param);
                           std::ranges::replace_if(
                               name, [](char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

TEST(BrokenDevice, FlushThatCoversItsOwnLoopOnlyIsFound) {
  CrashDisk disk({.seed = 4, .flush_covers_own_loop_only = true});
  auto subject = make_device_subject(crashable(disk));
  ASSERT_TRUE(subject.has_value());
  expect_found("a flush covers its own connection only", run_conformance(**subject, kOptions));
}

/// What a broken server does to the requests, and to the volume when it is opened again.
struct Meddling {
  std::function<Result<void>(Subject&, std::span<Operation>)> execute =
      [](Subject& below, std::span<Operation> batch) { return below.execute(batch); };
  std::function<void(Subject&)> reopened = [](Subject&) {};
  uint64_t size_lost_at_reopening = 0;
};

/// A subject in front of a sound one.
class MeddlingSubject final : public Subject {
 public:
  MeddlingSubject(Subject& below, Meddling meddling)
      : below_(below), meddling_(std::move(meddling)) {}

  [[nodiscard]] SubjectTraits traits() const override {
    SubjectTraits traits = below_.traits();
    traits.size -= size_lost_;
    return traits;
  }
  Result<void> execute(std::span<Operation> batch) override {
    return meddling_.execute(below_, batch);
  }
  Result<void> reopen() override {
    USBD_TRY_VOID(below_.reopen());
    meddling_.reopened(below_);
    size_lost_ = meddling_.size_lost_at_reopening;
    return {};
  }
  Result<void> crash(std::span<Operation> batch) override { return below_.crash(batch); }

 private:
  Subject& below_;
  const Meddling meddling_;
  uint64_t size_lost_ = 0;
};

class BrokenServer : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = make_simulated_subject(crashable(disk_), kOptions.seed);
    ASSERT_TRUE(opened.has_value());
    sound_ = *std::move(opened);
  }

  void expect_caught(const std::string& fault, Meddling meddling) {
    MeddlingSubject broken(*sound_, std::move(meddling));
    expect_found(fault, run_conformance(broken, kOptions));
  }

  CrashDisk disk_{{.seed = 5}};
  std::unique_ptr<Subject> sound_;
};

TEST_F(BrokenServer, IsNotBlamedWithoutAFault) {
  MeddlingSubject sound(*sound_, {});
  ConformanceOptions options = kOptions;
  options.operations = 10'000;
  const ConformanceReport report = run_conformance(sound, options);
  EXPECT_TRUE(report.passed()) << report.text();
}

/// Does all, and then the second half of each write again, that of the last write first.
Result<void> mix_overlaps(Subject& below, std::span<Operation> batch) {
  USBD_TRY_VOID(below.execute(batch));
  for (auto op = batch.rbegin(); op != batch.rend(); ++op) {
    if (op->kind != OpKind::kWrite || op->error != 0 || op->length < 2) continue;
    Operation half = *op;
    half.length = op->length / 2;
    half.offset += op->length - half.length;
    half.data.erase(half.data.begin(), half.data.end() - static_cast<std::ptrdiff_t>(half.length));
    USBD_TRY_VOID(below.execute(std::span(&half, 1)));
  }
  return {};
}

TEST_F(BrokenServer, MixesOverlappingWrites) {
  expect_caught("overlapping writes are mixed", {.execute = mix_overlaps});
}

TEST_F(BrokenServer, TakesRequestsBeyondTheEnd) {
  expect_caught("requests beyond the end succeed",
                {.execute = [](Subject& below, std::span<Operation> batch) {
                  Result<void> result = below.execute(batch);
                  for (Operation& op : batch) {
                    if (op.error == ENOSPC) op.error = 0;
                  }
                  return result;
                }});
}

TEST_F(BrokenServer, GivesAnotherErrorNumber) {
  expect_caught("ENOSPC becomes EIO", {.execute = [](Subject& below, std::span<Operation> batch) {
                  Result<void> result = below.execute(batch);
                  for (Operation& op : batch) {
                    if (op.error == ENOSPC) op.error = EIO;
                  }
                  return result;
                }});
}

TEST_F(BrokenServer, FailsAfterARefusal) {
  auto refused = std::make_shared<bool>(false);
  expect_caught("after a refusal everything fails",
                {.execute = [refused](Subject& below, std::span<Operation> batch) {
                  Result<void> result = below.execute(batch);
                  for (Operation& op : batch) {
                    if (*refused) op.error = EIO;
                    *refused |= op.error == EINVAL;
                  }
                  return result;
                }});
}

TEST_F(BrokenServer, DoesAPartOfARefusedWrite) {
  expect_caught("the part of a refused write before the end is done",
                {.execute = [](Subject& below, std::span<Operation> batch) -> Result<void> {
                  USBD_TRY_VOID(below.execute(batch));
                  const uint64_t size = below.traits().size;
                  for (const Operation& op : batch) {
                    if (op.kind != OpKind::kWrite || op.offset >= size || op.error != ENOSPC) {
                      continue;
                    }
                    Operation part = op;
                    part.length = size - op.offset;
                    part.data.resize(part.length);
                    USBD_TRY_VOID(below.execute(std::span(&part, 1)));
                  }
                  return {};
                }});
}

TEST_F(BrokenServer, ForgetsABlockWhenReopened) {
  expect_caught("the first block is zeroed at reopening", {.reopened = [](Subject& below) {
                  Operation zero;
                  zero.kind = OpKind::kWriteZeroes;
                  zero.length = 512;
                  EXPECT_TRUE(below.execute(std::span(&zero, 1)).has_value());
                }});
}

TEST_F(BrokenServer, IsSmallerWhenReopened) {
  expect_caught("the size shrinks at reopening", {.size_lost_at_reopening = 4096});
}

TEST_F(BrokenServer, LosesTheConnection) {
  auto count = std::make_shared<int>(0);
  expect_caught("the connection is lost",
                {.execute = [count](Subject& below, std::span<Operation> batch) {
                  return ++*count > 1'000 ? Result<void>(Errc::kShutdown) : below.execute(batch);
                }});
}

}  // namespace
}  // namespace usbd::testing

// SPDX-License-Identifier: Apache-2.0
//
// The fixture of the tests that put something over a CrashDisk: checks it on threads, and once more
// in an order that the seed decides.

#pragma once

#include <functional>
#include <utility>

#include <fmt/core.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "conformance/crash_disk.h"
#include "usbd/testing/conformance.h"

namespace usbd::testing {

class CrashDiskTest : public ::testing::Test {
 protected:
  /// What stands on the disk.
  using Stack = std::function<Result<std::unique_ptr<Device>>(std::unique_ptr<Device>)>;

  void SetUp() override {
    options_ = options_from_environment({.operations = 8'000});
    while (options_.seed == 0) options_.seed = SystemRng().next() >> 32U;
  }

  static Result<std::unique_ptr<Device>> nothing(std::unique_ptr<Device> disk) { return disk; }

  void conforms(CrashDisk::Options disk_options, const Stack& stack = nothing,
                bool may_fail = false) {
    disk_options.seed = options_.seed;
    CrashDisk threaded_disk(disk_options);
    const ConformanceReport threaded =
        check_device(device_on(threaded_disk, stack, may_fail), options_);
    ASSERT_TRUE(threaded.passed()) << threaded.text();
    CrashDisk simulated_disk(disk_options);
    auto simulated =
        make_simulated_subject(device_on(simulated_disk, stack, may_fail), options_.seed);
    ASSERT_TRUE(simulated.has_value()) << simulated.error().message();
    const ConformanceReport report = run_conformance(**simulated, options_);
    fmt::print("{}\n", report.text());
    ASSERT_TRUE(report.passed()) << report.text();
  }

  static DeviceUnderTest device_on(CrashDisk& disk, Stack stack, bool may_fail) {
    DeviceUnderTest device([&disk, stack = std::move(stack)] { return stack(disk.open()); });
    device.durable = true;
    device.may_fail = may_fail;
    device.crash = [&disk] { disk.crash(); };
    return device;
  }

  ConformanceOptions options_;
};

}  // namespace usbd::testing

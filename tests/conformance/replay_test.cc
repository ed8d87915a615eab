// SPDX-License-Identifier: Apache-2.0
//
// A failure that cannot be had again is half lost: on a simulated loop a seed fixes everything, the
// order of events, what a crash leaves, and every answer.

#include <gtest/gtest.h>

#include "conformance/crash_disk.h"
#include "usbd/testing/conformance.h"

namespace usbd::testing {
namespace {

ConformanceReport run_with_seed(uint64_t seed) {
  CrashDisk disk({.seed = seed, .block_size = 4096});
  DeviceUnderTest device([&disk] { return disk.open(); });
  device.durable = true;
  device.crash = [&disk] { disk.crash(); };
  auto subject = make_simulated_subject(device, seed);
  EXPECT_TRUE(subject.has_value());
  const ConformanceOptions options{.seed = seed, .operations = 5'000, .crash_every = 200};
  ConformanceReport report = run_conformance(**subject, options);
  EXPECT_TRUE(report.passed()) << report.text();
  EXPECT_GT(report.crashes, 5U);
  EXPECT_GT(report.overlaps, 100U);
  return report;
}

TEST(Replay, OfASeedGoesTheSameWay) {
  const ConformanceReport first = run_with_seed(4711);
  const ConformanceReport second = run_with_seed(4711);
  EXPECT_EQ(first.fingerprint, second.fingerprint);
  EXPECT_EQ(first.operations, second.operations);
  EXPECT_EQ(first.crashes, second.crashes);
}

TEST(Replay, OfAnotherSeedGoesAnotherWay) {
  EXPECT_NE(run_with_seed(1).fingerprint, run_with_seed(2).fingerprint);
}

}  // namespace
}  // namespace usbd::testing

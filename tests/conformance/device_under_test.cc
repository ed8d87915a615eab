// SPDX-License-Identifier: Apache-2.0
//
// From an author's device to a subject, and the check that USBD_CONFORMANCE makes of it.

#include <fmt/core.h>

#include "base/random.h"
#include "conformance/simulated_subject.h"
#include "conformance/threaded_subject.h"
#include "usbd/testing/conformance.h"

namespace usbd::testing {
namespace {

constexpr unsigned kConcurrencyMax = 8;

ConformanceReport cannot_open(const Error& error, const ConformanceOptions& options) {
  ConformanceReport report;
  report.subject = "device";
  report.seed = options.seed;
  report.failure = "it cannot be opened: " + error.message();
  return report;
}

}  // namespace

DeviceUnderTest::Opened DeviceUnderTest::adopt(std::unique_ptr<BlockingDevice> device,
                                               WorkerPool& pool) {
  if (device == nullptr) co_return Error(Errc::kInvalid, "the opener returned no device");
  co_return make_device(std::move(device), pool, kConcurrencyMax);
}

DeviceUnderTest::Opened DeviceUnderTest::adopt(std::unique_ptr<Device> device,
                                               WorkerPool& /*pool*/) {
  if (device == nullptr) co_return Error(Errc::kInvalid, "the opener returned no device");
  co_return device;
}

Result<std::unique_ptr<Subject>> make_device_subject(DeviceUnderTest device) {
  USBD_TRY(std::unique_ptr<Subject> subject, ThreadedSubject::open(std::move(device)));
  return subject;
}

Result<std::unique_ptr<Subject>> make_simulated_subject(DeviceUnderTest device, uint64_t seed) {
  USBD_TRY(std::unique_ptr<Subject> subject, SimulatedSubject::open(std::move(device), seed));
  return subject;
}

ConformanceReport check_device(const DeviceUnderTest& device, const ConformanceOptions& options) {
  ConformanceOptions seeded = options;
  while (seeded.seed == 0) seeded.seed = SystemRng().next() >> 32U;
  bool simulate = false;
  ConformanceReport report;
  {
    Result<std::unique_ptr<ThreadedSubject>> threaded = ThreadedSubject::open(device);
    if (!threaded) return cannot_open(threaded.error(), seeded);
    simulate = (*threaded)->capabilities().never_blocks;
    report = run_conformance(**threaded, seeded);
  }
  fmt::print("{}\n", report.text());
  if (!simulate || !report.passed()) return report;
  Result<std::unique_ptr<SimulatedSubject>> simulated = SimulatedSubject::open(device, seeded.seed);
  if (!simulated) return cannot_open(simulated.error(), seeded);
  report = run_conformance(**simulated, seeded);
  fmt::print("{}\n", report.text());
  return report;
}

}  // namespace usbd::testing

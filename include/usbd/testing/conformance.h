// SPDX-License-Identifier: Apache-2.0
//
// The conformance suite: what every device must do, tried with random operations against a model of
// its bytes. One line instantiates it for a device (include <gtest/gtest.h> first, link
// usbd_testing):
//
//   USBD_CONFORMANCE(MyDevice, [] { return std::make_unique<MyDevice>(); });
//
// The device may be a Device or a BlockingDevice. It is driven through the framework, as a frontend
// would: with many requests in flight on several loops, with ranges that are no multiple of its
// block size, and with requests that must be refused. A device that never blocks is also driven on
// one simulated loop, whose order of events the seed decides, so that a failure replays exactly.
// docs/guides/write-a-device.md has more; the program usbd-conformance does the same to
// NBD servers and block device nodes.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "usbd/blocking_device.h"
#include "usbd/device.h"
#include "usbd/result.h"
#include "usbd/task.h"
#include "usbd/testing/subject.h"

namespace usbd::testing {

/// How much is done, and from which seed.
struct ConformanceOptions {
  /// 0: drawn from the system, and printed.
  uint64_t seed = 0;
  /// Operations to do at least, boundary cases and full reads not counted.
  uint64_t operations = 20'000;
  /// The largest number of requests in flight together.
  unsigned depth_max = 32;
  /// How much of a large subject is used: half of it at its start, half at its end. Units: bytes.
  uint64_t span_max = 48U << 20;
  /// Reopen and crash once in so many operations, where the subject can; 0: never.
  uint64_t reopen_every = 4'000;
  uint64_t crash_every = 300;
};

/// The options above (fewer operations under a sanitizer), with the environment variables
/// USBD_CONFORMANCE_SEED and USBD_CONFORMANCE_OPERATIONS where they are set. Range: values that are
/// no numbers end the program with a message.
ConformanceOptions options_from_environment(ConformanceOptions options = {});

/// What was done, and what was wrong.
struct ConformanceReport {
  /// What was found wrong first: the operation, the bytes, what was expected; empty: nothing.
  std::string failure;
  std::string subject;
  uint64_t seed = 0;
  /// What the options asked for; a replay needs the same.
  uint64_t operations_wanted = 0;
  /// Done until the end, or until the failure was seen.
  uint64_t operations = 0;
  std::array<uint64_t, kOpKinds> by_kind{};
  uint64_t refused = 0;
  uint64_t overlaps = 0;
  uint64_t reopens = 0;
  uint64_t crashes = 0;
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  /// A digest of all operations and answers: equal for two runs that went the same way.
  uint64_t fingerprint = 0;

  [[nodiscard]] bool passed() const { return failure.empty(); }
  /// A paragraph for people, with the seed, the counts and the failure.
  [[nodiscard]] std::string text() const;
};

/// Runs the suite. All data of `subject` within options.span_max is overwritten.
ConformanceReport run_conformance(Subject& subject, const ConformanceOptions& options);

/// A device, and how it is opened, as often as needed.
struct DeviceUnderTest {
  using Opened = Task<Result<std::unique_ptr<Device>>>;
  using Opener = std::function<Opened(WorkerPool&)>;

  DeviceUnderTest() = default;
  /// From any function of no argument or of the pool for blocking work, that returns a
  /// std::unique_ptr to a Device or a BlockingDevice, a Result of one, or a Task of such a Result.
  /// It is called on a loop's thread.
  template <typename F>
    requires(std::is_invocable_v<const F&> || std::is_invocable_v<const F&, WorkerPool&>)
  DeviceUnderTest(F opener)  // NOLINT(google-explicit-constructor): makes the one-line use possible
      : open([opener = std::move(opener)](WorkerPool& pool) { return call(opener, pool); }) {}

  Opener open;
  /// Whether a later opening finds what an earlier one flushed; then the suite reopens it.
  bool durable = false;
  /// Whether the device injects faults; see SubjectTraits::may_fail. Closing may then fail, too.
  bool may_fail = false;
  /// Whether the device also works when nobody asks it anything (timers, uploads). A simulation
  /// then waits for answers only, not until nothing is left to do.
  bool works_unasked = false;
  /// Optional: makes the storage under the device behave as if power was lost at this moment: what
  /// was not durable may be gone, and nothing that the opened device still does has an effect. The
  /// device is then closed (whatever that says) and opened again.
  /// Threads: the first loop's, while operations are outstanding.
  std::function<void()> crash;
  /// Loops, and so threads and connections, that use the device at once.
  unsigned loops = 2;

 private:
  template <typename F>
  static Opened call(const F& opener, WorkerPool& pool) {
    if constexpr (std::is_invocable_v<const F&, WorkerPool&>) {
      return adopt(opener(pool), pool);
    } else {
      return adopt(opener(), pool);
    }
  }
  static Opened adopt(std::unique_ptr<BlockingDevice> device, WorkerPool& pool);
  static Opened adopt(std::unique_ptr<Device> device, WorkerPool& pool);
  template <typename D>
  static Opened adopt(std::unique_ptr<D> device, WorkerPool& pool) {
    using Base = std::conditional_t<std::is_base_of_v<Device, D>, Device, BlockingDevice>;
    return adopt(std::unique_ptr<Base>(std::move(device)), pool);
  }
  template <typename T>
  static Opened adopt(Result<T> made, WorkerPool& pool) {
    USBD_CO_TRY(T device, std::move(made));
    co_return co_await adopt(std::move(device), pool);
  }
  template <typename T>
  static Opened adopt(Task<Result<T>> making, WorkerPool& pool) {
    USBD_CO_TRY(T device, co_await making);
    co_return co_await adopt(std::move(device), pool);
  }
};

/// A subject that serves a device on event loops of its own.
/// Errors: the device cannot be opened, or no loop can be made.
Result<std::unique_ptr<Subject>> make_device_subject(DeviceUnderTest device);
/// The same on one simulated loop. Range: the device needs no file, pool or thread.
Result<std::unique_ptr<Subject>> make_simulated_subject(DeviceUnderTest device, uint64_t seed);

/// What USBD_CONFORMANCE runs: on event loops and, if the device never blocks, simulated; prints
/// what was done. Returns the report that failed, or the last.
ConformanceReport check_device(const DeviceUnderTest& device, const ConformanceOptions& options);

}  // namespace usbd::testing

/// Defines the gtest `Name.Conforms`. The rest is what makes a DeviceUnderTest, such as a lambda
/// that opens the device.
#define USBD_CONFORMANCE(Name, ...)                                                              \
  TEST(Name, Conforms) {                                                                         \
    const ::usbd::testing::DeviceUnderTest usbd_device(__VA_ARGS__);                             \
    const ::usbd::testing::ConformanceReport usbd_report =                                       \
        ::usbd::testing::check_device(usbd_device, ::usbd::testing::options_from_environment()); \
    EXPECT_TRUE(usbd_report.passed()) << usbd_report.text();                                     \
  }                                                                                              \
  static_assert(true, "a semicolon follows")

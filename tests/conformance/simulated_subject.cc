// SPDX-License-Identifier: Apache-2.0
//
// Operations as tasks of the simulated loop; the suite's thread is the loop's.

#include "conformance/simulated_subject.h"

#include <chrono>

#include <fmt/core.h>

namespace usbd::testing {
namespace {

/// Power is lost after at most so many turns of other work.
constexpr uint64_t kCrashYieldsMax = 300;
/// How long answers of a device that works unasked may take, and how often it is looked for them;
/// virtual time.
constexpr std::chrono::minutes kAnswerTime(30);
constexpr std::chrono::milliseconds kLookEvery(1);

}  // namespace

SimulatedSubject::SimulatedSubject(DeviceUnderTest test, uint64_t seed)
    : test_(std::move(test)),
      rng_(SeededRng(seed).fork(2)),
      loop_(SimLoop::Options{.seed = seed}) {}

SimulatedSubject::~SimulatedSubject() {
  const bool hangs =
      test_.works_unasked ? loop_.tasks_pending() > 0 : loop_.last_end() != SimEnd::kIdle;
  if (served_ != nullptr && !hangs) static_cast<void>(close_device());
}

Result<std::unique_ptr<SimulatedSubject>> SimulatedSubject::open(DeviceUnderTest test,
                                                                 uint64_t seed) {
  std::unique_ptr<SimulatedSubject> subject(new SimulatedSubject(std::move(test), seed));
  USBD_TRY_VOID(subject->open_device());
  return subject;
}

Result<void> SimulatedSubject::open_device() {
  std::optional<Result<std::unique_ptr<Device>>> opened = loop_.run(test_.open(pool_));
  if (!opened) return Error(Errc::kTimedOut, "opening the device never ends");
  USBD_TRY(std::unique_ptr<Device> device, *std::move(opened));
  served_ = std::make_unique<ServedDevice>(std::move(device), 1);
  return {};
}

Result<void> SimulatedSubject::close_device() {
  const std::optional<Result<void>> closed = loop_.run(served_->close());
  if (!closed) return Error(Errc::kTimedOut, "closing the device never ends");
  served_.reset();
  return *closed;
}

SubjectTraits SimulatedSubject::traits() const {
  SubjectTraits traits = served_->traits(test_, 2);
  traits.name += " (simulated)";
  return traits;
}

void SimulatedSubject::send(std::span<Operation> batch) {
  for (Operation& op : batch) {
    loop_.spawn(served_->carry_out(op, static_cast<Path>(rng_.below(kPaths))));
  }
}

SimEnd SimulatedSubject::run_to_answers() {
  if (!test_.works_unasked) return loop_.run_until_idle();
  const Nanos end = loop_.now() + kAnswerTime;
  while (loop_.tasks_pending() > 0 && loop_.now() < end) {
    const SimEnd ended = loop_.run_for(kLookEvery);
    if (ended != SimEnd::kTime) return ended;
  }
  return loop_.tasks_pending() == 0 ? SimEnd::kIdle : SimEnd::kTime;
}

Result<void> SimulatedSubject::receive() {
  const SimEnd end = run_to_answers();
  if (end == SimEnd::kIdle) return {};
  return Error(Errc::kTimedOut,
               fmt::format("{} requests are never answered ({})", loop_.tasks_pending(),
                           end == SimEnd::kStuck ? "nothing is left to do" : "it never ends"));
}

Result<void> SimulatedSubject::execute(std::span<Operation> batch) {
  send(batch);
  return receive();
}

Result<void> SimulatedSubject::reopen() {
  Result<void> closed = close_device();
  if (!closed && !test_.may_fail) return closed;
  return open_device();
}

Task<void> SimulatedSubject::crash_later(uint64_t yields) {
  for (uint64_t i = 0; i < yields; ++i) co_await loop_.schedule();
  test_.crash();
}

Result<void> SimulatedSubject::crash(std::span<Operation> batch) {
  send(batch);
  loop_.spawn(crash_later(rng_.below(kCrashYieldsMax)));
  USBD_TRY_VOID(receive());
  static_cast<void>(close_device());  // it fails, and must not matter
  return open_device();
}

}  // namespace usbd::testing

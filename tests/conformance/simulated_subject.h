// SPDX-License-Identifier: Apache-2.0
//
// SimulatedSubject: a device served on one SimLoop, whose seed decides the order in which
// concurrent requests go on. For devices that need no thread and no real file.

#pragma once

#include <memory>

#include "async/sim_loop.h"
#include "async/worker_pool.h"
#include "conformance/served_device.h"

namespace usbd::testing {

class SimulatedSubject final : public Subject {
 public:
  static Result<std::unique_ptr<SimulatedSubject>> open(DeviceUnderTest test, uint64_t seed);
  ~SimulatedSubject() override;

  [[nodiscard]] SubjectTraits traits() const override;
  Result<void> execute(std::span<Operation> batch) override;
  Result<void> reopen() override;
  Result<void> crash(std::span<Operation> batch) override;

 private:
  SimulatedSubject(DeviceUnderTest test, uint64_t seed);
  Result<void> open_device();
  Result<void> close_device();
  void send(std::span<Operation> batch);
  Result<void> receive();
  SimEnd run_to_answers();
  Task<void> crash_later(uint64_t yields);

  DeviceUnderTest test_;
  SeededRng rng_;
  /// What openers are given; a device that used it could not be simulated.
  WorkerPool pool_{"unused", 1};
  std::unique_ptr<ServedDevice> served_;
  /// After served_: tasks that hang are destroyed before the device they use.
  SimLoop loop_;
};

}  // namespace usbd::testing

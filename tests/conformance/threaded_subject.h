// SPDX-License-Identifier: Apache-2.0
//
// ThreadedSubject: a device served on event loops with a thread each, as the daemon does it. The
// suite's connection n is the loop n.

#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "async/event_loop.h"
#include "async/scope.h"
#include "async/worker_pool.h"
#include "base/random.h"
#include "conformance/served_device.h"

namespace usbd::testing {

class ThreadedSubject final : public Subject {
 public:
  static Result<std::unique_ptr<ThreadedSubject>> open(DeviceUnderTest test);
  ~ThreadedSubject() override;

  [[nodiscard]] SubjectTraits traits() const override;
  Result<void> execute(std::span<Operation> batch) override;
  Result<void> reopen() override;
  Result<void> crash(std::span<Operation> batch) override;

  [[nodiscard]] Capabilities capabilities() const { return served_->device->capabilities(); }

 private:
  struct LoopThread;
  struct InFlight;
  struct Start;

  explicit ThreadedSubject(DeviceUnderTest test);
  Result<void> start_loops();
  Result<void> open_device();
  Result<void> close_device();
  /// Runs `make()` as a task of the first loop and waits for it.
  Result<void> run_on_first_loop(const std::function<Task<Result<void>>()>& make);
  std::shared_ptr<InFlight> send(std::span<Operation> batch);
  Result<void> receive(const std::shared_ptr<InFlight>& in_flight, std::span<Operation> batch);
  Task<Result<void>> open_task();

  DeviceUnderTest test_;
  /// Outlives the loops.
  std::unique_ptr<WorkerPool> file_pool_;
  std::vector<std::unique_ptr<LoopThread>> loops_;
  /// Before the loops: its threads may still be returning from waking one.
  std::unique_ptr<WorkerPool> pool_;
  std::unique_ptr<ServedDevice> served_;
  SeededRng rng_{1};
  /// A request got no answer: nothing that it may still use is ever freed.
  bool hangs_ = false;
};

}  // namespace usbd::testing

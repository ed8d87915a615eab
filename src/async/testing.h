// SPDX-License-Identifier: Apache-2.0
//
// For tests: runs one task on an EventLoop of its own, on the calling thread, and returns its
// value.

#pragma once

#include <optional>
#include <utility>

#include "async/event_loop.h"
#include "async/scope.h"
#include "async/worker_pool.h"
#include "base/assert.h"

namespace usbd::testing {

/// A loop and its pool, for the length of a test.
class TestLoop {
 public:
  explicit TestLoop(bool use_uring = true, Nanos busy_poll = Nanos(0)) : pool_("test", 4) {
    Result<std::unique_ptr<EventLoop>> made =
        EventLoop::create({.use_uring = use_uring, .busy_poll = busy_poll}, pool_);
    USBD_ASSERT(made.has_value());
    loop_ = *std::move(made);
  }

  EventLoop& loop() { return *loop_; }
  WorkerPool& pool() { return pool_; }

  /// Runs the loop until `task` has finished.
  template <typename T>
  T run(Task<T> task) {
    if constexpr (std::is_void_v<T>) {
      Starter starter(*this, wrap_void(std::move(task)));
      loop_->post(starter);
      loop_->run();
    } else {
      std::optional<T> value;
      Starter starter(*this, wrap(std::move(task), value));
      loop_->post(starter);
      loop_->run();
      return *std::move(value);
    }
  }

 private:
  struct Starter final : Work {
    Starter(TestLoop& owner, Task<void> started) : test(owner), task(std::move(started)) {
      run = [](Work& work) {
        auto& self = static_cast<Starter&>(work);
        self.test.scope_.spawn(std::move(self.task));
      };
    }
    TestLoop& test;
    Task<void> task;
  };

  template <typename T>
  Task<void> wrap(Task<T> task, std::optional<T>& value) {
    value.emplace(co_await task);
    loop_->stop();
  }
  Task<void> wrap_void(Task<void> task) {
    co_await task;
    loop_->stop();
  }

  WorkerPool pool_;
  std::unique_ptr<EventLoop> loop_;
  Scope scope_;
};

/// Runs `task` to its end on a fresh loop.
template <typename T>
T run_on_loop(Task<T> task) {
  TestLoop test;
  return test.run(std::move(task));
}

}  // namespace usbd::testing

// SPDX-License-Identifier: Apache-2.0
//
// Runtime::run: from a plain thread into a loop and back.

#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

#include "async/runtime.h"

namespace usbd {
namespace detail {

/// Carries one task to a loop and its end back to the waiting thread.
template <typename T>
class Crossing final : Work {
 public:
  explicit Crossing(Task<T> task) : task_(std::move(task)) {
    Work::run = [](Work& work) {
      auto& self = static_cast<Crossing&>(work);
      self.scope_.spawn(self.body());
    };
    closer_.self = this;
    closer_.run = [](Work& work) { static_cast<Closer&>(work).self->finish(); };
  }

  T run_on(Loop& loop) {
    loop.post(*this);
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [this] { return done_; });
    if constexpr (!std::is_void_v<T>) return *std::move(value_);
  }

 private:
  struct Closer : Work {
    Crossing* self = nullptr;
  };
  struct Nothing {};

  Task<void> body() {
    if constexpr (std::is_void_v<T>) {
      co_await task_;
    } else {
      value_.emplace(co_await task_);
    }
    // Not from inside the coroutine: its frame must be gone before the waiting thread goes on.
    Loop::current().post(closer_);
  }
  void finish() {
    // Notified under the lock: the waiting thread destroys this as soon as it sees done_.
    const std::lock_guard lock(mutex_);
    done_ = true;
    finished_.notify_one();
  }

  Task<T> task_;
  Scope scope_;
  Closer closer_;
  std::mutex mutex_;
  std::condition_variable finished_;
  bool done_ = false;
  std::optional<std::conditional_t<std::is_void_v<T>, Nothing, T>> value_;
};

}  // namespace detail

template <typename T>
T Runtime::run(Task<T> task, unsigned loop_index) {
  detail::Crossing<T> crossing(std::move(task));
  return crossing.run_on(loop(loop_index));
}

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// Scope: where background tasks live. There is no detached task: whoever starts work that it does
// not await spawns it in a Scope, and closes the scope, which waits for all of it, before the
// things that the work uses are destroyed.

#pragma once

#include <coroutine>
#include <cstddef>
#include <utility>

#include "base/assert.h"
#include "usbd/loop.h"
#include "usbd/task.h"

namespace usbd {

/// Threads: one loop's.
class Scope {
 public:
  Scope() = default;
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope() { USBD_ASSERT(running_ == 0); }

  /// Starts `task` at once, in place, until it first waits.
  void spawn(Task<void> task) {
    USBD_ASSERT(!closed_);
    ++running_;
    run(std::move(task));
  }

  /// Waits until every task has finished. Nothing may be spawned afterwards but by those tasks.
  Task<void> close() {
    if (running_ > 0) co_await Drained{*this};
    closed_ = true;
  }

  [[nodiscard]] size_t running() const { return running_; }

 private:
  /// A coroutine that starts at once and frees itself at its end.
  struct Runner {
    struct promise_type {
      static void* operator new(size_t size) { return detail::allocate_frame(size); }
      static void operator delete(void* frame, size_t size) noexcept {
        detail::free_frame(frame, size);
      }
      Runner get_return_object() noexcept { return {}; }
      std::suspend_never initial_suspend() noexcept { return {}; }
      std::suspend_never final_suspend() noexcept { return {}; }
      void return_void() noexcept {}
      void unhandled_exception() noexcept { std::terminate(); }
    };
  };
  struct Drained {
    Scope& scope;
    bool await_ready() const noexcept { return scope.running_ == 0; }
    void await_suspend(std::coroutine_handle<> handle) {
      USBD_ASSERT(scope.closer_.handle == nullptr);
      scope.closer_.handle = handle;
    }
    void await_resume() const noexcept { scope.closer_.handle = nullptr; }
  };

  Runner run(Task<void> task) {
    co_await task;
    if (--running_ == 0 && closer_.handle != nullptr) Loop::current().post(closer_);
  }

  size_t running_ = 0;
  bool closed_ = false;
  ResumeWork closer_;
};

}  // namespace usbd

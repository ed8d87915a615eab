// SPDX-License-Identifier: Apache-2.0
//
// Slots: how many coroutines may be at something at once. Who finds none free waits, in order.

#pragma once

#include <coroutine>

#include "base/mutex.h"
#include "usbd/loop.h"

namespace usbd {

/// Threads: any.
class Slots {
 public:
  explicit Slots(unsigned count) : free_(count) {}

  auto take() {
    struct Awaiter : Waiter {
      explicit Awaiter(Slots& s) : slots(s) {}
      bool await_ready() const noexcept { return false; }
      bool await_suspend(std::coroutine_handle<> handle) {
        loop = &Loop::current();
        resume.handle = handle;
        return slots.enqueue(*this);
      }
      void await_resume() const noexcept {}
      Slots& slots;
    };
    return Awaiter(*this);
  }

  void give() {
    const MutexLock lock(mutex_);
    if (first_ == nullptr) {
      ++free_;
      return;
    }
    Waiter& next = *first_;
    first_ = next.next;
    if (first_ == nullptr) last_ = nullptr;
    next.loop->post(next.resume);  // the slot is the waiter's now
  }

 private:
  struct Waiter {
    Loop* loop = nullptr;
    ResumeWork resume;
    Waiter* next = nullptr;
  };

  bool enqueue(Waiter& waiter) {
    const MutexLock lock(mutex_);
    if (free_ > 0) {
      --free_;
      return false;
    }
    (last_ != nullptr ? last_->next : first_) = &waiter;
    last_ = &waiter;
    return true;
  }

  Mutex mutex_;
  unsigned free_ USBD_GUARDED_BY(mutex_);
  Waiter* first_ USBD_GUARDED_BY(mutex_) = nullptr;
  Waiter* last_ USBD_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// WorkerPool: a bounded set of threads for what must wait or computes for long. A coroutine goes
// there for one plain function and returns to the loop it came from (`co_await pool.run(f)`).
// Threads are made when there is work for them, and sleep when there is none. Waking is chained:
// who takes a job and sees more wakes the next thread, so a loop that submits a batch pays for one
// wake-up.

#pragma once

#include <coroutine>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "usbd/loop.h"

namespace usbd {

class WorkerPool {
 public:
  /// Lifetime: `name` shows in thread listings, at most 15 characters of it.
  WorkerPool(std::string name, unsigned threads_max);
  /// Waits for all submitted work.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// Runs `work` on one of the threads. Threads: any. Order: started in FIFO order.
  void submit(Work& work);

  [[nodiscard]] unsigned threads_max() const { return threads_max_; }

  /// Awaitable: calls `function` on a thread of the pool and resumes the awaiting coroutine on its
  /// own loop with the result. Lifetime: `function` must outlive the await: name it first.
  /// `own_pace`: the loop may make the call itself, if calls of this pace are short just now.
  /// `bytes`: what the call moves.
  template <typename F>
  auto run(F& function, CallPace* own_pace = nullptr, uint64_t bytes = 0) {
    using T = std::invoke_result_t<F&>;
    struct Awaiter final : BlockingCall {
      Awaiter(WorkerPool& p, F& f, CallPace* own_pace, uint64_t moved)
          : pool(p), called(f), home(Loop::current()) {
        pace = own_pace;
        bytes = moved;
        Work::run = [](Work& self) { static_cast<Awaiter&>(self).call(); };
      }
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) {
        resume.handle = handle;
        if (pace == nullptr || !home.call_here(*this)) pool.submit(*this);
      }
      T await_resume() { return std::move(*value); }
      void call() {
        value.emplace(called());
        home.post(resume);
      }

      WorkerPool& pool;
      F& called;
      Loop& home;
      ResumeWork resume;
      std::optional<T> value;
    };
    return Awaiter(*this, function, own_pace, bytes);
  }

 private:
  void main();

  const std::string name_;
  const unsigned threads_max_;
  Mutex mutex_;
  Condition work_available_;
  Work* head_ USBD_GUARDED_BY(mutex_) = nullptr;
  Work* tail_ USBD_GUARDED_BY(mutex_) = nullptr;
  unsigned idle_ USBD_GUARDED_BY(mutex_) = 0;
  /// Threads that have been woken (or started) and have not looked at the queue yet.
  unsigned waking_ USBD_GUARDED_BY(mutex_) = 0;
  bool stopping_ USBD_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_ USBD_GUARDED_BY(mutex_);

  /// Wakes or starts one thread if the queue is not empty and none is on its way. Caller holds
  /// mutex_.
  void wake_one() USBD_REQUIRES(mutex_);
};

}  // namespace usbd

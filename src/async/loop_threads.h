// SPDX-License-Identifier: Apache-2.0
//
// LoopThreads: the threads that run loops, two for each: one that runs it, and a spare. A loop
// makes short blocking calls on its own thread (EventLoop::call_here). Nobody can know that a call
// will be short; so while loops make calls a watch looks every few milliseconds whether one of them
// is stuck in its call, and then has the spare run that loop. The thread that was stuck is the
// spare when its call has ended.

#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "async/event_loop.h"
#include "base/mutex.h"

namespace usbd {

class LoopThreads final : public CallWatch {
 public:
  LoopThreads() = default;
  /// Stops the loops and waits for their threads, also for one that is still in a call.
  ~LoopThreads();
  LoopThreads(const LoopThreads&) = delete;
  LoopThreads& operator=(const LoopThreads&) = delete;

  /// Runs the loops, whose watch this is. Called once. Lifetime: the loops outlive this.
  void start(const std::vector<std::unique_ptr<EventLoop>>& loops);

 private:
  /// A loop, and whether it needs a thread.
  struct Seat {
    EventLoop* loop = nullptr;
    bool vacant = true;
    bool stopped = false;
    Condition changed;
    /// What the watch saw last, and how often it has seen the same call.
    uint64_t seen = 0;
    unsigned times_seen = 0;
  };

  void wake() override;
  void drive(Seat& seat);
  void watch();
  bool look_at(Seat& seat) USBD_REQUIRES(mutex_);
  bool somebody_calls() USBD_REQUIRES(mutex_);

  Mutex mutex_;
  Condition watch_wanted_;
  bool stopping_ USBD_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<Seat>> seats_;
  std::vector<std::thread> threads_;
};

}  // namespace usbd

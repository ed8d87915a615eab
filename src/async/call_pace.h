// SPDX-License-Identifier: Apache-2.0
//
// CallPace: whether calls of one kind (to one device, or writes to files) are so short that a loop
// makes them itself. To hand a call to another thread and back costs several microseconds and two
// wake-ups, more than a short call takes; how long one will take cannot be asked first, so it is
// seen from those that were made. When they get long the pool makes them all for a while: twice as
// long each time that it happens again soon.

#pragma once

#include <algorithm>
#include <atomic>

#include "base/limits.h"
#include "usbd/loop.h"

namespace usbd {

/// Threads: any. Figures of several loops may get lost on each other: they are estimates.
class CallPace {
 public:
  /// `short_call`: the mean up to which calls count as short.
  explicit CallPace(Nanos short_call) : short_call_(short_call.count()) {}

  [[nodiscard]] bool may_try(Nanos now) const {
    return now.count() >= resume_at_.load(std::memory_order_relaxed);
  }

  /// A call of a loop's ended at `now` after `duration`. One that lasted long may just have been
  /// interrupted, so that one alone never counts for much.
  void took(Nanos duration, Nanos now) {
    const int64_t sample = std::min(duration.count(), 5 * short_call_);
    const int64_t before = mean_.load(std::memory_order_relaxed);
    const int64_t mean = before + (sample - before) / 16;
    mean_.store(mean, std::memory_order_relaxed);
    if (mean > short_call_) pause(now);
  }

  /// From `now` on the calls go to the pool for a while.
  void pause(Nanos now) {
    const int64_t last = pause_.load(std::memory_order_relaxed);
    const bool soon = now.count() < resume_at_.load(std::memory_order_relaxed) + last;
    const int64_t pause = soon ? std::min<int64_t>(2 * last, Nanos(limits::kCallPauseMax).count())
                               : Nanos(limits::kCallPauseMin).count();
    pause_.store(pause, std::memory_order_relaxed);
    resume_at_.store(now.count() + pause, std::memory_order_relaxed);
    mean_.store(0, std::memory_order_relaxed);
  }

 private:
  const int64_t short_call_;
  std::atomic<int64_t> mean_{0};
  std::atomic<int64_t> pause_{0};
  std::atomic<int64_t> resume_at_{INT64_MIN / 2};
};

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// BusyPoll: whether a loop that has nothing to do looks again and again for a while before it
// sleeps. Where to wake a sleeping processor takes longer than a client takes to ask again, looking
// is faster and cheaper; where another thread needs the very processor that looks, or the client is
// slow, it is time lost. Which of them it is changes from moment to moment, so it is seen from what
// came of it (docs/adr/0010).

#pragma once

#include <algorithm>

#include "base/limits.h"
#include "usbd/loop.h"

namespace usbd {

/// Threads: one at a time.
class BusyPoll {
 public:
  /// `limit`: how long to look. Range: 0 (never) or more.
  explicit BusyPoll(Nanos limit) : limit_(limit) {}

  [[nodiscard]] Nanos limit() const { return limit_; }

  /// Asked once before each sleep.
  bool may_try() {
    if (limit_ == Nanos(0)) return false;
    if (to_skip_ == 0) return true;
    --to_skip_;
    return false;
  }

  /// `paid`: something came while the loop looked, and nobody else wanted the processor.
  void tried(bool paid) {
    to_skip_ = paid ? 0 : next_skip_;
    next_skip_ = paid ? 1 : std::min(2 * next_skip_, limits::kBusyPollSkipMax);
  }

 private:
  Nanos limit_;
  /// Sleeps to come before the next try, and after the next that fails.
  unsigned to_skip_ = 0;
  unsigned next_skip_ = 1;
};

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// CallClock: when a call to a store has to end, by its CallLimits, on the clock of its loop. A kind
// makes one where the call begins and looks at it wherever it can stop.

#pragma once

#include <algorithm>
#include <optional>
#include <utility>

#include "objects/object_store.h"

namespace usbd::objects {

/// Threads: any.
class CallClock {
 public:
  /// `by_default`: the time if `limits` give none. Lifetime: `loop` outlives this.
  CallClock(Loop& loop, CallLimits limits, Nanos by_default)
      : loop_(loop), stop_(std::move(limits.stop)) {
    const Nanos now = loop.now();
    const Nanos timeout = limits.timeout > Nanos(0) ? limits.timeout : by_default;
    deadline_ = timeout < Nanos::max() - now ? now + timeout : Nanos::max();
  }

  /// Why the call must end now: kCanceled, kTimedOut; empty: it goes on.
  [[nodiscard]] std::optional<Errc> over() const {
    if (stop_.stop_requested()) return Errc::kCanceled;
    if (loop_.now() >= deadline_) return Errc::kTimedOut;
    return std::nullopt;
  }
  /// Never negative.
  [[nodiscard]] Nanos left() const { return std::max(deadline_ - loop_.now(), Nanos(0)); }
  [[nodiscard]] const std::stop_token& stop() const { return stop_; }

 private:
  Loop& loop_;
  std::stop_token stop_;
  Nanos deadline_{0};
};

}  // namespace usbd::objects

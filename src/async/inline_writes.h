// SPDX-License-Identifier: Apache-2.0
//
// InlineWrites: whether a loop may do its short buffered writes itself. Into the page cache such a
// write takes a few microseconds, less than to hand it to another thread; but it may also wait, for
// memory, for a filesystem's journal, or because too much is dirty, and there is no way to ask
// first (ext4 refuses RWF_NOWAIT). So it is tried, and after a write that has waited the pool gets
// them all for a while: twice as long each time, until writes have gone well for as long again.

#pragma once

#include <algorithm>

#include "base/limits.h"
#include "usbd/loop.h"

namespace usbd {

/// Threads: the loop's.
class InlineWrites {
 public:
  [[nodiscard]] bool may_try(Nanos now) const { return now >= resume_at_; }

  /// A write that ended at `now` has waited.
  void stalled(Nanos now) {
    const bool soon = resume_at_ != Nanos(0) && now - resume_at_ < pause_;
    pause_ = soon ? std::min<Nanos>(2 * pause_, limits::kInlinePauseMax) : limits::kInlinePauseMin;
    resume_at_ = now + pause_;
  }

 private:
  Nanos pause_{0};
  Nanos resume_at_{0};
};

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// SyncGroup: all syncs of one file. One runs at a time; whoever comes while it runs shares the
// next. That is not only cheaper. Linux reports a failed write-back to one fsync of an open file
// and then forgets it, so of two that run at once one would say that all is well. Here the failure
// is remembered before the next sync may start, and every later one fails.

#pragma once

#include <atomic>

#include "async/block_file.h"
#include "base/mutex.h"
#include "usbd/loop.h"

namespace usbd {

class SyncGroup {
 public:
  /// Lifetime: `file` outlives the group.
  explicit SyncGroup(BlockFile& file) : file_(file) {}
  SyncGroup(const SyncGroup&) = delete;
  SyncGroup& operator=(const SyncGroup&) = delete;

  /// Makes durable what completed before this call.
  /// Threads: any loop's, any number at once.
  /// Errors:  kIo, and again for ever once a sync has failed: data that it covered may be lost.
  Task<Result<void>> sync();

  /// Whether a sync has failed. Threads: any.
  [[nodiscard]] bool failed() const { return failed_.load(std::memory_order_acquire); }
  /// What callers are told after that.
  [[nodiscard]] Error lost() const;

 private:
  struct Waiter {
    explicit Waiter(Loop& loop) : home(loop) {}
    Loop& home;
    ResumeWork resume;
    Waiter* next = nullptr;
    /// Whether this one runs the sync, for itself and for those in `followers`.
    bool leads = false;
    Waiter* followers = nullptr;
    /// Set for a follower before it is resumed.
    bool synced = false;
  };
  struct Turn;

  void finish(Waiter& leader, bool synced);

  BlockFile& file_;
  std::atomic<bool> failed_{false};
  Mutex mutex_;
  bool running_ USBD_GUARDED_BY(mutex_) = false;
  Waiter* waiting_head_ USBD_GUARDED_BY(mutex_) = nullptr;
  Waiter* waiting_tail_ USBD_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace usbd

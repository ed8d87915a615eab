// SPDX-License-Identifier: Apache-2.0
//
// The leader of a round syncs for all who waited when it began. The first of those who came since
// leads the next round.

#include "devices/file/sync_group.h"

#include <utility>

#include "base/log.h"

namespace usbd {

/// Waits until `self` leads or has been served.
struct SyncGroup::Turn {
  SyncGroup& group;
  Waiter& self;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    self.resume.handle = handle;
    const MutexLock lock(group.mutex_);
    if (!group.running_) {
      group.running_ = true;
      self.leads = true;
      return false;
    }
    if (group.waiting_tail_ != nullptr) {
      group.waiting_tail_->next = &self;
    } else {
      group.waiting_head_ = &self;
    }
    group.waiting_tail_ = &self;
    return true;
  }
  void await_resume() const noexcept {}
};

Task<Result<void>> SyncGroup::sync() {
  Waiter self(Loop::current());
  Turn turn{*this, self};
  co_await turn;
  if (self.leads) {
    if (!failed()) {
      const Result<void> result = co_await file_.datasync();
      self.synced = result.has_value();
      if (!result) {
        log::error(
            "{}; from now on flushes are refused. Copy what matters off the volume while it is "
            "served: reads still give what was written, as far as the system has kept it. Then "
            "stop serving it and see to its disk: opened again it holds what reached the disk",
            result.error().message());
      }
    }
    finish(self, self.synced);
  }
  if (!self.synced) co_return lost();
  co_return Result<void>();
}

void SyncGroup::finish(Waiter& leader, bool synced) {
  if (!synced) failed_.store(true, std::memory_order_release);
  Waiter* next_leader = nullptr;
  {
    const MutexLock lock(mutex_);
    next_leader = std::exchange(waiting_head_, nullptr);
    waiting_tail_ = nullptr;
    running_ = next_leader != nullptr;
  }
  if (next_leader != nullptr) {
    next_leader->leads = true;
    next_leader->followers = std::exchange(next_leader->next, nullptr);
    next_leader->home.post(next_leader->resume);
  }
  for (Waiter* follower = leader.followers; follower != nullptr;) {
    Waiter* const next = follower->next;
    follower->synced = synced;
    follower->home.post(follower->resume);  // the follower may be gone after this
    follower = next;
  }
}

Error SyncGroup::lost() const {
  return Error(Errc::kIo, "an earlier sync of " + file_.name() +
                              " failed and its data may be lost; open the volume again");
}

}  // namespace usbd

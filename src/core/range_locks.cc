// SPDX-License-Identifier: Apache-2.0
//
// Held ranges are disjoint, so one sorted vector answers "does anything overlap?" by one binary
// search; at the few hundred entries that the in-flight limits allow, moving its tail is cheaper
// than the allocations of a tree.

#include "core/range_locks.h"

#include <algorithm>

#include "base/assert.h"

namespace usbd {

size_t RangeLocks::first_ending_after(uint64_t offset) const {
  const auto it = std::ranges::partition_point(
      held_, [offset](const ByteRange& held) { return held.end() <= offset; });
  return static_cast<size_t>(it - held_.begin());
}

bool RangeLocks::is_free(ByteRange range) const {
  const size_t index = first_ending_after(range.offset);
  return index == held_.size() || held_[index].offset >= range.end();
}

bool RangeLocks::is_waited_for(ByteRange range) const {
  for (const Waiter* waiter = first_waiter_; waiter != nullptr; waiter = waiter->next) {
    if (waiter->range.overlaps(range)) return true;
  }
  return false;
}

void RangeLocks::insert(ByteRange range) {
  const auto position = static_cast<std::ptrdiff_t>(first_ending_after(range.offset));
  held_.insert(held_.begin() + position, range);
}

void RangeLocks::erase(ByteRange range) {
  const size_t index = first_ending_after(range.offset);
  USBD_ASSERT(index < held_.size() && held_[index] == range);
  held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(index));
}

void RangeLocks::try_acquire(std::span<Claim> claims) {
  const MutexLock lock(mutex_);
  for (Claim& claim : claims) {
    claim.held = is_free(claim.range) && !is_waited_for(claim.range);
    if (claim.held) insert(claim.range);
  }
}

void RangeLocks::release(std::span<Claim> claims) {
  const MutexLock lock(mutex_);
  for (Claim& claim : claims) {
    if (!claim.held) continue;
    erase(claim.range);
    claim.held = false;
  }
  if (first_waiter_ != nullptr) grant_waiters();
}

void RangeLocks::release(ByteRange range) {
  const MutexLock lock(mutex_);
  erase(range);
  if (first_waiter_ != nullptr) grant_waiters();
}

void RangeLocks::try_acquire(Loan& loan) {
  const MutexLock lock(mutex_);
  loan.asked_ = false;
  loan.held = is_free(loan.range) && !is_waited_for(loan.range);
  if (!loan.held) return;
  insert(loan.range);
  loans_.push_back(&loan);
}

bool RangeLocks::give_back(Loan& loan) {
  const MutexLock lock(mutex_);
  USBD_ASSERT(loan.held);
  erase(loan.range);
  std::erase(loans_, &loan);
  loan.held = false;
  if (first_waiter_ != nullptr) grant_waiters();
  return loan.asked_;
}

void RangeLocks::ask_back(ByteRange range) {
  for (Loan* loan : loans_) {
    if (loan->asked_ || !loan->range.overlaps(range)) continue;
    loan->asked_ = true;
    loan->loop->post(*loan->wanted);
  }
}

bool RangeLocks::enqueue(Waiter& waiter) {
  const MutexLock lock(mutex_);
  if (is_free(waiter.range) && !is_waited_for(waiter.range)) {
    insert(waiter.range);
    return false;
  }
  waiter.next = nullptr;
  if (last_waiter_ != nullptr) {
    last_waiter_->next = &waiter;
  } else {
    first_waiter_ = &waiter;
  }
  last_waiter_ = &waiter;
  ask_back(waiter.range);
  return true;
}

void RangeLocks::grant_waiters() {
  Waiter* still_waiting = nullptr;
  Waiter* last = nullptr;
  Waiter* waiter = std::exchange(first_waiter_, nullptr);
  while (waiter != nullptr) {
    Waiter* const next = waiter->next;
    // first_waiter_ holds those before this one that go on waiting: it must not overtake them.
    if (is_free(waiter->range) && !is_waited_for(waiter->range)) {
      insert(waiter->range);
      waiter->loop->post(waiter->resume);  // `waiter` may be gone after this
    } else {
      waiter->next = nullptr;
      if (last != nullptr) {
        last->next = waiter;
      } else {
        first_waiter_ = still_waiting = waiter;
      }
      last = waiter;
    }
    waiter = next;
  }
  first_waiter_ = still_waiting;
  last_waiter_ = last;
}

size_t RangeLocks::held_count() const {
  const MutexLock lock(mutex_);
  return held_.size();
}

}  // namespace usbd

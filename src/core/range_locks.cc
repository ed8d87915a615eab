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

/// How many ranges that are held or waited for overlap `range`.
size_t RangeLocks::blockers_of(ByteRange range) const {
  size_t count = 0;
  for (size_t i = first_ending_after(range.offset);
       i < held_.size() && held_[i].offset < range.end(); ++i) {
    ++count;
  }
  for (const Waiting& waiting : waiting_) {
    if (waiting.range.overlaps(range)) ++count;
  }
  return count;
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
    claim.held = blockers_of(claim.range) == 0;
    if (claim.held) insert(claim.range);
  }
}

void RangeLocks::release(std::span<Claim> claims) {
  const MutexLock lock(mutex_);
  for (Claim& claim : claims) {
    if (!claim.held) continue;
    claim.held = false;
    erase(claim.range);
    grant_waiters(claim.range);
  }
}

void RangeLocks::release(ByteRange range) {
  const MutexLock lock(mutex_);
  erase(range);
  grant_waiters(range);
}

void RangeLocks::try_acquire(Loan& loan) {
  const MutexLock lock(mutex_);
  loan.asked_ = false;
  loan.held = blockers_of(loan.range) == 0;
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
  grant_waiters(loan.range);
  return loan.asked_;
}

void RangeLocks::ask_back(ByteRange range) {
  for (Loan* loan : loans_) {
    if (loan->asked_ || !loan->range.overlaps(range)) continue;
    loan->asked_ = true;
    loan->loop->post(*loan->wanted);
  }
}

bool RangeLocks::enqueue(Waiter& waiter, ByteRange range) {
  const MutexLock lock(mutex_);
  const size_t blockers = blockers_of(range);
  if (blockers == 0) {
    insert(range);
    return false;
  }
  waiting_.push_back({.range = range, .blockers = blockers, .waiter = &waiter});
  ask_back(range);
  return true;
}

/// `released` is held no longer: grants the ranges that waited for nothing else.
void RangeLocks::grant_waiters(ByteRange released) {
  size_t kept = 0;
  for (Waiting waiting : waiting_) {
    if (waiting.range.overlaps(released) && --waiting.blockers == 0) {
      insert(waiting.range);
      waiting.waiter->loop->post(waiting.waiter->resume);  // the waiter may be gone after this
    } else {
      waiting_[kept++] = waiting;
    }
  }
  waiting_.resize(kept);
}

size_t RangeLocks::held_count() const {
  const MutexLock lock(mutex_);
  return held_.size();
}

}  // namespace usbd

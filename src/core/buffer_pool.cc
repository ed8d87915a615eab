// SPDX-License-Identifier: Apache-2.0
//
// The line at the budget, and the buffers that are kept.

#include "core/buffer_pool.h"

#include <bit>

#include "base/assert.h"

namespace usbd {

bool Budget::try_take(uint64_t bytes) {
  USBD_ASSERT(bytes <= total_);
  const MutexLock lock(mutex_);
  if (first_ != nullptr || free_ < bytes) return false;
  free_ -= bytes;
  return true;
}

bool Budget::take_or_wait(Waiter& waiter) {
  USBD_ASSERT(waiter.bytes <= total_);
  const MutexLock lock(mutex_);
  if (first_ == nullptr && free_ >= waiter.bytes) {
    free_ -= waiter.bytes;
    return true;
  }
  ++waits_;
  waiter.next = nullptr;
  (last_ != nullptr ? last_->next : first_) = &waiter;
  last_ = &waiter;
  return false;
}

bool Budget::stop_waiting(Waiter& waiter) {
  const MutexLock lock(mutex_);
  Waiter* before = nullptr;
  for (Waiter* at = first_; at != nullptr; before = at, at = at->next) {
    if (at != &waiter) continue;
    (before != nullptr ? before->next : first_) = at->next;
    if (last_ == at) last_ = before;
    return true;
  }
  return false;
}

void Budget::give(uint64_t bytes) {
  const MutexLock lock(mutex_);
  free_ += bytes;
  USBD_ASSERT(free_ <= total_);
  while (first_ != nullptr && first_->bytes <= free_) {
    Waiter& waiter = *first_;
    first_ = waiter.next;
    if (first_ == nullptr) last_ = nullptr;
    free_ -= waiter.bytes;
    waiter.loop->post(*waiter.granted);  // `waiter` may be gone after this
  }
}

bool Budget::is_tight() const {
  const MutexLock lock(mutex_);
  return first_ != nullptr || free_ < total_ / 4;
}

bool Budget::has_waiters() const {
  const MutexLock lock(mutex_);
  return first_ != nullptr;
}

uint64_t Budget::waits() const {
  const MutexLock lock(mutex_);
  return waits_;
}

uint64_t Budget::free() const {
  const MutexLock lock(mutex_);
  return free_;
}

void BufferPool::Lease::reset() {
  if (pool_ != nullptr) std::exchange(pool_, nullptr)->give_back(std::move(buffer_), reserve_);
}

size_t BufferPool::class_of(size_t length) {
  const auto size_class = static_cast<size_t>(
      length <= kSmallest ? 0 : std::bit_width(length - 1) - std::bit_width(kSmallest - 1));
  USBD_ASSERT(size_class < kClasses);
  return size_class;
}

BufferPool::Lease BufferPool::try_lease(size_t length) {
  if (!budget_.try_take(cost(length))) return {};
  return lease_paid(length);
}

BufferPool::Lease BufferPool::lease_paid(size_t length) {
  return {*this, take(length), length, nullptr};
}

BufferPool::Lease BufferPool::lease_reserved(size_t length, uint64_t& used) {
  used += cost(length);
  return {*this, take(length), length, &used};
}

AlignedBuffer BufferPool::take(size_t length) {
  std::vector<AlignedBuffer>& list = free_[class_of(length)];
  if (list.empty()) return AlignedBuffer(cost(length));
  AlignedBuffer buffer = std::move(list.back());
  list.pop_back();
  kept_ -= buffer.size();
  return buffer;
}

void BufferPool::give_back(AlignedBuffer buffer, uint64_t* reserve) {
  const size_t size = buffer.size();
  if (kept_ + size <= kKeptMax) {
    kept_ += size;
    free_[class_of(size)].push_back(std::move(buffer));
  } else {
    buffer = AlignedBuffer();
  }
  if (reserve != nullptr) {
    *reserve -= size;
  } else {
    budget_.give(size);
  }
}

}  // namespace usbd

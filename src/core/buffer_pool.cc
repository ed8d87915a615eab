// SPDX-License-Identifier: Apache-2.0
//
// The lines at the budget, and the buffers that are kept.

#include "core/buffer_pool.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"

namespace usbd {

bool Budget::try_take(uint64_t bytes) {
  USBD_ASSERT(bytes <= total_);
  const MutexLock lock(mutex_);
  if (waiting_ > 0 || free_ < bytes) return false;
  free_ -= bytes;
  return true;
}

bool Budget::take_or_wait(Waiter& waiter) {
  USBD_ASSERT(waiter.bytes <= total_);
  const MutexLock lock(mutex_);
  if (waiting_ == 0 && free_ >= waiter.bytes) {
    free_ -= waiter.bytes;
    return true;
  }
  join(waiter);
  Waiter* const served = serve_next();
  USBD_ASSERT(served == nullptr || served == &waiter);  // what did not fit still does not
  return served != nullptr;
}

bool Budget::stop_waiting(Waiter& waiter) {
  const MutexLock lock(mutex_);
  Line& line = line_of(waiter);
  Waiter* before = nullptr;
  for (Waiter* at = line.first; at != nullptr; before = at, at = at->next) {
    if (at != &waiter) continue;
    (before != nullptr ? before->next : line.first) = at->next;
    if (line.last == at) line.last = before;
    --waiting_;
    serve();  // what was too little for it may be enough for others
    return true;
  }
  return false;
}

void Budget::give(uint64_t bytes) {
  const MutexLock lock(mutex_);
  free_ += bytes;
  USBD_ASSERT(free_ <= total_);
  serve();
}

Budget::Line& Budget::line_of(const Waiter& waiter) {
  return lines_[static_cast<size_t>(std::bit_width(waiter.bytes >> 1))];
}

void Budget::join(Waiter& waiter) {
  Line& line = line_of(waiter);
  waiter.next = nullptr;
  if (line.first == nullptr) line.turn = std::max(line.turn, turn_);
  (line.first != nullptr ? line.last->next : line.first) = &waiter;
  line.last = &waiter;
  ++waiting_;
}

/// The line whose turn it is: the smaller requests' if it is that of several. Null: nobody waits.
Budget::Line* Budget::next_line() {
  Line* next = nullptr;
  for (Line& line : lines_) {
    if (line.first != nullptr && (next == nullptr || line.turn < next->turn)) next = &line;
  }
  return next;
}

/// Takes the bytes for the one whose turn it is, and takes that out of its line. Null: nobody waits
/// or the bytes are not there; they are kept until they are, or large requests would wait for ever.
Budget::Waiter* Budget::serve_next() {
  Line* const line = waiting_ > 0 ? next_line() : nullptr;
  if (line == nullptr || line->first->bytes > free_) return nullptr;
  Waiter& waiter = *line->first;
  line->first = waiter.next;
  turn_ = line->turn;
  line->turn += waiter.bytes;
  free_ -= waiter.bytes;
  --waiting_;
  return &waiter;
}

void Budget::serve() {
  while (Waiter* const waiter = serve_next()) {
    waiter->loop->post(*waiter->granted);  // `waiter` may be gone after this
  }
}

size_t Budget::waiting() const {
  const MutexLock lock(mutex_);
  return waiting_;
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

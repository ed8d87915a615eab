// SPDX-License-Identifier: Apache-2.0
//
// The timers of an EventLoop: a binary heap of the nodes that their owners hold, each of which
// knows its slot, so that disarming needs no search.

#include <algorithm>

#include "async/event_loop.h"
#include "base/assert.h"

namespace usbd {

void EventLoop::place(size_t slot, Timer& timer) {
  timers_[slot] = &timer;
  timer.slot = slot;
}

void EventLoop::sift_up(size_t slot) {
  Timer& timer = *timers_[slot];
  for (; slot > 1 && timers_[slot / 2]->deadline > timer.deadline; slot /= 2) {
    place(slot, *timers_[slot / 2]);
  }
  place(slot, timer);
}

void EventLoop::sift_down(size_t slot) {
  Timer& timer = *timers_[slot];
  for (;;) {
    size_t child = slot * 2;
    if (child >= timers_.size()) break;
    if (child + 1 < timers_.size() && timers_[child + 1]->deadline < timers_[child]->deadline) {
      ++child;
    }
    if (timers_[child]->deadline >= timer.deadline) break;
    place(slot, *timers_[child]);
    slot = child;
  }
  place(slot, timer);
}

void EventLoop::arm(Timer& timer) {
  USBD_ASSERT(timer.slot == 0 && timer.work != nullptr);
  timers_.push_back(&timer);
  sift_up(timers_.size() - 1);
}

void EventLoop::disarm(Timer& timer) {
  if (timer.slot == 0) return;
  const size_t slot = std::exchange(timer.slot, 0);
  Timer* const last = timers_.back();
  timers_.pop_back();
  if (last == &timer) return;
  place(slot, *last);
  sift_up(slot);
  sift_down(last->slot);
}

void EventLoop::fire_timers() {
  if (timers_.size() == 1) return;
  const Nanos time = now();
  while (timers_.size() > 1 && timers_[1]->deadline <= time) {
    Timer& timer = *timers_[1];
    disarm(timer);
    ready_.push(*timer.work);
  }
}

int EventLoop::wait_timeout_ms() {
  if (timers_.size() == 1) return -1;
  const Nanos left = timers_[1]->deadline - now();
  if (left <= Nanos(0)) return 0;
  // Rounded up: a timer fires late by under a millisecond, never early, and never spins.
  const int64_t ms = (left.count() + 999'999) / 1'000'000;
  return static_cast<int>(std::min<int64_t>(ms, 3'600'000));
}

}  // namespace usbd

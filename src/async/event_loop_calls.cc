// SPDX-License-Identifier: Apache-2.0
//
// The blocking calls that an EventLoop makes on its own thread. They are made between two rounds,
// where nothing of the loop is on the thread's stack; so another thread can go on with the loop
// while one is stuck in its call (docs/adr/0008).

#include "async/event_loop.h"
#include "base/limits.h"

namespace usbd {

/// Not while a call of this loop is stuck: two threads for a loop are enough. Not while the kernel
/// has operations of the ring in work, which end on the thread that began them.
bool EventLoop::may_call(const BlockingCall& call, Nanos now) const {
  return !call_lost_.load() && in_ring_ == 0 && call.pace->may_try(now);
}

bool EventLoop::call_here(BlockingCall& call) {
  if (watch_ == nullptr || !may_call(call, now())) return false;
  calls_.push(call);
  return true;
}

/// False: the loop is another thread's now.
bool EventLoop::make_calls() {
  Nanos time = now();
  const Nanos end = time + limits::kOwnCallsTime;
  while (calls_.head != nullptr && time < end) {
    auto& call = static_cast<BlockingCall&>(*calls_.take_one());
    if (!may_call(call, time)) {
      file_pool_.submit(call);
      continue;
    }
    CallPace& pace = *call.pace;
    const auto units = static_cast<int64_t>(
        std::max<uint64_t>(1, (call.bytes + limits::kPacedBytes - 1) / limits::kPacedBytes));
    if (!make_call(call)) return false;
    const Nanos before = std::exchange(time, now());
    pace.took((time - before) / units, time);
  }
  return true;
}

bool EventLoop::make_call(BlockingCall& call) {
  const Visit visit(*this);  // what the call posts may end the loop, if it is another thread's
  pace_in_call_ = call.pace;
  uint64_t clock = call_clock_.load(std::memory_order_relaxed) + 1;
  set_current(nullptr);
  call_clock_.store(clock);  // from here on the loop can be taken over
  watch_->note_call();
  call.run(call);  // `call` may be gone after this
  if (!call_clock_.compare_exchange_strong(clock, clock + 1)) {
    call_lost_.store(false);
    return false;
  }
  set_current(this);
  return true;
}

bool EventLoop::take_over(uint64_t clock) {
  // Before the exchange: after it the thread may be back, and want to be counted.
  call_lost_.store(true);
  if (!call_clock_.compare_exchange_strong(clock, clock + 1)) {
    call_lost_.store(false);
    return false;
  }
  pace_in_call_->pause(now());
  return true;
}

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// What every Loop shares: which one a thread runs, and a sleep that can be stopped.

#include "usbd/loop.h"

#include <atomic>
#include <optional>

#include "base/assert.h"

namespace usbd {
namespace {

thread_local Loop* current_loop = nullptr;

/// Two nodes may wake the sleeper, the timer's and the stop request's. The frame they live in must
/// not go on before both are out of the loop's queues.
class StoppableSleep {
 public:
  StoppableSleep(Loop& loop, Nanos delay, std::stop_token stop)
      : loop_(loop), delay_(delay), stop_(std::move(stop)) {}

  [[nodiscard]] bool await_ready() const { return stop_.stop_requested(); }
  void await_suspend(std::coroutine_handle<> handle) {
    sleeper_ = handle;
    on_timer_.self = on_stop_request_.self = this;
    on_timer_.run = [](Work& work) { static_cast<Node&>(work).self->timer_fired(); };
    on_stop_request_.run = [](Work& work) { static_cast<Node&>(work).self->stop_requested(); };
    timer_.deadline = loop_.after(delay_);
    timer_.work = &on_timer_;
    loop_.arm(timer_);
    callback_.emplace(stop_, Callback{this});
  }
  void await_resume() const {}

 private:
  struct Node : Work {
    StoppableSleep* self = nullptr;
  };
  struct Callback {
    StoppableSleep* self;
    void operator()() const {
      self->stop_posted_.store(true);
      self->loop_.post(self->on_stop_request_);
    }
  };

  void timer_fired() {
    timer_done_ = true;
    callback_.reset();  // waits for a callback that is running: stop_posted_ is final after this
    if (!stop_posted_.load() || stop_done_) detail::resume(sleeper_);
  }
  void stop_requested() {
    stop_done_ = true;
    const bool timer_was_armed = timer_.slot != 0;
    loop_.disarm(timer_);
    if (!timer_was_armed && !timer_done_) return;  // it has been posted, and resumes
    callback_.reset();
    detail::resume(sleeper_);
  }

  Loop& loop_;
  const Nanos delay_;
  std::stop_token stop_;
  std::coroutine_handle<> sleeper_;
  Node on_timer_;
  Node on_stop_request_;
  Timer timer_;
  bool timer_done_ = false;
  bool stop_done_ = false;
  std::atomic<bool> stop_posted_{false};
  std::optional<std::stop_callback<Callback>> callback_;
};

}  // namespace

Loop& Loop::current() {
  USBD_ASSERT(current_loop != nullptr);
  return *current_loop;
}

Loop* Loop::current_or_null() {
  return current_loop;
}

void Loop::set_current(Loop* loop) {
  current_loop = loop;
}

Task<void> Loop::sleep_for(Nanos delay, std::stop_token stop) {
  StoppableSleep sleep(*this, delay, std::move(stop));
  co_await sleep;
}

}  // namespace usbd

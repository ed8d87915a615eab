// SPDX-License-Identifier: Apache-2.0
//
// How a SimLoop chooses: any piece of ready work may be next; a round ends when nothing is ready,
// or at a whim before that; then what was deferred runs; time jumps only when nothing else can
// happen.

#include "async/sim_loop.h"

#include <algorithm>
#include <cerrno>
#include <exception>

#include "base/assert.h"

namespace usbd {
namespace {

/// A round ends early once in so many pieces of work.
constexpr uint64_t kRoundLength = 8;

}  // namespace

/// A spawned task's outermost frame, owned by the loop.
struct SimLoop::Root {
  struct promise_type {
    promise_type(SimLoop& l, Task<void>&) : loop(l) {}

    struct Finished {
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> self) const noexcept {
        self.promise().loop.finished_.push_back(self);
      }
      void await_resume() const noexcept {}
    };

    Root get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_always initial_suspend() noexcept { return {}; }
    Finished final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }

    SimLoop& loop;
    ResumeWork start;
  };

  std::coroutine_handle<promise_type> handle;
};

SimLoop::Root SimLoop::run_root(SimLoop&, Task<void> task) {
  co_await task;
}

SimLoop::SimLoop(Options options, SimFiles* files)
    : options_(options), files_(files), rng_(options.seed) {}

SimLoop::~SimLoop() {
  assert_own_thread();
  Loop* const outer = current_or_null();
  set_current(this);
  dead_ = true;
  while (!roots_.empty()) {
    const std::coroutine_handle<> root = roots_.back();
    roots_.pop_back();
    root.destroy();
  }
  set_current(outer);
}

void SimLoop::spawn(Task<void> task) {
  const Root root = run_root(*this, std::move(task));
  roots_.push_back(root.handle);
  ResumeWork& start = root.handle.promise().start;
  start.handle = root.handle;
  post(start);
}

SimEnd SimLoop::run_until_idle() {
  last_end_ = run_while(kForever, [] { return true; });
  return last_end_;
}

SimEnd SimLoop::run_for(Nanos span) {
  last_end_ = run_while(now_ + span, [] { return true; });
  return last_end_;
}

SimEnd SimLoop::run_while(Nanos deadline, const std::function<bool()>& wanted) {
  assert_own_thread();
  const uint64_t steps_last = steps_ + options_.steps_max;
  Loop* const outer = current_or_null();
  set_current(this);
  SimEnd end = SimEnd::kIdle;
  while (wanted()) {
    take_due();
    if (ready_.empty() && deferred_.empty()) {
      const Nanos next = next_event();
      if (next == kForever) {
        end = roots_.empty() ? SimEnd::kIdle : SimEnd::kStuck;
        break;
      }
      now_ = std::min(next, deadline);
    }
    if (now_ >= deadline) {
      end = SimEnd::kTime;
      break;
    }
    if (steps_ >= steps_last) {
      end = SimEnd::kSteps;
      break;
    }
    take_due();
    step();
  }
  set_current(outer);
  return end;
}

void SimLoop::step() {
  const bool round_ends = ready_.empty() || rng_.one_in(kRoundLength);
  if (!round_ends) {
    run_one(ready_);
    return;
  }
  // What is deferred from here on belongs to the next round.
  std::vector<Work*> deferred;
  deferred.swap(deferred_);
  while (!deferred.empty()) run_one(deferred);
}

void SimLoop::run_one(std::vector<Work*>& from) {
  const size_t chosen = rng_.below(from.size());
  note(chosen * 0x10001 + from.size());
  Work* const work = from[chosen];
  from[chosen] = from.back();
  from.pop_back();
  ++steps_;
  now_ += options_.step_time;
  work->run(*work);  // `work` may be gone after this
  free_finished();
}

void SimLoop::free_finished() {
  for (; !finished_.empty(); finished_.pop_back()) {
    std::erase(roots_, finished_.back());
    finished_.back().destroy();
  }
}

Nanos SimLoop::next_event() const {
  const Nanos timer = timers_.empty() ? kForever : timers_.begin()->first.first;
  const Nanos completion = completions_.empty() ? kForever : completions_.begin()->first;
  return std::min(timer, completion);
}

void SimLoop::take_due() {
  while (!timers_.empty() && timers_.begin()->first.first <= now_) {
    Timer& timer = *timers_.begin()->second;
    disarm(timer);
    post(*timer.work);
  }
  while (!completions_.empty() && completions_.begin()->first <= now_) {
    const Completion completion = completions_.begin()->second;
    completions_.erase(completions_.begin());
    --files_outstanding_;
    completion.io->result = completion.result;
    if (completion.io->done != nullptr) post(*completion.io->done);
  }
}

void SimLoop::note(uint64_t choice) {
  fingerprint_ = mix64(fingerprint_ ^ mix64(choice) ^ static_cast<uint64_t>(now_.count()));
}

void SimLoop::assert_own_thread() const {
  USBD_ASSERT(std::this_thread::get_id() == thread_);
}

void SimLoop::post(Work& work) {
  assert_own_thread();
  if (!dead_) ready_.push_back(&work);
}

void SimLoop::defer(Work& work) {
  assert_own_thread();
  if (!dead_) deferred_.push_back(&work);
}

void SimLoop::arm(Timer& timer) {
  assert_own_thread();
  USBD_ASSERT(timer.slot == 0);
  USBD_ASSERT(timer.work != nullptr);
  if (dead_) return;
  timer.slot = ++timers_armed_;
  timers_.emplace(std::pair(timer.deadline, timer.slot), &timer);
}

void SimLoop::disarm(Timer& timer) {
  assert_own_thread();
  if (timer.slot == 0) return;
  USBD_ASSERT(timers_.erase(std::pair(timer.deadline, timer.slot)) == 1);
  timer.slot = 0;
}

void SimLoop::submit(FileIo& io) {
  assert_own_thread();
  if (dead_) return;
  ++files_outstanding_;
  if (files_ == nullptr) {
    complete(io, -ENOSYS, Nanos(0));
  } else {
    files_->start(*this, io);
  }
}

void SimLoop::complete(FileIo& io, int64_t result, Nanos delay) {
  assert_own_thread();
  USBD_ASSERT(files_outstanding_ > completions_.size());
  completions_.emplace(now_ + delay, Completion{&io, result});
}

}  // namespace usbd

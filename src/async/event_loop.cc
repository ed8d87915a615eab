// SPDX-License-Identifier: Apache-2.0
//
// The rounds of an EventLoop, its queues and its wake-ups. Timers, files and blocking calls:
// event_loop_timers.cc, event_loop_files.cc, event_loop_calls.cc.

#include "async/event_loop.h"

#include <algorithm>
#include <array>
#include <thread>

#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <fmt/core.h>

#include "base/assert.h"
#include "base/limits.h"

namespace usbd {

void EventLoop::Queue::push(Work& work) {
  work.next = nullptr;
  if (tail != nullptr) {
    tail->next = &work;
  } else {
    head = &work;
  }
  tail = &work;
}

Work* EventLoop::Queue::take_all() {
  tail = nullptr;
  return std::exchange(head, nullptr);
}

Work* EventLoop::Queue::take_one() {
  Work* const work = head;
  head = work->next;
  if (head == nullptr) tail = nullptr;
  return work;
}

EventLoop::EventLoop(Options options, WorkerPool& file_pool)
    : index_(options.index),
      want_uring_(options.use_uring),
      file_pool_(file_pool),
      watch_(options.watch),
      busy_poll_(options.busy_poll),
      timers_(1) {}

Result<std::unique_ptr<EventLoop>> EventLoop::create(Options options, WorkerPool& file_pool) {
  std::unique_ptr<EventLoop> loop(new EventLoop(options, file_pool));
  USBD_TRY_VOID(loop->open());
  return loop;
}

Result<void> EventLoop::open() {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (epoll_fd_ < 0 || wake_fd_ < 0) {
    return Error::from_errno(errno, "cannot make an event loop (epoll_create1, eventfd)");
  }
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, wake_fd_, &event) != 0) {
    return Error::from_errno(errno, "cannot watch the event loop's own wake-up");
  }
  if (!want_uring_) return {};
  io_uring_params params{};
  params.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE;
  params.cq_entries = limits::kFileIosInRingMax * 2;
  ring_ok_ = io_uring_queue_init_params(limits::kRingEntries, &ring_, &params) == 0;
  if (!ring_ok_) return {};
  event.data.ptr = this;
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, ring_.ring_fd, &event) != 0) {
    return Error::from_errno(errno, "cannot watch the event loop's io_uring");
  }
  return {};
}

EventLoop::~EventLoop() {
  // A few instructions and at most one system call each, so there is nothing to sleep on.
  while (visits_.load() != 0) std::this_thread::yield();
  USBD_ASSERT(in_ring_ == 0 && files_head_ == nullptr);
  if (ring_ok_) io_uring_queue_exit(&ring_);
  if (wake_fd_ >= 0) close(wake_fd_);
  if (epoll_fd_ >= 0) close(epoll_fd_);
}

bool EventLoop::run() {
  Loop* const outer = current_or_null();
  set_current(this);
  thread_id_.store(gettid());
  bool mine = true;
  while (mine && !stop_.exchange(false)) mine = round();
  set_current(outer);
  return mine;
}

void EventLoop::stop() {
  const Visit visit(*this);
  stop_.store(true);
  wake();
}

void EventLoop::wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the loop wakes anyway.
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
}

/// False: the loop is another thread's now.
bool EventLoop::round() {
  take_remote();
  run_queue(ready_);
  run_queue(deferred_);
  submit_files();
  if (calls_.head != nullptr) {
    if (!make_calls()) return false;
    // What has been called for is answered before more is looked for.
    if (calls_.head == nullptr) return true;
  }
  wait_for_events();
  fire_timers();
  return true;
}

void EventLoop::run_queue(Queue& queue) {
  for (Work* work = queue.take_all(); work != nullptr;) {
    Work* const next = work->next;
    work->run(*work);  // `work` may be gone after this
    work = next;
  }
}

void EventLoop::post(Work& work) {
  if (current_or_null() == this) {
    ready_.push(work);
    return;
  }
  const Visit visit(*this);
  Work* head = remote_.load(std::memory_order_relaxed);
  do {
    work.next = head;
  } while (!remote_.compare_exchange_weak(head, &work));
  // From here on the work may have run, and whoever it belonged to may be destroying the loop.
  if (sleeping_.exchange(false)) wake();
}

void EventLoop::defer(Work& work) {
  deferred_.push(work);
}

void EventLoop::take_remote() {
  if (remote_.load(std::memory_order_relaxed) == nullptr) return;
  Work* newest = remote_.exchange(nullptr);
  Work* oldest = nullptr;
  while (newest != nullptr) {
    Work* const next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  while (oldest != nullptr) {
    Work* const next = oldest->next;
    ready_.push(*oldest);
    oldest = next;
  }
}

Nanos EventLoop::now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return Nanos(static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec);
}

/// As epoll_wait, but returns early for what is posted, and looks before it sleeps where that pays.
int EventLoop::look_for_events(std::span<epoll_event> events, int timeout) {
  if (timeout == 0 || !busy_poll_.may_try()) return sleep_for_events(events, timeout);
  Nanos time = now();
  Nanos end = time + busy_poll_.limit();
  if (timers_.size() > 1) end = std::min(end, timers_[1]->deadline);
  int count = 0;
  bool posted = false;
  bool alone = true;
  while (count == 0 && !posted && alone && time < end) {
    std::this_thread::yield();
    const Nanos before = std::exchange(time, now());
    alone = time - before < limits::kBusyPollYield;
    count = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), 0);
    posted = remote_.load(std::memory_order_relaxed) != nullptr;
  }
  const bool something_came = count != 0 || posted;
  busy_poll_.tried(something_came && alone);
  return something_came ? count : sleep_for_events(events, wait_timeout_ms());
}

int EventLoop::sleep_for_events(std::span<epoll_event> events, int timeout) {
  if (timeout != 0) {
    // Order matters: say that we sleep, then look once more for what was posted before that.
    sleeping_.store(true);
    if (remote_.load() != nullptr) timeout = 0;
  }
  const int count = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), timeout);
  sleeping_.store(false, std::memory_order_relaxed);
  return count;
}

void EventLoop::wait_for_events() {
  int timeout = wait_timeout_ms();
  if (ready_.head != nullptr || deferred_.head != nullptr || files_head_ != nullptr ||
      calls_.head != nullptr) {
    timeout = 0;
  }
  std::array<epoll_event, limits::kEpollEventsMax> events{};
  const int count = look_for_events(events, timeout);
  if (count < 0) USBD_ASSERT(errno == EINTR);
  // Completions first: their replies can then leave with those of this round's requests.
  if (ring_ok_ && in_ring_ > 0) reap_ring();
  batch_.clear();
  for (int i = 0; i < count; ++i) {
    void* const who = events[static_cast<size_t>(i)].data.ptr;
    if (who == nullptr) {
      uint64_t ignored = 0;
      [[maybe_unused]] const ssize_t taken = ::read(wake_fd_, &ignored, sizeof ignored);
    }
    batch_.push_back(who == this ? nullptr : static_cast<FdWatcher*>(who));
  }
  for (size_t i = 0; i < batch_.size(); ++i) {
    if (batch_[i] != nullptr) batch_[i]->on_events(events[i].events);
  }
  batch_.clear();
}

Result<void> EventLoop::watch(int fd, uint32_t events, FdWatcher& watcher) {
  epoll_event event{.events = events, .data = {.ptr = &watcher}};
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) {
    return Error::from_errno(errno, fmt::format("cannot watch descriptor {}", fd));
  }
  return {};
}

void EventLoop::rewatch(int fd, uint32_t events, FdWatcher& watcher) {
  epoll_event event{.events = events, .data = {.ptr = &watcher}};
  USBD_ASSERT(epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event) == 0);
}

void EventLoop::unwatch(int fd, FdWatcher& watcher) {
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
  std::ranges::replace(batch_, &watcher, nullptr);
}

}  // namespace usbd

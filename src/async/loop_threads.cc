// SPDX-License-Identifier: Apache-2.0
//
// Who runs a loop, and when that changes.

#include "async/loop_threads.h"

#include <array>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/limits.h"

namespace usbd {
namespace {

/// Whether a thread of this process computes, or would if it got a processor, rather than waits.
/// Where that cannot be seen: no.
bool is_running(pid_t thread) {
  const int fd = open(fmt::format("/proc/self/task/{}/stat", thread).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  std::array<char, 128> text{};
  const ssize_t length = ::read(fd, text.data(), text.size() - 1);
  close(fd);
  if (length <= 0) return false;
  // "tid (name) S ...", and the name may hold anything.
  const char* const name_end = std::strrchr(text.data(), ')');
  return name_end != nullptr && name_end[1] == ' ' && name_end[2] == 'R';
}

void name_thread(const std::string& name) {
  pthread_setname_np(pthread_self(), name.c_str());
}

}  // namespace

void LoopThreads::start(const std::vector<std::unique_ptr<EventLoop>>& loops) {
  for (const auto& loop : loops) {
    seats_.push_back(std::make_unique<Seat>());
    seats_.back()->loop = loop.get();
  }
  for (const auto& seat : seats_) {
    for (int i = 0; i < 2; ++i) threads_.emplace_back([this, &seat = *seat] { drive(seat); });
  }
  threads_.emplace_back([this] { watch(); });
}

LoopThreads::~LoopThreads() {
  for (const auto& seat : seats_) seat->loop->stop();
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake();
  for (std::thread& thread : threads_) thread.join();
}

void LoopThreads::drive(Seat& seat) {
  const std::string running = fmt::format("usbd-loop-{}", seat.loop->index());
  const std::string spare = fmt::format("usbd-spare-{}", seat.loop->index());
  name_thread(spare);
  mutex_.lock();
  while (!seat.stopped) {
    if (!seat.vacant) {
      seat.changed.wait(mutex_);
      continue;
    }
    seat.vacant = false;
    mutex_.unlock();
    name_thread(running);
    const bool stopped = seat.loop->run();
    name_thread(spare);
    mutex_.lock();
    if (stopped) seat.stopped = true;
  }
  seat.changed.notify_all();
  mutex_.unlock();
}

void LoopThreads::wake() {
  const MutexLock lock(mutex_);
  asleep_.store(false);
  watch_wanted_.notify_one();
}

/// Looks at one loop; whether it has made calls lately.
bool LoopThreads::look_at(Seat& seat) {
  const uint64_t clock = seat.loop->call_clock();
  if (clock != seat.seen) {
    seat.seen = clock;
    seat.times_seen = 0;
    return true;
  }
  if (!EventLoop::in_call(clock)) return false;
  ++seat.times_seen;
  // One that has merely lost its processor is left alone for a while.
  const bool patient = seat.times_seen < limits::kWatchPatience;
  if (patient && is_running(seat.loop->thread_id())) return true;
  if (seat.loop->take_over(clock)) {
    seat.vacant = true;
    seat.changed.notify_one();
  }
  return true;
}

bool LoopThreads::somebody_calls() {
  bool any = false;
  for (const auto& seat : seats_) any |= EventLoop::in_call(seat->loop->call_clock());
  return any;
}

void LoopThreads::watch() {
  name_thread("usbd-watch");
  mutex_.lock();
  for (unsigned quiet = 0; !stopping_;) {
    if (quiet < limits::kWatchRoundsMin) {
      watch_wanted_.wait_for(mutex_, limits::kWatchEvery);
      ++quiet;
      for (const auto& seat : seats_) {
        if (look_at(*seat)) quiet = 0;
      }
      continue;
    }
    // Order matters: say that we sleep, then look once more for who began to call before that.
    asleep_.store(true);
    if (somebody_calls()) asleep_.store(false);
    while (asleep_.load() && !stopping_) watch_wanted_.wait(mutex_);
    quiet = 0;
  }
  mutex_.unlock();
}

}  // namespace usbd

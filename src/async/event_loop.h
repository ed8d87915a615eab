// SPDX-License-Identifier: Apache-2.0
//
// EventLoop: the Loop of a real thread. It waits in one place, epoll: for sockets, for the wake-up
// from other threads, and for its io_uring, whose descriptor is in the set. Where io_uring is
// forbidden the rest works unchanged, and file operations go to a pool (docs/adr/0003).
//
// One round: ready work, deferred work, file operations to the kernel in one call, blocking calls
// that it makes itself, events.

#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <liburing.h>
#include <sys/epoll.h>

#include "async/busy_poll.h"
#include "async/call_pace.h"
#include "async/worker_pool.h"
#include "usbd/loop.h"

namespace usbd {

/// Who is told that a descriptor is ready.
class FdWatcher {
 public:
  /// Threads: the loop's. `events`: EPOLL* bits. Level-triggered: called again until handled.
  /// May unwatch any descriptor, its own too.
  virtual void on_events(uint32_t events) = 0;

 protected:
  ~FdWatcher() = default;
};

/// Who notices that a loop is stuck in a call that it makes itself.
class CallWatch {
 public:
  /// A call begins. Threads: any.
  void note_call() {
    if (asleep_.load()) wake();
  }

 protected:
  ~CallWatch() = default;
  virtual void wake() = 0;
  std::atomic<bool> asleep_{false};
};

class EventLoop final : public Loop {
 public:
  struct Options {
    /// Position among the loops of a runtime: statistics are kept per index.
    unsigned index = 0;
    bool use_uring = true;
    /// Null: the loop makes no calls itself (call_here). Lifetime: outlives the running loop.
    CallWatch* watch = nullptr;
    /// How long it looks for work before it sleeps, where that pays. Range: 0 (never) or more.
    Nanos busy_poll{0};
  };

  /// Lifetime: `file_pool` outlives the loop.
  /// Errors:   what epoll_create1 or eventfd said. A refused io_uring is no error: uses_uring().
  static Result<std::unique_ptr<EventLoop>> create(Options options, WorkerPool& file_pool);
  /// Waits for posts and stops of other threads that are still on their way out: the work that one
  /// hands over may run, and end the loop, before the call that handed it over has returned.
  ~EventLoop() override;

  /// Runs rounds on the calling thread until stop(). May be called again after.
  /// Returns false if another thread has to run the loop on: it was taken over.
  bool run();
  /// Makes run() return after its present round. Threads: any.
  void stop();

  /// Has `watcher` told of `events` on `fd`. Threads: the loop's.
  /// Lifetime: until unwatch(), which comes before the descriptor is closed.
  Result<void> watch(int fd, uint32_t events, FdWatcher& watcher);
  void rewatch(int fd, uint32_t events, FdWatcher& watcher);
  void unwatch(int fd, FdWatcher& watcher);

  [[nodiscard]] unsigned index() const { return index_; }
  [[nodiscard]] bool uses_uring() const { return ring_ok_; }

  void post(Work& work) override;
  void defer(Work& work) override;
  [[nodiscard]] Nanos now() override;
  void arm(Timer& timer) override;
  void disarm(Timer& timer) override;
  void submit(FileIo& io) override;
  bool call_here(BlockingCall& call) override;

  // For the watch. Threads: any.
  /// Goes on by one when a call begins, and when it ends or is taken over.
  [[nodiscard]] uint64_t call_clock() const { return call_clock_.load(); }
  [[nodiscard]] static bool in_call(uint64_t clock) { return clock % 2 == 1; }
  /// The thread that runs the loop, as the kernel numbers it.
  [[nodiscard]] pid_t thread_id() const { return thread_id_.load(); }
  /// Takes the loop away from the thread that is in call `clock`: after true the caller sees to it
  /// that another runs it. False: the call has ended.
  [[nodiscard]] bool take_over(uint64_t clock);

 private:
  struct Queue {
    Work* head = nullptr;
    Work* tail = nullptr;
    void push(Work& work);
    Work* take_all();
    Work* take_one();
  };
  struct FileBatch;
  /// Keeps the loop's destructor waiting while a thread is inside that need not be the loop's.
  class Visit {
   public:
    explicit Visit(EventLoop& loop) : loop_(loop) { loop_.visits_.fetch_add(1); }
    /// The last touch: the loop may be gone right after it.
    ~Visit() { loop_.visits_.fetch_sub(1); }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    EventLoop& loop_;
  };

  EventLoop(Options options, WorkerPool& file_pool);
  Result<void> open();
  bool round();
  bool make_calls();
  bool make_call(BlockingCall& call);
  [[nodiscard]] bool may_call(const BlockingCall& call, Nanos now) const;
  void run_queue(Queue& queue);
  void wake();
  void take_remote();
  void fire_timers();
  void wait_for_events();
  int look_for_events(std::span<epoll_event> events, int timeout);
  int sleep_for_events(std::span<epoll_event> events, int timeout);
  [[nodiscard]] int wait_timeout_ms();
  void submit_files();
  bool prepare(FileIo& io);
  void reap_ring();
  FileIo* write_here(FileIo* first);
  FileBatch* next_batch(FileIo*& first);
  void send_to_pool(FileIo* first);
  void sift_up(size_t slot);
  void sift_down(size_t slot);
  void place(size_t slot, Timer& timer);

  const unsigned index_;
  const bool want_uring_;
  WorkerPool& file_pool_;
  CallWatch* const watch_;
  BusyPoll busy_poll_;
  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  bool ring_ok_ = false;
  io_uring ring_{};
  unsigned in_ring_ = 0;

  Queue ready_;
  Queue deferred_;
  Queue calls_;  // of BlockingCall
  FileIo* files_head_ = nullptr;
  FileIo* files_tail_ = nullptr;
  CallPace write_pace_{limits::kShortWrite};
  std::vector<Timer*> timers_;  // a binary heap; slot 0 is unused

  /// What other threads posted, newest first.
  std::atomic<Work*> remote_{nullptr};
  /// Whether the loop is about to sleep, so that a remote post must write to wake_fd_.
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> call_clock_{0};
  /// The pace of the call that is being made.
  CallPace* pace_in_call_ = nullptr;
  /// A thread that this loop was taken from is still in its call.
  std::atomic<bool> call_lost_{false};
  std::atomic<pid_t> thread_id_{0};
  /// Calls of other threads that may still touch this loop.
  std::atomic<unsigned> visits_{0};
  /// The events of the present wait; an unwatched watcher is struck out here.
  std::vector<FdWatcher*> batch_;
};

}  // namespace usbd

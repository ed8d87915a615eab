// SPDX-License-Identifier: Apache-2.0
//
// Loop: an executor of one thread at a time, the only thing in usbd that runs coroutines. A request
// belongs to one loop for its life. EventLoop (src/async/event_loop.h) is the real one; SimLoop
// (src/async/sim_loop.h) runs the same code in virtual time and seeded order.
//
// Nothing here allocates: work, timers and I/O are nodes that live in the frame of the coroutine
// that waits for them.

#pragma once

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <stop_token>
#include <utility>

#include "usbd/buffer.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd {

/// A point on the loop's clock: monotonic, nanoseconds since an arbitrary start.
using Nanos = std::chrono::nanoseconds;

/// Something to be run once on a loop. An intrusive node: whoever posts it keeps it alive until it
/// has run, and posts it to one place at a time.
struct Work {
  using Function = void (*)(Work&);
  Function run = nullptr;
  Work* next = nullptr;
};

/// Work that resumes a coroutine.
struct ResumeWork final : Work {
  ResumeWork() {
    run = [](Work& self) { detail::resume(static_cast<ResumeWork&>(self).handle); };
  }
  std::coroutine_handle<> handle;
};

class CallPace;

/// A call that may wait and is expected not to: Loop::call_here makes it on the loop's own thread.
struct BlockingCall : Work {
  /// Which calls it resembles. Lifetime: until the call has been made.
  CallPace* pace = nullptr;
  /// What it moves. Units: bytes.
  uint64_t bytes = 0;
};

/// A timer node: `work` is posted to the loop when the loop's clock reaches `deadline`.
struct Timer {
  Nanos deadline{0};
  Work* work = nullptr;
  /// Position in the loop's queue, kept by the loop; 0: not armed.
  size_t slot = 0;
};

/// One file operation, given to the kernel by the loop. An intrusive node like Work.
struct FileIo {
  enum class Kind : uint8_t { kRead, kWrite, kDataSync, kAllocate };
  Kind kind = Kind::kRead;
  int fd = -1;
  /// kRead, kWrite: the memory, valid until `done` runs.
  void* data = nullptr;
  /// Units: bytes. kRead, kWrite: at most 1 GiB.
  uint64_t length = 0;
  uint64_t offset = 0;
  /// kWrite: RWF_* flags; kAllocate: FALLOC_FL_* flags.
  int flags = 0;
  /// The file goes through the page cache: its writes are done by the loop while they do not wait,
  /// else by threads in batches; io_uring would hand each to a kernel thread on its own.
  bool buffered = true;
  /// The system call's result: bytes moved or 0; a negative errno value on failure.
  int64_t result = 0;
  /// Posted to the loop that took the operation, when `result` is known.
  Work* done = nullptr;
  FileIo* next = nullptr;
};

class Loop {
 public:
  Loop() = default;
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  virtual ~Loop() = default;

  /// The loop that runs the calling thread's current work. Asserts that there is one.
  static Loop& current();
  /// The same, or null on a thread that is not a loop's.
  static Loop* current_or_null();

  /// Runs `work` on this loop's thread after what is already queued; wakes the loop if it sleeps.
  /// Threads: any. Order: FIFO per posting thread (SimLoop: seeded order).
  virtual void post(Work& work) = 0;

  /// Runs `work` at the end of the loop's present round, before it looks for new events; the
  /// place to send what a whole batch has produced. Threads: the loop's own.
  virtual void defer(Work& work) = 0;

  /// The loop's clock, read anew. Threads: any.
  [[nodiscard]] virtual Nanos now() = 0;

  /// The point on the clock that is `delay` from now; the last one there is, if it is farther off.
  [[nodiscard]] Nanos after(Nanos delay) {
    const Nanos time = now();
    return delay > Nanos::max() - time ? Nanos::max() : time + delay;
  }

  /// Arms `timer`, which must not be armed. Threads: the loop's own.
  virtual void arm(Timer& timer) = 0;
  /// Disarms `timer`; nothing happens if it is not armed. After it `timer.work` is not posted, but
  /// it may have been posted already. Threads: the loop's own.
  virtual void disarm(Timer& timer) = 0;

  /// Starts a file operation; `io.done` is always posted later, never run from inside the call.
  /// The operations of one round go to the kernel together. Threads: the loop's own.
  /// Cancel: none: an operation is always awaited to its end before its buffer is freed.
  virtual void submit(FileIo& io) = 0;

  /// Runs `call` on the thread that runs the loop, between two rounds; another thread goes on with
  /// the loop if that takes long. While it runs its thread is no loop's: what it has to tell a
  /// loop it posts. May hand it to a pool instead. Threads: the loop's own.
  /// Returns false, and does nothing, if calls like this are better made elsewhere.
  virtual bool call_here([[maybe_unused]] BlockingCall& call) { return false; }

  /// Awaitable: resumes the awaiting coroutine on this loop, from whichever thread it is on now.
  auto schedule() {
    struct Awaiter {
      Loop& loop;
      ResumeWork work;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) {
        work.handle = handle;
        loop.post(work);
      }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this, {}};
  }

  /// Awaitable: resumes the awaiting coroutine after `delay` on this loop's clock.
  /// Threads: the loop's own. Cancel: none; sleep_for(delay, stop) below can be.
  auto sleep_for(Nanos delay) {
    struct Awaiter {
      Loop& loop;
      Nanos delay;
      ResumeWork work;
      Timer timer;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) {
        work.handle = handle;
        timer.deadline = loop.after(delay);
        timer.work = &work;
        loop.arm(timer);
      }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this, delay, {}, {}};
  }

  /// Sleeps for `delay` or until `stop` is requested (from any thread), whichever is first.
  Task<void> sleep_for(Nanos delay, std::stop_token stop);

  /// Awaitable: performs `io` and returns its result (see FileIo::result).
  auto perform(FileIo io) {
    struct Awaiter {
      Loop& loop;
      FileIo io;
      ResumeWork work;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> handle) {
        work.handle = handle;
        io.done = &work;
        loop.submit(io);
      }
      int64_t await_resume() const noexcept { return io.result; }
    };
    return Awaiter{*this, io, {}};
  }

 protected:
  /// Marks the calling thread as running this loop (null: none).
  static void set_current(Loop* loop);
};

}  // namespace usbd

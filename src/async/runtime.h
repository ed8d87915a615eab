// SPDX-License-Identifier: Apache-2.0
//
// Runtime: the threads of a daemon. A fixed number of loops, each on its own thread (LoopThreads),
// and the pool for blocking work. Whoever serves something asks for a loop and stays on it.

#pragma once

#include <memory>
#include <vector>

#include "async/event_loop.h"
#include "async/loop_threads.h"
#include "async/scope.h"
#include "async/worker_pool.h"
#include "base/limits.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd {

class Runtime {
 public:
  struct Options {
    /// Range: at least 1.
    unsigned loops = 1;
    unsigned blocking_threads_max = 16;
    /// Whether to try io_uring; if the kernel refuses, files go to the pool.
    bool use_uring = true;
    /// How long a loop looks for work before it sleeps, where that pays.
    Nanos busy_poll = limits::kBusyPoll;
  };

  /// Makes the loops and starts their threads.
  static Result<std::unique_ptr<Runtime>> start(Options options);
  /// Stops the loops. Nothing may live on them any more.
  ~Runtime() = default;

  [[nodiscard]] unsigned loop_count() const { return static_cast<unsigned>(loops_.size()); }
  /// Range: index < loop_count().
  [[nodiscard]] EventLoop& loop(unsigned index) { return *loops_[index]; }
  [[nodiscard]] WorkerPool& blocking_pool() { return blocking_pool_; }
  [[nodiscard]] bool uses_uring() const { return loops_.front()->uses_uring(); }

  /// Runs `task` on a loop and waits for its end. Threads: any but a loop's.
  template <typename T>
  T run(Task<T> task, unsigned loop_index = 0);

 private:
  explicit Runtime(Options options);

  std::vector<std::unique_ptr<EventLoop>> loops_;
  /// After the loops, so that it ends before them: what it still does is posted to a loop.
  WorkerPool blocking_pool_;
  /// Ends first: running loops submit to the pool.
  LoopThreads threads_;
};

}  // namespace usbd

#include "async/runtime_run.h"

// SPDX-License-Identifier: Apache-2.0
//
// SimLoop: a Loop for tests, on one thread, with a clock of its own and an order drawn from a seed.
// The code under test is the real one; only what a kernel would decide (which of several ready
// things goes first, how long a file operation takes) is decided here, the same way each time the
// seed is the same. Time passes only by steps and by jumping to the next timer or completion, so a
// test of minutes takes milliseconds.
//
// File operations go to a SimFiles, which plays the kernel and the disk. Work from other threads
// (a WorkerPool) has no place here, since its order could not be replayed.

#pragma once

#include <coroutine>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/random.h"
#include "usbd/loop.h"

namespace usbd {

class SimLoop;

/// The files of a simulation.
class SimFiles {
 public:
  virtual ~SimFiles() = default;

  /// Takes one operation; answers it by loop.complete(), now or later, exactly once.
  /// Lifetime: `io` and its memory stay valid until then.
  virtual void start(SimLoop& loop, FileIo& io) = 0;
};

/// Why a run of a SimLoop ended.
enum class SimEnd : uint8_t {
  kIdle,   ///< Nothing is left to do and every spawned task has finished.
  kStuck,  ///< Nothing is left to do, but spawned tasks wait: for each other, or for nothing.
  kTime,   ///< The time that the run was given is over.
  kSteps,  ///< More steps than Options::steps_max: a livelock, or the limit is too small.
};

/// Threads: only the one that made it; asserted.
class SimLoop final : public Loop {
 public:
  struct Options {
    uint64_t seed = 1;
    /// For one run. Units: pieces of work.
    uint64_t steps_max = 50'000'000;
    /// Virtual time that a piece of work takes, so that code which polls sees time pass.
    Nanos step_time{100};
  };

  /// Lifetime: `files` outlives the loop; null: submit() is answered with ENOSYS.
  explicit SimLoop(Options options, SimFiles* files = nullptr);
  /// Destroys the tasks that have not finished, as a crash would: their frames, and so the locals
  /// of each coroutine in them, but nothing of theirs runs any more on this loop.
  ~SimLoop() override;

  /// Makes `task` one of the things that are ready.
  void spawn(Task<void> task);
  /// Runs until nothing is ready, no timer is armed and no file operation is outstanding.
  SimEnd run_until_idle();
  /// Runs for `span` of virtual time; kIdle and kStuck end it before.
  SimEnd run_for(Nanos span);
  /// Runs `task` and all else until the task has finished; empty if it cannot (see last_end()).
  template <typename T>
  std::optional<T> run(Task<T> task) {
    std::optional<T> value;
    spawn(store(std::move(task), value));
    last_end_ = run_while(kForever, [&value] { return !value.has_value(); });
    return value;
  }

  /// How the last run ended; after a run() that gave a value: kIdle.
  [[nodiscard]] SimEnd last_end() const { return last_end_; }
  /// Spawned tasks that have not finished.
  [[nodiscard]] size_t tasks_pending() const { return roots_.size(); }
  [[nodiscard]] uint64_t steps() const { return steps_; }
  /// A digest of every choice made so far: equal for equal seeds and equal work.
  [[nodiscard]] uint64_t fingerprint() const { return fingerprint_; }
  /// The generator of this loop's choices, for parts of the simulation that are to share its seed.
  [[nodiscard]] Rng& rng() { return rng_; }

  /// Answers a file operation after `delay`. Range: once per operation.
  void complete(FileIo& io, int64_t result, Nanos delay);

  void post(Work& work) override;
  void defer(Work& work) override;
  [[nodiscard]] Nanos now() override { return now_; }
  void arm(Timer& timer) override;
  void disarm(Timer& timer) override;
  void submit(FileIo& io) override;

 private:
  static constexpr Nanos kForever = Nanos::max();
  struct Root;
  struct Completion {
    FileIo* io;
    int64_t result;
  };

  template <typename T>
  static Task<void> store(Task<T> task, std::optional<T>& value) {
    value.emplace(co_await task);
  }
  static Root run_root(SimLoop& loop, Task<void> task);

  SimEnd run_while(Nanos deadline, const std::function<bool()>& wanted);
  void step();
  void run_one(std::vector<Work*>& from);
  void free_finished();
  /// The earliest moment at which something happens by itself; kForever: never.
  [[nodiscard]] Nanos next_event() const;
  void take_due();
  void note(uint64_t choice);
  void assert_own_thread() const;

  const Options options_;
  SimFiles* const files_;
  const std::thread::id thread_ = std::this_thread::get_id();
  SeededRng rng_;
  Nanos now_{0};
  std::vector<Work*> ready_;
  std::vector<Work*> deferred_;
  /// By deadline, then by the order of arming, which is the timer's slot.
  std::map<std::pair<Nanos, size_t>, Timer*> timers_;
  size_t timers_armed_ = 0;
  std::multimap<Nanos, Completion> completions_;
  size_t files_outstanding_ = 0;
  std::vector<std::coroutine_handle<>> roots_;
  std::vector<std::coroutine_handle<>> finished_;
  bool dead_ = false;
  SimEnd last_end_ = SimEnd::kIdle;
  uint64_t steps_ = 0;
  uint64_t fingerprint_ = 0;
};

}  // namespace usbd

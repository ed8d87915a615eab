// SPDX-License-Identifier: Apache-2.0
//
// Blocking calls that a loop makes itself: on its own thread, while they are short; and when one is
// stuck the loop goes on without that thread, until it is back.

#include "async/loop_threads.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "async/call_pace.h"
#include "async/runtime.h"
#include "async/scope.h"

namespace usbd {
namespace {

using namespace std::chrono_literals;

std::string thread_name() {
  std::string name;
  std::getline(std::ifstream("/proc/thread-self/comm"), name);
  return name;
}

/// A thread of this process by its name; how often it has slept so far.
struct ThreadSeen {
  bool exists = false;
  long sleeps = 0;
};

ThreadSeen find_thread(const std::string& wanted) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    std::string word;
    std::string name;
    long sleeps = 0;
    while (status >> word) {
      if (word == "Name:") status >> name;
      if (word == "voluntary_ctxt_switches:") status >> sleeps;
    }
    if (name == wanted) return {true, sleeps};
  }
  return {};
}

/// Holds whoever comes until it is opened.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait_for(int waiting) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ >= waiting; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  bool open_ = false;
};

std::unique_ptr<Runtime> start_runtime(unsigned loops = 1) {
  Result<std::unique_ptr<Runtime>> runtime = Runtime::start({.loops = loops});
  USBD_ASSERT(runtime.has_value());
  return *std::move(runtime);
}

/// Where a call is made, and what it finds there.
struct Seen {
  std::string thread;
  bool on_a_loop = true;
};

Task<Seen> look_around(WorkerPool& pool, CallPace& pace) {
  auto look = [] { return Seen{thread_name(), Loop::current_or_null() != nullptr}; };
  co_return co_await pool.run(look, &pace);
}

Task<void> pass_gate(WorkerPool& pool, CallPace& pace, Gate& gate) {
  auto pass = [&gate] {
    gate.pass();
    return true;
  };
  co_await pool.run(pass, &pace);
}

Task<void> nothing() {
  co_return;
}

TEST(LoopThreads, MakesAShortCallOnTheThreadOfItsLoop) {
  const auto runtime = start_runtime();
  CallPace pace(limits::kShortCall);
  const Seen seen = runtime->run(look_around(runtime->blocking_pool(), pace));
  EXPECT_EQ(seen.thread, "usbd-loop-0");
  EXPECT_FALSE(seen.on_a_loop);
  EXPECT_FALSE(find_thread("usbd-blocking").exists);
}

TEST(LoopThreads, LeavesACallWhosePaceIsSlowToThePool) {
  const auto runtime = start_runtime();
  CallPace pace(limits::kShortCall);
  pace.pause(runtime->loop(0).now());
  EXPECT_EQ(runtime->run(look_around(runtime->blocking_pool(), pace)).thread, "usbd-blocking");
}

struct Stuck {
  Stuck() : runtime(start_runtime()) {
    starter.self = this;
    starter.run = [](Work& work) {
      Stuck& self = *static_cast<Starter&>(work).self;
      self.scope.spawn(pass_gate(self.runtime->blocking_pool(), self.pace, self.gate));
    };
    runtime->loop(0).post(starter);
    gate.wait_for(1);
  }
  ~Stuck() {
    gate.open();
    runtime->run(scope.close());
  }

  struct Starter : Work {
    Stuck* self = nullptr;
  };
  std::unique_ptr<Runtime> runtime;
  CallPace pace{limits::kShortCall};
  Gate gate;
  Scope scope;
  Starter starter;
};

TEST(LoopThreads, GoesOnWithALoopThatIsStuckInACall) {
  Stuck stuck;
  stuck.runtime->run(nothing());  // hangs if nobody takes the loop over
  EXPECT_FALSE(stuck.pace.may_try(stuck.runtime->loop(0).now()));
}

TEST(LoopThreads, MakesNoOtherCallItselfWhileOneIsStuck) {
  Stuck stuck;
  CallPace other(limits::kShortCall);
  EXPECT_EQ(stuck.runtime->run(look_around(stuck.runtime->blocking_pool(), other)).thread,
            "usbd-blocking");
  stuck.gate.open();
  stuck.runtime->run(stuck.scope.close());
  // Soon after, when the thread that was stuck has gone to rest.
  for (int i = 0; i < 2000; ++i) {
    const Seen seen = stuck.runtime->run(look_around(stuck.runtime->blocking_pool(), other));
    if (seen.thread == "usbd-loop-0") return;
    std::this_thread::sleep_for(1ms);
  }
  FAIL() << "the loop never made a call itself again";
}

Task<int> call_again_and_again(WorkerPool& pool, unsigned seed, int calls) {
  int sum = 0;
  for (int i = 0; i < calls; ++i) {
    CallPace pace(limits::kShortCall);  // a new one each time: the loop always tries
    seed = seed * 1664525 + 1013904223;
    auto sleep = [us = (seed >> 16) % 8 == 0 ? (seed >> 20) % 8000 : 0] {
      if (us > 0) std::this_thread::sleep_for(std::chrono::microseconds(us));
      return 1;
    };
    sum += co_await pool.run(sleep, &pace);
    co_await Loop::current().sleep_for(std::chrono::microseconds((seed >> 12) % 300));
  }
  co_return sum;
}

Task<void> count_calls(WorkerPool& pool, unsigned seed, int calls, std::atomic<int>& sum) {
  sum += co_await call_again_and_again(pool, seed, calls);
}

Task<void> call_side_by_side(WorkerPool& pool, unsigned seed, std::atomic<int>& sum) {
  Scope scope;
  for (unsigned i = 0; i < 8; ++i) scope.spawn(count_calls(pool, seed + i, 40, sum));
  co_await scope.close();
}

/// Loops change their threads all the time; no call, no timer and no coroutine gets lost.
TEST(LoopThreads, LosesNothingWhenLoopsChangeTheirThreadsAllTheTime) {
  const auto runtime = start_runtime(2);
  std::atomic<int> sum{0};
  {
    std::vector<std::jthread> askers;
    for (unsigned i = 0; i < 2; ++i) {
      askers.emplace_back([&, i] {
        runtime->run(call_side_by_side(runtime->blocking_pool(), 77 * (i + 1), sum), i);
      });
    }
  }
  EXPECT_EQ(sum.load(), 2 * 8 * 40);
}

TEST(LoopThreads, WatchesNothingWhenNoCallsAreMade) {
  const auto runtime = start_runtime();
  CallPace pace(limits::kShortCall);
  runtime->run(look_around(runtime->blocking_pool(), pace));
  const auto rest = limits::kWatchEvery * limits::kWatchRoundsMin;
  std::this_thread::sleep_for(3 * rest);
  const ThreadSeen before = find_thread("usbd-watch");
  ASSERT_TRUE(before.exists);
  std::this_thread::sleep_for(rest);
  EXPECT_EQ(find_thread("usbd-watch").sleeps, before.sleeps);
  // And it is there again when it is needed.
  Gate gate;
  std::jthread opener([&] {
    gate.wait_for(1);
    runtime->run(nothing());
    gate.open();
  });
  runtime->run(pass_gate(runtime->blocking_pool(), pace, gate));
}

Task<void> write_once(int fd, int flags) {
  std::array<char, 512> data{};
  FileIo write{.kind = FileIo::Kind::kWrite,
               .fd = fd,
               .data = data.data(),
               .length = data.size(),
               .flags = flags};
  EXPECT_EQ(co_await Loop::current().perform(write), 512);
}

TEST(EventLoop, DoesShortBufferedWritesItselfAndNothingThatSurelyWaits) {
  const auto runtime = start_runtime();
  std::string path = std::filesystem::temp_directory_path() / "usbd-XXXXXX";
  const int fd = mkstemp(path.data());
  ASSERT_GE(fd, 0);
  unlink(path.c_str());
  runtime->run(write_once(fd, 0));
  EXPECT_FALSE(find_thread("usbd-blocking").exists);
  runtime->run(write_once(fd, RWF_DSYNC));
  EXPECT_TRUE(find_thread("usbd-blocking").exists);
  close(fd);
}

}  // namespace
}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// EventLoop, WorkerPool, Task and Scope together, on real time and real files.

#include "async/event_loop.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "async/scope.h"
#include "async/testing.h"

namespace usbd {
namespace {

using namespace std::chrono_literals;
using testing::TestLoop;

Task<int64_t> add(int64_t a, int64_t b) {
  co_return a + b;
}

Task<int64_t> sum_to(int n) {
  int64_t sum = 0;
  for (int i = 1; i <= n; ++i) sum = co_await add(sum, i);
  co_return sum;
}

TEST(Task, RunsAMillionFinishedAwaitsWithoutGrowingTheStack) {
  TestLoop test;
  EXPECT_EQ(test.run(sum_to(1'000'000)), 1'000'000LL * 1'000'001 / 2);
}

Task<int> nested(int depth) {
  if (depth == 0) {
    co_await Loop::current().schedule();
    co_return 0;
  }
  co_return 1 + co_await nested(depth - 1);
}

TEST(Task, UnwindsADeepChainThatFinishedLater) {
  TestLoop test;
  EXPECT_EQ(test.run(nested(2000)), 2000);
}

Task<void> append_after(std::vector<int>& order, int value, Nanos delay) {
  co_await Loop::current().sleep_for(delay);
  order.push_back(value);
}

Task<void> three_sleepers(std::vector<int>& order) {
  Scope scope;
  scope.spawn(append_after(order, 3, 30ms));
  scope.spawn(append_after(order, 1, 1ms));
  scope.spawn(append_after(order, 2, 15ms));
  co_await scope.close();
}

TEST(EventLoop, FiresTimersInOrderAndScopeWaitsForAll) {
  TestLoop test;
  std::vector<int> order;
  test.run(three_sleepers(order));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

Task<Nanos> stopped_sleep(std::stop_token stop) {
  Loop& loop = Loop::current();
  const Nanos start = loop.now();
  co_await loop.sleep_for(60s, stop);
  co_return loop.now() - start;
}

TEST(Loop, SleepEndsWhenStopIsRequestedFromAnotherThread) {
  TestLoop test;
  std::stop_source source;
  std::jthread stopper([&] {
    std::this_thread::sleep_for(20ms);
    source.request_stop();
  });
  EXPECT_LT(test.run(stopped_sleep(source.get_token())), 30s);
}

Task<void> sleep_for_ever(std::stop_token stop) {
  Loop& loop = Loop::current();
  const Nanos all_the_time_left = Nanos::max() - loop.now();
  co_await loop.sleep_for(all_the_time_left, std::move(stop));
}

Task<void> sleep_beside_an_endless_sleep(std::vector<int>& order) {
  std::stop_source stop;
  Scope scope;
  scope.spawn(sleep_for_ever(stop.get_token()));
  co_await append_after(order, 1, 5ms);
  stop.request_stop();
  co_await scope.close();
}

// The moment at which such a sleep ends is later than the clock can say.
TEST(Loop, Regression_EndlessSleepHoldsUpNoOther) {
  TestLoop test;
  std::vector<int> order;
  test.run(sleep_beside_an_endless_sleep(order));
  EXPECT_EQ(order, std::vector<int>{1});
}

Task<int> sleeps_against_stops() {
  Loop& loop = Loop::current();
  int rounds = 0;
  for (; rounds < 300; ++rounds) {
    std::stop_source source;
    std::jthread stopper([&source] { source.request_stop(); });
    co_await loop.sleep_for(Nanos(rounds * 1000), source.get_token());
  }
  co_return rounds;
}

TEST(Loop, SleepSurvivesStopAndTimerAtTheSameMoment) {
  TestLoop test;
  EXPECT_EQ(test.run(sleeps_against_stops()), 300);
}

Task<int> hop_to_pool(WorkerPool& pool) {
  int total = 0;
  for (int i = 0; i < 1000; ++i) {
    Loop& home = Loop::current();
    auto square = [i] { return i * i % 7; };
    total += co_await pool.run(square);
    EXPECT_EQ(Loop::current_or_null(), &home);
  }
  co_return total;
}

TEST(WorkerPool, ReturnsToTheLoopItCameFrom) {
  TestLoop test;
  int expected = 0;
  for (int i = 0; i < 1000; ++i) expected += i * i % 7;
  EXPECT_EQ(test.run(hop_to_pool(test.pool())), expected);
}

class TempFile {
 public:
  TempFile() { fd_ = mkostemp(path_.data(), O_CLOEXEC); }
  ~TempFile() {
    close(fd_);
    unlink(path_.c_str());
  }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  std::string path_ = ::testing::TempDir() + "usbd-loop-XXXXXX";
  int fd_ = -1;
};

Task<void> write_then_read(int fd, int index, bool buffered) {
  Loop& loop = Loop::current();
  std::array<char, 512> data{};
  data.fill(static_cast<char>(index));
  FileIo write{.kind = FileIo::Kind::kWrite,
               .fd = fd,
               .data = data.data(),
               .length = data.size(),
               .offset = static_cast<uint64_t>(index) * data.size(),
               .buffered = buffered};
  EXPECT_EQ(co_await loop.perform(write), 512);
  std::array<char, 512> back{};
  FileIo read = write;
  read.kind = FileIo::Kind::kRead;
  read.data = back.data();
  EXPECT_EQ(co_await loop.perform(read), 512);
  EXPECT_EQ(data, back);
}

Task<void> many_file_operations(int fd) {
  Scope scope;
  for (int i = 0; i < 3000; ++i) scope.spawn(write_then_read(fd, i, i % 2 == 0));
  co_await scope.close();
  FileIo sync{.kind = FileIo::Kind::kDataSync, .fd = fd};
  EXPECT_EQ(co_await Loop::current().perform(sync), 0);
  FileIo bad{.kind = FileIo::Kind::kRead, .fd = -1, .data = nullptr, .length = 1};
  EXPECT_EQ(co_await Loop::current().perform(bad), -EBADF);
}

TEST(EventLoop, PerformsMoreFileOperationsThanTheRingHolds) {
  TestLoop test;
  EXPECT_TRUE(test.loop().uses_uring());
  const TempFile file;
  test.run(many_file_operations(file.fd()));
}

TEST(EventLoop, PerformsFileOperationsWithoutIoUring) {
  TestLoop test(false);
  EXPECT_FALSE(test.loop().uses_uring());
  const TempFile file;
  test.run(many_file_operations(file.fd()));
}

struct StopWhenReadable final : FdWatcher {
  StopWhenReadable(EventLoop& l, int f) : loop(l), fd(f) {}
  void on_events(uint32_t events) override {
    seen |= events;
    loop.unwatch(fd, *this);
    loop.stop();
  }
  EventLoop& loop;
  int fd;
  uint32_t seen = 0;
};

TEST(EventLoop, TellsAWatcherThatItsSocketIsReadable) {
  TestLoop test;
  std::array<int, 2> pair{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  StopWhenReadable watcher(test.loop(), pair[0]);
  ASSERT_TRUE(test.loop().watch(pair[0], EPOLLIN, watcher));
  std::jthread writer([&] {
    std::this_thread::sleep_for(5ms);
    ASSERT_EQ(write(pair[1], "x", 1), 1);
  });
  test.loop().run();
  EXPECT_NE(watcher.seen & EPOLLIN, 0U);
  writer.join();
  close(pair[0]);
  close(pair[1]);
}

struct CountingWork final : Work {
  explicit CountingWork(std::atomic<int>& c) : counter(c) {
    run = [](Work& work) { ++static_cast<CountingWork&>(work).counter; };
  }
  std::atomic<int>& counter;
};

Task<void> wait_until(std::atomic<int>& counter, int value) {
  while (counter.load() < value) co_await Loop::current().sleep_for(1ms);
}

TEST(EventLoop, LosesNoWorkPostedFromManyThreads) {
  TestLoop test;
  std::atomic<int> counter{0};
  std::vector<std::unique_ptr<CountingWork>> works;
  for (int i = 0; i < 40'000; ++i) works.push_back(std::make_unique<CountingWork>(counter));
  std::vector<std::jthread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < works.size(); i += 4) test.loop().post(*works[i]);
    });
  }
  test.run(wait_until(counter, 40'000));
  EXPECT_EQ(counter.load(), 40'000);
}

/// Asks as soon as it is answered, from another thread, and now and then so late that the loop
/// sleeps meanwhile.
TEST(EventLoop, LosesNothingBetweenLookingAndSleeping) {
  TestLoop test(true, 100us);
  std::atomic<int> counter{0};
  std::jthread client([&] {
    CountingWork work(counter);
    for (int i = 1; i <= 3000; ++i) {
      if (i % 100 == 0) std::this_thread::sleep_for(300us);
      test.loop().post(work);
      while (counter.load() < i) std::this_thread::yield();
    }
    test.loop().stop();
  });
  test.loop().run();
  client.join();
  EXPECT_EQ(counter.load(), 3000);
}

TEST(EventLoop, LooksForNoLongerThanUntilATimerIsDue) {
  TestLoop test(true, 60s);
  std::vector<int> order;
  test.run(three_sleepers(order));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

Nanos cpu_time_of_thread() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

Task<void> sleep_often() {
  for (int i = 0; i < 40; ++i) co_await Loop::current().sleep_for(5ms);
}

TEST(EventLoop, StopsLookingWhereNothingComes) {
  TestLoop test(true, 4ms);
  const Nanos before = cpu_time_of_thread();
  test.run(sleep_often());
  EXPECT_LT(cpu_time_of_thread() - before, 100ms);  // of 200, in each of which it could look for 4
}

/// Runs on a pool thread and ends a loop: by work that it posts there, or from where it is.
struct EndingWork final : Work {
  EndingWork(EventLoop& ended, bool by_post) : loop(ended) {
    stop.run = [](Work& work) { static_cast<Stop&>(work).self->loop.stop(); };
    stop.self = this;
    run = by_post ? [](Work& work) {
      auto& self = static_cast<EndingWork&>(work);
      self.loop.post(self.stop);
    } : [](Work& work) { static_cast<EndingWork&>(work).loop.stop(); };
  }
  struct Stop : Work {
    EndingWork* self = nullptr;
  };
  EventLoop& loop;
  Stop stop;
};

/// A loop that goes as soon as it has run what it was given: whoever gave it may still be on the
/// way out of post() or stop(). The sanitizers see it if the loop does not wait for that.
TEST(EventLoop, Regression_GoesOnlyWhenThePostThatEndedItHasReturned) {
  WorkerPool pool("test", 2);
  for (int i = 0; i < 4000; ++i) {
    Result<std::unique_ptr<EventLoop>> loop = EventLoop::create({.use_uring = false}, pool);
    ASSERT_TRUE(loop);
    auto ending = std::make_unique<EndingWork>(**loop, i % 2 == 0);
    pool.submit(*ending);
    (*loop)->run();
    loop->reset();
  }
}

}  // namespace
}  // namespace usbd

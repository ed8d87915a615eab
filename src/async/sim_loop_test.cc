// SPDX-License-Identifier: Apache-2.0
//
// A simulation is worth something only if a seed replays it exactly, other seeds try other orders,
// and a program that hangs is told from one that has finished.

#include "async/sim_loop.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include <gtest/gtest.h>

namespace usbd {
namespace {

using namespace std::chrono_literals;

Task<void> write_letter(SimLoop& loop, char letter, std::string& log) {
  for (int i = 0; i < 3; ++i) {
    co_await loop.schedule();
    log.push_back(letter);
  }
}

std::string order_with_seed(uint64_t seed) {
  SimLoop loop({.seed = seed});
  std::string log;
  for (const char letter : {'a', 'b', 'c', 'd', 'e'}) loop.spawn(write_letter(loop, letter, log));
  EXPECT_EQ(loop.run_until_idle(), SimEnd::kIdle);
  return log + "/" + std::to_string(loop.fingerprint());
}

TEST(SimLoop, ReplaysTheSameOrderForTheSameSeed) {
  EXPECT_EQ(order_with_seed(5), order_with_seed(5));
}

TEST(SimLoop, TriesManyOrdersForManySeeds) {
  std::vector<std::string> orders;
  for (uint64_t seed = 0; seed < 50; ++seed) orders.push_back(order_with_seed(seed));
  std::ranges::sort(orders);
  EXPECT_EQ(std::ranges::unique(orders).size(), 0U);
}

Task<void> sleep_and_note(SimLoop& loop, Nanos delay, std::vector<Nanos>& woken) {
  co_await loop.sleep_for(delay);
  woken.push_back(loop.now());
}

TEST(SimLoop, JumpsToTheNextTimerInsteadOfWaiting) {
  SimLoop loop({});
  std::vector<Nanos> woken;
  loop.spawn(sleep_and_note(loop, 2h, woken));
  loop.spawn(sleep_and_note(loop, 1h, woken));
  EXPECT_EQ(loop.run_until_idle(), SimEnd::kIdle);
  ASSERT_EQ(woken.size(), 2U);
  EXPECT_GE(woken[0], 1h);
  EXPECT_LT(woken[0], 1h + 1s);
  EXPECT_GE(woken[1], 2h);
}

TEST(SimLoop, StopsWhenItsTimeIsOver) {
  SimLoop loop({});
  std::vector<Nanos> woken;
  loop.spawn(sleep_and_note(loop, 1h, woken));
  EXPECT_EQ(loop.run_for(1min), SimEnd::kTime);
  EXPECT_EQ(loop.now(), 1min);
  EXPECT_EQ(loop.tasks_pending(), 1U);
  EXPECT_EQ(loop.run_for(1h), SimEnd::kIdle);
  EXPECT_EQ(woken.size(), 1U);
}

struct NeverResumed {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) const noexcept {}
  void await_resume() const noexcept {}
};

Task<void> wait_for_ever(std::shared_ptr<int> held) {
  co_await NeverResumed{};
  ++*held;
}

TEST(SimLoop, TellsAHangFromTheEndAndFreesWhatHangs) {
  const auto held = std::make_shared<int>(0);
  {
    SimLoop loop({});
    loop.spawn(wait_for_ever(held));
    EXPECT_EQ(loop.run_until_idle(), SimEnd::kStuck);
    EXPECT_EQ(loop.tasks_pending(), 1U);
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_EQ(*held, 0);
}

Task<void> spin(SimLoop& loop, const bool& stop) {
  while (!stop) co_await loop.schedule();
}

TEST(SimLoop, EndsALivelockAtItsLimitOfSteps) {
  SimLoop loop({.steps_max = 1'000});
  const bool stop = false;
  loop.spawn(spin(loop, stop));
  EXPECT_EQ(loop.run_until_idle(), SimEnd::kSteps);
}

Task<void> raise_after(SimLoop& loop, Nanos delay, bool& flag) {
  co_await loop.sleep_for(delay);
  flag = true;
}

TEST(SimLoop, LetsTimePassForCodeThatPolls) {
  SimLoop loop({});
  bool stop = false;
  loop.spawn(spin(loop, stop));
  loop.spawn(raise_after(loop, 10us, stop));
  EXPECT_EQ(loop.run_until_idle(), SimEnd::kIdle);
}

Task<int> answer(SimLoop& loop) {
  co_await loop.sleep_for(1s);
  co_return 42;
}

Task<int> never_answer() {
  co_await NeverResumed{};
  co_return 0;
}

TEST(SimLoop, RunsATaskToItsValueOrSaysThatItIsStuck) {
  SimLoop loop({});
  EXPECT_EQ(loop.run(answer(loop)), 42);
  EXPECT_EQ(loop.last_end(), SimEnd::kIdle);
}

TEST(SimLoop, GivesNoValueForATaskThatIsStuck) {
  SimLoop loop({});
  EXPECT_FALSE(loop.run(never_answer()).has_value());
  EXPECT_EQ(loop.last_end(), SimEnd::kStuck);
}

struct Note : Work {
  Note(std::string& l, char c) : log(l), letter(c) {
    Work::run = [](Work& self) {
      auto& note = static_cast<Note&>(self);
      note.log.push_back(note.letter);
    };
  }
  std::string& log;
  char letter;
};

TEST(SimLoop, RunsDeferredWorkOnceAndNotAtOnce) {
  SimLoop loop({});
  std::string log;
  Note later(log, 'd');
  loop.defer(later);
  EXPECT_EQ(log, "");
  EXPECT_EQ(loop.run_until_idle(), SimEnd::kIdle);
  EXPECT_EQ(log, "d");
}

TEST(SimLoop, DoesNotPostADisarmedTimer) {
  SimLoop loop({});
  std::string log;
  Note fired(log, 't');
  Timer timer;
  timer.deadline = 1s;
  timer.work = &fired;
  loop.arm(timer);
  loop.disarm(timer);
  loop.disarm(timer);
  EXPECT_EQ(timer.slot, 0U);
  EXPECT_EQ(loop.run_until_idle(), SimEnd::kIdle);
  EXPECT_EQ(log, "");
}

/// One file in memory; each operation takes a time drawn from the loop's seed.
class OneFile final : public SimFiles {
 public:
  void start(SimLoop& loop, FileIo& io) override {
    const Nanos delay{static_cast<int64_t>(loop.rng().below(1'000'000))};
    if (io.offset + io.length > sizeof bytes_) {
      loop.complete(io, -EIO, delay);
      return;
    }
    char* const place = bytes_ + io.offset;
    if (io.kind == FileIo::Kind::kWrite) std::memcpy(place, io.data, io.length);
    if (io.kind == FileIo::Kind::kRead) std::memcpy(io.data, place, io.length);
    loop.complete(io, static_cast<int64_t>(io.length), delay);
  }

 private:
  char bytes_[64] = {};
};

Task<std::string> write_and_read_back(SimLoop& loop) {
  std::string text = "hello";
  FileIo io;
  io.kind = FileIo::Kind::kWrite;
  io.data = text.data();
  io.length = text.size();
  io.offset = 7;
  const int64_t written = co_await loop.perform(io);
  std::string read(text.size(), '?');
  io.kind = FileIo::Kind::kRead;
  io.data = read.data();
  const int64_t got = co_await loop.perform(io);
  io.offset = 64;
  const int64_t beyond = co_await loop.perform(io);
  co_return read + std::to_string(written) + std::to_string(got) + std::to_string(beyond);
}

TEST(SimLoop, HandsFileOperationsToItsFiles) {
  OneFile file;
  SimLoop loop({}, &file);
  EXPECT_EQ(loop.run(write_and_read_back(loop)), "hello55" + std::to_string(-EIO));
}

Task<int64_t> sync_without_files(SimLoop& loop) {
  FileIo io;
  io.kind = FileIo::Kind::kDataSync;
  co_return co_await loop.perform(io);
}

TEST(SimLoop, RefusesFileOperationsWithoutFiles) {
  SimLoop loop({});
  EXPECT_EQ(loop.run(sync_without_files(loop)), -ENOSYS);
}

}  // namespace
}  // namespace usbd

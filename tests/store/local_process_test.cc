// SPDX-License-Identifier: Apache-2.0
//
// The store in a directory, used by processes that are killed at any moment, and by several at
// once. A kill leaves what the kernel has been told, so this shows that no moment leaves half of a
// change; what a power cut leaves is a question of what was synced (local_store_test).
//
// USBD_STORE_KILLS: how many kills; 300 if it is not set.

#include <charconv>
#include <chrono>
#include <cstring>
#include <map>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "objects/local/testing.h"
#include "store/numbered_object.h"

extern char** environ;

namespace usbd::objects::testing {
namespace {

namespace fs = std::filesystem;

uint64_t kills_wanted() {
  uint64_t kills = 300;
  const char* const text = std::getenv("USBD_STORE_KILLS");
  if (text != nullptr) std::from_chars(text, text + std::strlen(text), kills);
  return kills;
}

/// A running store_writer.
class Writer {
 public:
  Writer(const std::string& what, const std::string& path, uint64_t argument) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    output_ = UniqueFd(ends[0]);
    const UniqueFd input(ends[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input.get(), STDOUT_FILENO);
    std::string program = fs::read_symlink("/proc/self/exe").parent_path() / "store_writer";
    std::string number = std::to_string(argument);
    std::string words[] = {program, what, path, number};
    char* const argv[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(),
                          nullptr};
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv, environ), 0) << program;
    posix_spawn_file_actions_destroy(&actions);
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    if (pid_ > 0) kill_now();
  }

  void kill_now() {
    ::kill(pid_, SIGKILL);
    wait();
  }
  /// The exit status; 128 and more: ended by a signal.
  int wait() {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  /// Waits until it says something, or ends.
  void wait_for_word() const {
    pollfd ready{.fd = output_.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&ready, 1, 60'000), 1);
  }
  /// What it said up to its end, as far as it is whole.
  template <typename Record>
  std::vector<Record> records() {
    std::vector<Record> all;
    Record record;
    while (read(output_.get(), &record, sizeof(record)) == sizeof(record)) all.push_back(record);
    return all;
  }

 private:
  pid_t pid_ = -1;
  UniqueFd output_;
};

struct Stored {
  uint64_t object;
  uint64_t number;
};

class LocalProcessTest : public ::testing::Test {
 protected:
  /// The numbers of all objects, by name; a failed expectation for each that is not whole.
  std::map<std::string, uint64_t> look() {
    std::map<std::string, uint64_t> numbers;
    Result<std::unique_ptr<LocalStore>> store = folder_.open(loop_, rng_);
    EXPECT_TRUE(store) << (store ? "" : store.error().message());
    if (!store) return numbers;
    const Result<ListPage> page = loop_.run((*store)->list("", "", kListPageMax, CallLimits()));
    EXPECT_TRUE(page && !page->more);
    for (const ObjectInfo& info : page->objects) {
      const Result<Fetched> got =
          loop_.run((*store)->get(info.name, Part::whole(1U << 20), CallLimits()));
      EXPECT_TRUE(got) << (got ? "" : got.error().message());
      if (!got) continue;
      const std::optional<uint64_t> number = number_of(got->data);
      EXPECT_TRUE(number) << info.name << " is not whole";
      numbers[info.name] = number.value_or(0);
      EXPECT_EQ(info.size, got->data.size());
    }
    loop_.run((*store)->close());
    return numbers;
  }

  LocalFolder folder_;
  SystemRng rng_;
  usbd::testing::TestLoop loop_;
};

TEST_F(LocalProcessTest, ShowsEachObjectWholeAndNoOlderThanItWasSaidToBeAfterAnyKill) {
  const uint64_t kills = kills_wanted();
  SeededRng rng(1);
  uint64_t next = 1;
  uint64_t stored = 0;
  std::map<std::string, uint64_t> said;
  for (uint64_t i = 0; i < kills; ++i) {
    Writer writer("put", folder_.path(), next);
    // Some are killed while they start, and find what the one before has left.
    if (!rng.one_in(4)) writer.wait_for_word();
    std::this_thread::sleep_for(std::chrono::microseconds(rng.below(15'000)));
    writer.kill_now();
    for (const Stored& record : writer.records<Stored>()) {
      said[fmt::format("d/{}/{}", record.object % 3, record.object)] = record.number;
      next = record.number + 1;
      ++stored;
    }
    next += 1;  // one that was stored and not said
    std::map<std::string, uint64_t> numbers = look();
    for (const auto& [name, number] : said) {
      ASSERT_TRUE(numbers.contains(name)) << name << " is gone, after kill " << i;
      EXPECT_GE(numbers[name], number) << name << " is older than was said, after kill " << i;
      EXPECT_LT(numbers[name], next);
    }
    EXPECT_EQ(folder_.left_over(), 0U) << "opening has removed it";
    if (HasFailure()) break;
  }
  fmt::print("{} kills, {} puts said to be stored\n", kills, stored);
  EXPECT_GT(stored, kills / 2) << "the writers did not get far enough to show anything";
}

TEST_F(LocalProcessTest, LosesNoneOfTheAdditionsOfFourProcesses) {
  constexpr uint64_t kProcesses = 4;
  constexpr uint64_t kTimes = 100;
  {
    std::vector<std::unique_ptr<Writer>> writers;
    for (uint64_t i = 0; i < kProcesses; ++i) {
      writers.push_back(std::make_unique<Writer>("add", folder_.path(), kTimes));
    }
    for (const auto& writer : writers) EXPECT_EQ(writer->wait(), 0);
  }
  EXPECT_EQ(look()["sum"], kProcesses * kTimes);
}

TEST_F(LocalProcessTest, LosesNoAdditionToProcessesThatAreKilled) {
  // Each kill may take back at most the one addition that was under way, and add none.
  constexpr uint64_t kTimes = 150;
  Writer steady("add", folder_.path(), kTimes);
  SeededRng rng(2);
  for (int i = 0; i < 30; ++i) {
    Writer killed("add", folder_.path(), 1'000'000);
    std::this_thread::sleep_for(std::chrono::microseconds(rng.below(20'000)));
    killed.kill_now();
  }
  EXPECT_EQ(steady.wait(), 0) << "a lock died with its holder";
  EXPECT_GE(look()["sum"], kTimes);
}

/// Tests that mount something, seen by nobody else.
class LocalMountTest : public LocalProcessTest {
 protected:
  void SetUp() override {
    if (unshare(CLONE_NEWNS) != 0) {
      ASSERT_EQ(errno, EPERM);
      GTEST_SKIP() << "machine: only root may mount a filesystem";
    }
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  }
};

TEST_F(LocalMountTest, RefusesAFilesystemThatTakesSmallAndLargeLettersForTheSame) {
  ASSERT_TRUE(folder_.open(loop_, rng_));
  // One folder under both names, as such a filesystem would show it.
  const fs::path capitals = folder_.container() / ".USBD";
  fs::create_directory(capitals);
  ASSERT_TRUE(folder_.open(loop_, rng_)) << "two folders";
  ASSERT_EQ(mount(folder_.hidden().c_str(), capitals.c_str(), nullptr, MS_BIND, nullptr), 0);
  const Result<std::unique_ptr<LocalStore>> store = folder_.open(loop_, rng_);
  EXPECT_TRUE(!store && store.error().is(Errc::kNotSupported));
  ASSERT_EQ(umount2(capitals.c_str(), MNT_DETACH), 0);
}

TEST_F(LocalMountTest, SaysThatTheFilesystemIsFullOrReadOnly) {
  ASSERT_EQ(mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, "size=1m"), 0);
  EXPECT_EQ(Writer("fill", folder_.path(), 0).wait(), 0);
  EXPECT_EQ(folder_.left_over(), 0U);
  ASSERT_EQ(mount(nullptr, folder_.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  const Result<std::unique_ptr<LocalStore>> writing = folder_.open(loop_, rng_);
  ASSERT_FALSE(writing);
  EXPECT_TRUE(writing.error().is(Errc::kReadOnly)) << writing.error().message();
  const Result<std::unique_ptr<LocalStore>> reading = folder_.open(loop_, rng_, nullptr, true);
  ASSERT_TRUE(reading) << reading.error().message();
  EXPECT_TRUE(loop_.run((*reading)->head("fill/0", CallLimits())));
  ASSERT_EQ(umount2(folder_.path().c_str(), MNT_DETACH), 0);
}

}  // namespace
}  // namespace usbd::objects::testing

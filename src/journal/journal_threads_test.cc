// SPDX-License-Identifier: Apache-2.0
//
// One journal on a real file, used from four loops at once: what the simulation, which has one
// thread, cannot show. Worth most under the thread sanitizer.

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "async/kernel_folder.h"
#include "async/runtime.h"
#include "base/mutex.h"
#include "journal/journal.h"
#include "journal/testing.h"

namespace usbd::journal {
namespace {

constexpr unsigned kLoops = 4;
constexpr unsigned kEntriesEach = 150;
constexpr uint32_t kPayloadMax = 8;
/// Little more than the four records that it must hold: it is full most of the time.
constexpr uint64_t kRingBytes = 64 * kBlock;

/// What a device does around its journal: one lock orders the entries of all loops.
class Owner {
 public:
  explicit Owner(Journal& journal) : journal_(journal) {}

  Task<Result<void>> use(unsigned loop) {
    SeededRng rng(loop + 1);
    for (unsigned i = 0; i < kEntriesEach; ++i) {
      const auto blocks = static_cast<uint32_t>(rng.between(1, kPayloadMax));
      Entry entry{.block = loop, .blocks = blocks, .kind = 1, .has_payload = !rng.one_in(5)};
      Place place;
      while (!try_append(entry, place)) co_await Loop::current().sleep_for(Nanos(50'000));
      if (rng.one_in(2)) USBD_CO_TRY_VOID(co_await journal_.sync());
      if (entry.has_payload) {
        std::vector<std::byte> bytes(blocks * kBlock);
        const Journal::Held held = journal_.hold(place);
        USBD_CO_TRY_VOID(co_await journal_.read(held, bytes));
        if (bytes != testing::payload_of(entry.number, blocks)) {
          co_return Error(Errc::kIo, "an entry reads wrong bytes");
        }
      }
      release(entry.number);
    }
    co_return co_await journal_.sync();
  }

  [[nodiscard]] uint64_t entries() {
    const MutexLock lock(mutex_);
    return next_number_ - 1;
  }

 private:
  bool try_append(Entry& entry, Place& place) {
    const MutexLock lock(mutex_);
    const uint32_t payload_blocks = entry.has_payload ? entry.blocks : 0;
    if (!journal_.has_room(payload_blocks)) return false;
    entry.number = next_number_++;
    unreleased_.insert(entry.number);
    place = journal_.append(entry, testing::payload_of(entry.number, payload_blocks));
    return true;
  }
  void release(uint64_t number) {
    const MutexLock lock(mutex_);
    unreleased_.erase(number);
    journal_.release(unreleased_.empty() ? next_number_ - 1 : *unreleased_.begin() - 1);
  }

  Journal& journal_;
  Mutex mutex_;
  uint64_t next_number_ USBD_GUARDED_BY(mutex_) = 1;
  std::set<uint64_t> unreleased_ USBD_GUARDED_BY(mutex_);
};

class JournalOnLoops : public ::testing::TestWithParam<bool> {
 public:
  JournalOnLoops() {
    std::string pattern = (std::filesystem::temp_directory_path() / "usbd-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~JournalOnLoops() override { std::filesystem::remove_all(path_); }

 protected:
  Task<Result<std::unique_ptr<Journal>>> open(WorkerPool& pool, bool make) {
    USBD_CO_TRY(const std::unique_ptr<KernelFolder> folder,
                KernelFolder::open_directory(path_, pool));
    const Folder::OpenHow how{.create = CreatePolicy::kAuto, .direct = GetParam()};
    USBD_CO_TRY(std::unique_ptr<BlockFile> file, co_await folder->open("journal", how));
    if (make) {
      USBD_CO_TRY_VOID(co_await Journal::format(*file, {}, kRingBytes, 0));
    }
    Options options;
    options.payload_blocks_max = kPayloadMax;
    options.sealer = testing::sealers_of(3);
    co_return co_await Journal::open(std::move(file), rng_, std::move(options));
  }
  Task<Result<Replayed>> start(Journal& journal, uint64_t next) {
    USBD_CO_TRY(Replayed found, co_await journal.replay([](const Entry&, const Place&) {}));
    USBD_CO_TRY_VOID(co_await journal.begin(1, next));
    co_return found;
  }

  std::filesystem::path path_;
  SystemRng rng_;
};

INSTANTIATE_TEST_SUITE_P(Direct, JournalOnLoops, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "DirectIo" : "PageCache"; });

TEST_P(JournalOnLoops, KeepsItsPromisesToAllOfThem) {
  Result<std::unique_ptr<Runtime>> runtime = Runtime::start({.loops = kLoops});
  ASSERT_TRUE(runtime);
  WorkerPool& pool = (*runtime)->blocking_pool();
  Result<std::unique_ptr<Journal>> opened = (*runtime)->run(open(pool, true));
  ASSERT_TRUE(opened) << opened.error().message();
  std::unique_ptr<Journal> journal = *std::move(opened);
  ASSERT_TRUE((*runtime)->run(start(*journal, 1)));
  std::atomic<unsigned> changes = 0;
  journal->on_change([&changes] { ++changes; });
  Owner owner(*journal);
  std::vector<std::thread> threads;
  for (unsigned loop = 0; loop < kLoops; ++loop) {
    threads.emplace_back([&, loop] {
      const Result<void> used = (*runtime)->run(owner.use(loop), loop);
      EXPECT_TRUE(used) << used.error().message();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(owner.entries(), kLoops * kEntriesEach);
  EXPECT_GT(changes, 0U);
  const Result<void> closed = (*runtime)->run(journal->close());
  EXPECT_TRUE(closed) << closed.error().message();
  journal.reset();

  opened = (*runtime)->run(open(pool, false));
  ASSERT_TRUE(opened) << opened.error().message();
  journal = *std::move(opened);
  const Result<Replayed> found = (*runtime)->run(start(*journal, owner.entries() + 1));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->damage, "");
  EXPECT_FALSE(found->torn_tail);
  EXPECT_TRUE((*runtime)->run(journal->close()));
}

}  // namespace
}  // namespace usbd::journal

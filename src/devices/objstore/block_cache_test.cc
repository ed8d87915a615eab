// SPDX-License-Identifier: Apache-2.0
//
// The cache by itself: what it gives back, what it lets go, what it keeps, and that neither a full
// disk nor a failing or lying one ever makes it give a wrong byte.

#include "devices/objstore/block_cache.h"

#include <algorithm>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "async/testing.h"
#include "devices/objstore/memory_folder_testing.h"

namespace usbd::objstore {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Gap = BlockCache::Gap;
using ByteVector = std::vector<std::byte>;

/// The blocks of an object, which never change.
ByteVector contents(const ObjectId& id, uint32_t position, uint64_t blocks) {
  ByteVector bytes;
  for (uint64_t i = 0; i < blocks; ++i) {
    ByteVector block(kBlockBytes);
    SeededRng(id.epoch * 1'000'003 + id.seq * 1009 + position + i).fill(block);
    bytes.insert(bytes.end(), block.begin(), block.end());
  }
  return bytes;
}

class BlockCacheTest : public ::testing::Test {
 protected:
  BlockCacheTest() {
    options.volume.fill(std::byte{0x11});
    options.blocks_max = 64;
    options.sealed = true;
    options.key = key;
    options.found.fill(std::byte{0x22});
  }
  ~BlockCacheTest() override {
    if (cache) close();
  }

  void open() { cache = *loop.run(BlockCache::open(folder, rng, options)); }
  void close() {
    run(cache->close(options.found));
    cache.reset();
  }
  void reopen() {
    close();
    open();
  }
  void run(Task<void> task) {
    loop.spawn(std::move(task));
    ASSERT_EQ(loop.run_until_idle(), SimEnd::kIdle);
  }
  void sleep(Nanos time) {
    const auto sleeping = [](Nanos left) -> Task<void> {
      co_await Loop::current().sleep_for(left);
    };
    run(sleeping(time));
  }
  void add(const ObjectId& id, uint32_t position, uint64_t blocks = 1) {
    cache->add(id, position, contents(id, position, blocks));
    run(cache->settle());
  }
  /// What it has not; what it gives is right.
  std::vector<Gap> read(const ObjectId& id, uint32_t position, uint64_t blocks = 1) {
    ByteVector out(blocks * kBlockBytes, std::byte{0xEE});
    const std::vector<Gap> gaps = *loop.run(cache->read(id, position, out));
    const ByteVector expected = contents(id, position, blocks);
    for (uint64_t i = 0; i < blocks; ++i) {
      const bool missing = std::ranges::any_of(
          gaps, [i](const Gap& gap) { return i >= gap.first && i < gap.first + gap.count; });
      if (missing) continue;
      EXPECT_TRUE(std::ranges::equal(Bytes(out).subspan(i * kBlockBytes, kBlockBytes),
                                     Bytes(expected).subspan(i * kBlockBytes, kBlockBytes)))
          << "a wrong block " << i;
    }
    return gaps;
  }
  bool has(const ObjectId& id, uint32_t position) { return read(id, position).empty(); }

  const ByteVector key = ByteVector(32, std::byte{7});
  SimLoop loop{SimLoop::Options{}};
  MemoryDisk disk;
  MemoryFolder folder{disk};
  SeededRng rng{1};
  BlockCache::Options options;
  std::unique_ptr<BlockCache> cache;
  const ObjectId one{.epoch = 1, .seq = 1};
  const ObjectId two{.epoch = 1, .seq = 2};
};

TEST_F(BlockCacheTest, GivesBackWhatItWasGivenAndSaysWhatIsMissing) {
  open();
  add(one, 3, 4);
  add(two, 5);
  EXPECT_THAT(read(one, 3, 4), IsEmpty());
  EXPECT_THAT(read(one, 0, 10), ElementsAre(Gap{0, 3}, Gap{7, 3}));
  EXPECT_THAT(read(two, 3, 4), ElementsAre(Gap{0, 2}, Gap{3, 1}));
  EXPECT_THAT(read({.epoch = 2, .seq = 1}, 3), ElementsAre(Gap{0, 1}));
  EXPECT_THAT(read({.epoch = 1, .seq = 1, .kind = ObjectKind::kGc}, 3), ElementsAre(Gap{0, 1}));
  EXPECT_THAT(cache->missing(one, 2, 3), ElementsAre(Gap{0, 1}));
  const CacheStats stats = cache->stats();
  EXPECT_EQ(stats.hits, 4U + 4 + 1);
  EXPECT_EQ(stats.misses, 6U + 3 + 1 + 1);
  EXPECT_EQ(stats.blocks, 5U);
  EXPECT_EQ(stats.damaged, 0U);
}

TEST_F(BlockCacheTest, IsEncryptedAndNeverTheSameTwice) {
  open();
  add(one, 3);
  const ByteVector plain = contents(one, 3, 1);
  const ByteVector first = disk.bytes("cache.blocks");
  EXPECT_NE(first, plain);
  reopen();
  add(one, 3);
  EXPECT_NE(disk.bytes("cache.blocks"), first);
}

TEST_F(BlockCacheTest, WithoutAKeyItOnlyChecks) {
  options.sealed = false;
  options.key = {};
  open();
  add(one, 3);
  EXPECT_EQ(disk.bytes("cache.blocks"), contents(one, 3, 1));
  EXPECT_TRUE(has(one, 3));
  disk.bytes("cache.blocks")[77] ^= std::byte{4};
  EXPECT_FALSE(has(one, 3));
}

TEST_F(BlockCacheTest, LetsGoOfWhatWasNotAskedFor) {
  options.blocks_max = 8;
  open();
  add(one, 0, 8);
  EXPECT_THAT(read(one, 2, 2), IsEmpty());
  add(two, 0, 6);
  EXPECT_TRUE(has(one, 2) && has(one, 3));
  EXPECT_THAT(read(two, 0, 6), IsEmpty());
  EXPECT_EQ(cache->stats().blocks, 8U);
  EXPECT_EQ(disk.bytes("cache.blocks").size(), 8 * kBlockBytes);
}

TEST_F(BlockCacheTest, IsRightThroughManyChanges) {
  options.blocks_max = 20;
  options.persist = true;
  open();
  SeededRng choices(5);
  for (int i = 0; i < 4000; ++i) {
    const ObjectId id{.epoch = 1, .seq = choices.between(1, 5)};
    const auto position = static_cast<uint32_t>(choices.below(30));
    const uint64_t count = choices.between(1, 6);
    if (choices.one_in(2)) {
      cache->add(id, position, contents(id, position, count));
    } else {
      read(id, position, count);
    }
    if (choices.one_in(500)) reopen();
  }
  run(cache->settle());
  EXPECT_EQ(cache->stats().blocks, 20U);
  EXPECT_GT(cache->stats().hits, 20U);
  EXPECT_EQ(cache->stats().damaged, 0U);
}

TEST_F(BlockCacheTest, IsAsLargeAsTheDiskAllows) {
  disk.space = 5 * kBlockBytes;
  open();
  for (uint32_t i = 0; i < 12; ++i) add(one, i);
  EXPECT_TRUE(cache->stats().on);
  EXPECT_EQ(cache->stats().blocks, 5U);
  EXPECT_EQ(cache->stats().blocks_max, 5U);
  add(two, 0, 2);
  EXPECT_TRUE(has(two, 0) && has(two, 1));
}

TEST_F(BlockCacheTest, IsOffOnADiskWithoutAnySpace) {
  disk.space = 0;
  open();
  add(one, 0, 4);
  EXPECT_FALSE(cache->stats().on);
  EXPECT_THAT(read(one, 0, 4), ElementsAre(Gap{0, 4}));
  add(one, 0, 4);
}

TEST_F(BlockCacheTest, IsSwitchedOffByAFailedWrite) {
  options.persist = true;
  open();
  add(one, 0, 4);
  disk.writes_fail = "cache.blocks";
  add(two, 0, 4);
  EXPECT_FALSE(cache->stats().on);
  EXPECT_FALSE(has(one, 0));
  close();
  EXPECT_TRUE(disk.files.empty());
}

TEST_F(BlockCacheTest, AnUnreadablePlaceIsAMissAndNotUsedAgain) {
  open();
  add(one, 0, 4);
  disk.reads_fail = "cache.blocks";
  EXPECT_THAT(read(one, 1, 2), ElementsAre(Gap{0, 2}));
  disk.reads_fail = "-";
  EXPECT_THAT(read(one, 0, 4), ElementsAre(Gap{1, 2}));
  EXPECT_EQ(cache->stats().damaged, 2U);
  add(one, 1, 2);
  EXPECT_THAT(read(one, 0, 4), IsEmpty());
  EXPECT_EQ(disk.bytes("cache.blocks").size(), 6 * kBlockBytes);
}

TEST_F(BlockCacheTest, IsSwitchedOffIfMuchCannotBeRead) {
  options.blocks_max = 256;
  open();
  add(one, 0, limits::kCacheBadPlacesMax + 8);
  disk.reads_fail = "cache.blocks";
  read(one, 0, limits::kCacheBadPlacesMax + 8);
  EXPECT_FALSE(cache->stats().on);
}

TEST_F(BlockCacheTest, GivesNoBlockInPlaceOfAnother) {
  open();
  add(one, 0, 2);
  ByteVector& bytes = disk.bytes("cache.blocks");
  std::swap_ranges(bytes.begin(), bytes.begin() + kBlockBytes, bytes.begin() + kBlockBytes);
  EXPECT_THAT(read(one, 0, 2), ElementsAre(Gap{0, 2}));
  EXPECT_EQ(cache->stats().damaged, 2U);
}

TEST_F(BlockCacheTest, TakesNoMoreThanFitsOnTheWay) {
  options.blocks_max = 10'000;
  open();
  const uint64_t fits = limits::kCacheWriteBytesMax / kBlockBytes;
  const ByteVector bytes((fits + 5) * kBlockBytes);
  // The file answers at once here, so that one call is all that can be under way.
  cache->add(one, 0, bytes);
  EXPECT_THAT(cache->missing(one, 0, fits + 5), ElementsAre(Gap{fits, 5}));
  run(cache->settle());
}

// --- what is kept

TEST_F(BlockCacheTest, GivesAtOnceWhatNeedNotBeWaitedFor) {
  open();
  add(one, 3, 4);
  add(two, 0, 1);
  add(one, 7, 2);
  ByteVector out(6 * kBlockBytes);
  ASSERT_TRUE(cache->try_read(one, 3, out));
  EXPECT_EQ(out, contents(one, 3, 6));
  EXPECT_EQ(cache->stats().hits, 6U);
  EXPECT_FALSE(cache->try_read(one, 4, out)) << "the last is not there";
  EXPECT_FALSE(cache->try_read(two, 1, MutableBytes(out).first(kBlockBytes)));
  ByteVector large((limits::kCacheTryBlocks + 1) * kBlockBytes);
  EXPECT_FALSE(cache->try_read(one, 3, large));
  disk.waits = true;
  EXPECT_FALSE(cache->try_read(one, 3, out));
  EXPECT_THAT(read(one, 3, 6), IsEmpty());
  EXPECT_EQ(cache->stats().hits, 12U);
  EXPECT_EQ(cache->stats().misses, 0U);
}

TEST_F(BlockCacheTest, GivesNothingAtOnceThatIsNotProven) {
  open();
  add(one, 0, 2);
  disk.bytes("cache.blocks")[kBlockBytes + 7] ^= std::byte{1};
  ByteVector out(2 * kBlockBytes);
  EXPECT_FALSE(cache->try_read(one, 0, out));
  EXPECT_EQ(cache->stats().damaged, 0U) << "who asks then finds it";
  EXPECT_THAT(read(one, 0, 2), ElementsAre(Gap{1, 1}));
  EXPECT_EQ(cache->stats().damaged, 1U);
}

TEST_F(BlockCacheTest, TakesOnlySoMuchUnasked) {
  open();
  constexpr uint64_t kAtOnce = limits::kCacheUnaskedBytes / kBlockBytes;
  const auto ask = [this](uint64_t blocks) {
    bool taken = false;
    const auto asking = [](BlockCache& asked, uint64_t count, bool& answer) -> Task<void> {
      answer = asked.takes_unasked(count);
      co_return;
    };
    run(asking(*cache, blocks, taken));
    return taken;
  };
  EXPECT_TRUE(ask(kAtOnce));
  EXPECT_FALSE(ask(16));
  EXPECT_TRUE(ask(0));
  sleep(Nanos(10'000'000));
  EXPECT_TRUE(ask(limits::kCacheUnaskedPerSecond / kBlockBytes / 100));
  EXPECT_FALSE(ask(16));
  sleep(Nanos(5'000'000'000));
  EXPECT_FALSE(ask(kAtOnce + 1)) << "what was not used is not saved up";
  EXPECT_TRUE(ask(kAtOnce));
}

/// Adds frames of which nobody else keeps the memory.
Task<bool> add_frames(BlockCache& cache, ObjectId id) {
  bool right = true;
  for (uint32_t frame = 0; frame < 8; ++frame) {
    const auto memory = std::make_shared<FrameBuffer>(kFrameBytes);
    const ByteVector bytes = contents(id, frame * kFrameBlocks, kFrameBlocks);
    std::ranges::copy(bytes, memory->bytes().begin());
    const Bytes all = std::as_const(*memory).bytes();
    // All of it, or little, which is copied.
    cache.add(id, frame * kFrameBlocks, frame % 2 == 0 ? all : all.first(kBlockBytes), memory);
  }
  co_await cache.settle();
  for (uint32_t frame = 0; frame < 8; ++frame) {
    ByteVector out((frame % 2 == 0 ? kFrameBlocks : 1) * kBlockBytes);
    const std::vector<Gap> gaps = co_await cache.read(id, frame * kFrameBlocks, out);
    right = right && gaps.empty() &&
            out == contents(id, frame * kFrameBlocks, out.size() / kBlockBytes);
  }
  co_return right;
}

TEST(BlockCacheThreads, SealWhatIsAdded) {
  usbd::testing::TestLoop loop;
  MemoryDisk disk;
  MemoryFolder folder(disk);
  SeededRng rng(1);
  const ByteVector key(32, std::byte{7});
  const BlockCache::Options options{
      .sealed = true, .key = key, .blocks_max = 1000, .workers = &loop.pool()};
  const std::unique_ptr<BlockCache> cache = loop.run(BlockCache::open(folder, rng, options));
  ASSERT_NE(cache, nullptr);
  EXPECT_TRUE(loop.run(add_frames(*cache, {.epoch = 1, .seq = 1})));
  EXPECT_EQ(cache->stats().blocks, 4U * kFrameBlocks + 4);
  loop.run(cache->close({}));
}

TEST_F(BlockCacheTest, IsGoneAfterACloseUnlessItIsToBeKept) {
  open();
  add(one, 0, 4);
  close();
  EXPECT_TRUE(disk.files.empty());
}

TEST_F(BlockCacheTest, IsKept) {
  options.persist = true;
  open();
  add(one, 0, 4);
  add(two, 7, 2);
  reopen();
  EXPECT_FALSE(disk.has("cache.index"));
  EXPECT_EQ(cache->stats().blocks, 6U);
  EXPECT_THAT(read(one, 0, 4), IsEmpty());
  add(two, 9);
  reopen();
  EXPECT_THAT(read(one, 0, 4), IsEmpty());
  EXPECT_THAT(read(two, 7, 3), IsEmpty());
}

TEST_F(BlockCacheTest, IsEmptyAfterACrash) {
  options.persist = true;
  open();
  add(one, 0, 4);
  reopen();
  const std::map<std::string, std::shared_ptr<ByteVector>> crashed = disk.files;
  add(one, 4, 2);
  close();
  disk.files = crashed;
  open();
  EXPECT_EQ(cache->stats().blocks, 0U);
  EXPECT_TRUE(disk.bytes("cache.blocks").empty());
}

TEST_F(BlockCacheTest, IsNotKeptForAnotherVolumeOrALaterHead) {
  options.persist = true;
  open();
  for (int i = 0; i < 3; ++i) {
    add(one, 0, 4);
    const BlockCache::Options mine = options;
    close();
    if (i == 0) options.volume[3] ^= std::byte{1};
    if (i == 1) options.found[3] ^= std::byte{1};
    if (i == 2) options.sealed = false;
    open();
    EXPECT_EQ(cache->stats().blocks, 0U) << i;
    options = mine;
    reopen();
    EXPECT_EQ(cache->stats().blocks, 0U) << i;
  }
}

TEST_F(BlockCacheTest, IsNotKeptIfItsUserLostTheVolume) {
  options.persist = true;
  open();
  add(one, 0, 4);
  run(cache->close(std::nullopt));
  EXPECT_TRUE(disk.files.empty());
  open();
}

TEST_F(BlockCacheTest, AKeptOneOfAnotherKeyGivesNothing) {
  options.persist = true;
  open();
  add(one, 0, 4);
  close();
  const ByteVector other(32, std::byte{8});
  options.key = other;
  open();
  EXPECT_THAT(read(one, 0, 4), ElementsAre(Gap{0, 4}));
  close();
  options.key = key;
  open();
}

TEST_F(BlockCacheTest, AKeptOneMayBecomeSmaller) {
  options.persist = true;
  open();
  add(one, 0, 16);
  close();
  options.blocks_max = 5;
  open();
  EXPECT_EQ(cache->stats().blocks, 5U);
  EXPECT_EQ(disk.bytes("cache.blocks").size(), 5 * kBlockBytes);
  EXPECT_THAT(read(one, 0, 5), IsEmpty());
}

TEST_F(BlockCacheTest, OutlivesMoreStopsThanItHasSessions) {
  options.persist = true;
  open();
  for (uint32_t i = 0; i < limits::kCacheSessionsMax + 20; ++i) {
    add(one, i);
    reopen();
  }
  // Each block is of a session of its own, so the oldest have gone.
  EXPECT_LT(cache->stats().blocks, limits::kCacheSessionsMax);
  EXPECT_GT(cache->stats().blocks, limits::kCacheSessionsMax / 2);
  EXPECT_TRUE(has(one, limits::kCacheSessionsMax + 19));
  EXPECT_FALSE(has(one, 0));
}

TEST_F(BlockCacheTest, IsNotKeptIfTheIndexCannotBeWritten) {
  options.persist = true;
  for (std::string MemoryDisk::* fails : {&MemoryDisk::writes_fail, &MemoryDisk::syncs_fail}) {
    for (const char* file : {"cache.index", "cache"}) {
      open();
      add(one, 0, 4);
      disk.*fails = file;
      close();
      disk.*fails = "-";
      EXPECT_TRUE(disk.files.empty());
    }
  }
}

TEST_F(BlockCacheTest, ThereIsNoneIfItsFilesCannotBeHad) {
  disk.opens_fail = "cache.blocks";
  open();
  EXPECT_EQ(cache, nullptr);
  disk.opens_fail = "-";
  disk.removes_fail = "cache.index";
  open();
  EXPECT_EQ(cache, nullptr);
  disk.removes_fail = "-";
  options.key = options.key.first(5);
  open();
  EXPECT_EQ(cache, nullptr);
}

/// Whatever happens to the files between a stop and the next opening, or while it is used.
TEST_F(BlockCacheTest, NeverGivesAWrongByteWhateverBecomesOfItsFiles) {
  options.persist = true;
  open();
  add(one, 0, 10);
  add(two, 3, 6);
  close();
  const ByteVector blocks = disk.bytes("cache.blocks");
  const ByteVector index = disk.bytes("cache.index");
  SeededRng choices(9);
  uint64_t served = 0;
  for (int mutation = 0; mutation < 6000; ++mutation) {
    disk.files["cache.blocks"] = std::make_shared<ByteVector>(blocks);
    disk.files["cache.index"] = std::make_shared<ByteVector>(index);
    ByteVector& file = disk.bytes(choices.one_in(3) ? "cache.blocks" : "cache.index");
    for (uint64_t i = choices.between(1, 4); i > 0; --i) {
      const auto at = static_cast<ptrdiff_t>(choices.below(file.size()));
      switch (choices.below(4)) {
        case 0:
          file[static_cast<size_t>(at)] = static_cast<std::byte>(choices.below(256));
          break;
        case 1:
          file.resize(choices.one_in(2) ? static_cast<size_t>(at) + 1 : file.size() + 40);
          break;
        case 2:
          std::rotate(file.begin(), file.begin() + at, file.end());
          break;
        default:
          file[static_cast<size_t>(at)] ^= static_cast<std::byte>(1U << choices.below(8));
      }
    }
    open();
    ASSERT_NE(cache, nullptr);
    for (const ObjectId& id : {one, two}) {
      const std::vector<Gap> gaps = read(id, 0, 12);
      for (const Gap& gap : gaps) served -= gap.count;
      served += 12;
    }
    ASSERT_FALSE(HasFailure()) << "mutation " << mutation;
    run(cache->close(std::nullopt));
    cache.reset();
  }
  EXPECT_GT(served, 6000U);
}

}  // namespace
}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// What reads of a volume cost at the store, and what they do when the store or the cache fails
// them. Counts are of GETs of data objects after the volume was opened. Opening has read the
// directories behind the checkpoint; that of an older object is read with its first frame.

#include <algorithm>
#include <functional>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "devices/objstore/memory_folder_testing.h"
#include "devices/objstore/volume.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

using ::testing::HasSubstr;
using ByteVector = std::vector<std::byte>;

constexpr uint64_t kBlocks = 4096;

/// A store of which a test changes what comes back.
class ShapedStore final : public objects::ObjectStore {
 public:
  using Shape = std::function<void(const std::string& name, Result<objects::Fetched>& fetched)>;

  explicit ShapedStore(std::shared_ptr<objects::MemoryContainer> bucket)
      : inner_(std::move(bucket)) {}
  /// Of data objects. Range: not from within the present one.
  void shape(Shape shape) { shape_ = std::move(shape); }
  /// Nothing is got any more.
  void go_away(bool away) { away_ = away; }
  [[nodiscard]] uint64_t data_fetches() const { return data_fetches_; }

  [[nodiscard]] std::string name() const override { return inner_.name(); }
  [[nodiscard]] objects::Abilities abilities() const override { return inner_.abilities(); }
  Task<Result<std::string>> put(std::string name, Bytes data, objects::Condition condition,
                                objects::CallLimits limits) override {
    co_return co_await inner_.put(std::move(name), data, std::move(condition), std::move(limits));
  }
  Task<Result<objects::Fetched>> get(std::string name, objects::Part part,
                                     objects::CallLimits limits) override {
    Result<objects::Fetched> fetched = co_await inner_.get(name, part, limits);
    co_await Loop::current().sleep_for(Nanos(20'000'000), limits.stop);
    if (limits.stop.stop_requested()) co_return Error(Errc::kCanceled, name);
    if (away_) co_return Error(Errc::kAgain, name + ": away");
    if (name.find("/d/") != std::string::npos) {
      ++data_fetches_;
      if (shape_) shape_(name, fetched);
    }
    co_return fetched;
  }
  Task<Result<objects::ObjectInfo>> head(std::string name, objects::CallLimits limits) override {
    if (away_) co_return Error(Errc::kAgain, name + ": away");
    co_return co_await inner_.head(std::move(name), std::move(limits));
  }
  Task<Result<objects::ListPage>> list(std::string prefix, std::string after, size_t most,
                                       objects::CallLimits limits) override {
    co_return co_await inner_.list(std::move(prefix), std::move(after), most, std::move(limits));
  }
  Task<Result<void>> remove(std::string name, objects::CallLimits limits) override {
    co_return co_await inner_.remove(std::move(name), std::move(limits));
  }
  Task<void> close() override { return inner_.close(); }

 private:
  objects::MemoryStore inner_;
  Shape shape_;
  uint64_t data_fetches_ = 0;
  bool away_ = false;
};

class VolumeReads : public ::testing::Test {
 protected:
  VolumeReads() {
    options.name = "vol";
    options.size = kBlocks * kBlockBytes;
    options.cipher = crypto::CipherMode::kIdentity;
    options.object_bytes = 4U << 20;
    options.journal_bytes = 64U << 20;
    image.resize(options.size);
    SeededRng(3).fill(image);
  }
  ~VolumeReads() override {
    store.shape({});
    if (volume) close();
  }

  void open() {
    Result<std::unique_ptr<Volume>> opened =
        *loop.run(Volume::open({.store = store, .folder = &folder, .rng = rng}, options));
    ASSERT_TRUE(opened) << opened.error().message();
    volume = *std::move(opened);
    counted = fetches();
  }
  void close() {
    const Result<void> closed = *loop.run(volume->close({}));
    ASSERT_TRUE(closed) << closed.error().message();
    loop.run_until_idle();
    volume.reset();
  }
  /// A volume whose every block is in the store, just opened; all directories are known.
  void open_full() {
    open();
    for (uint64_t at = 0; at < kBlocks; at += 64) write(at, 64);
    reopen_without_checkpoint();
  }
  void reopen() {
    close();
    open();
  }
  /// As after a crash when everything was published: only a proper close makes a checkpoint.
  void reopen_without_checkpoint() {
    ASSERT_TRUE(*loop.run(volume->publish_all()));
    volume->abandon();
    static_cast<void>(*loop.run(volume->close({})));
    loop.run_until_idle();
    volume.reset();
    open();
    ASSERT_EQ(volume->state().checkpoint, 0U);
  }
  void write(uint64_t block, uint64_t count) {
    const Bytes bytes = Bytes(image).subspan(block * kBlockBytes, count * kBlockBytes);
    ASSERT_TRUE(*loop.run(volume->write(block, bytes)));
  }
  Result<void> try_read(uint64_t block, uint64_t count = 1) {
    ByteVector out(count * kBlockBytes, std::byte{0xEE});
    Result<void> done = *loop.run(volume->read(block, out));
    if (!done) return done;
    EXPECT_TRUE(std::ranges::equal(out, Bytes(image).subspan(block * kBlockBytes, out.size())))
        << "wrong bytes from block " << block;
    return {};
  }
  void read(uint64_t block, uint64_t count = 1) {
    const Result<void> done = try_read(block, count);
    ASSERT_TRUE(done) << done.error().message();
  }
  /// Whether it could be read without waiting; then it was right.
  bool read_at_once(uint64_t block, uint64_t count = 1) {
    ByteVector out(count * kBlockBytes, std::byte{0xEE});
    const std::optional<Result<void>> done = volume->try_read(block, out);
    if (!done) return false;
    EXPECT_TRUE(*done);
    EXPECT_TRUE(std::ranges::equal(out, Bytes(image).subspan(block * kBlockBytes, out.size())))
        << "wrong bytes from block " << block;
    return true;
  }
  void run(Task<void> task) {
    loop.spawn(std::move(task));
    loop.run_for(Nanos(500'000'000));
  }
  Task<void> read_together(uint64_t block, int readers) {
    Scope all;
    for (int i = 0; i < readers; ++i) all.spawn(read_one(block));
    co_await all.close();
  }
  Task<void> read_one(uint64_t block) {
    ByteVector out(kBlockBytes);
    const Result<void> done = co_await volume->read(block, out);
    EXPECT_TRUE(done);
    EXPECT_TRUE(std::ranges::equal(out, Bytes(image).subspan(block * kBlockBytes, kBlockBytes)));
  }
  Task<void> write_again(uint64_t block) {
    const Bytes bytes = Bytes(image).subspan(block * kBlockBytes, kBlockBytes);
    EXPECT_TRUE(co_await volume->write(block, bytes));
  }
  static Task<void> read_until_closed(Volume& volume, MutableBytes out,
                                      std::optional<Result<void>>& done) {
    done.emplace(co_await volume.read(0, out));
  }
  [[nodiscard]] uint64_t fetches() const { return store.data_fetches(); }
  /// Since the last call, or since the volume was opened.
  uint64_t new_fetches() {
    loop.run_for(Nanos(500'000'000));
    return fetches() - std::exchange(counted, fetches());
  }

  SimLoop loop{SimLoop::Options{}};
  MemoryDisk disk;
  MemoryFolder folder{disk};
  SeededRng rng{1};
  std::shared_ptr<objects::MemoryContainer> bucket = std::make_shared<objects::MemoryContainer>();
  ShapedStore store{bucket};
  VolumeOptions options;
  ByteVector image;
  std::unique_ptr<Volume> volume;
  uint64_t counted = 0;
};

TEST_F(VolumeReads, AColdRandomReadCostsOneGetOfOneFrame) {
  open_full();
  SeededRng choices(4);
  for (uint64_t i = 0; i < 40; ++i) {
    const uint64_t bytes = volume->state().fetched.bytes;
    // Each in a frame of its own, in no order.
    read((i * 97 % (kBlocks / kFrameBlocks)) * kFrameBlocks + choices.below(kFrameBlocks));
    EXPECT_EQ(new_fetches(), 1U);
    const uint64_t fetched = volume->state().fetched.bytes - bytes;
    EXPECT_GE(fetched, kFrameBytes);
    EXPECT_LT(fetched, kFrameBytes + 64);
  }
  EXPECT_EQ(volume->state().fetched.ahead, 0U);
}

TEST_F(VolumeReads, TheFirstReadOfAnObjectOfTheCheckpointCostsOneGetMore) {
  open_full();
  reopen();
  ASSERT_GT(volume->state().checkpoint, 0U);
  const uint64_t objects = volume->state().objects;
  for (uint64_t i = 0; i < 40; ++i) {
    read((i * 97 % (kBlocks / kFrameBlocks)) * kFrameBlocks);
    EXPECT_LE(new_fetches(), 2U);
  }
  EXPECT_EQ(fetches(), counted);
  EXPECT_EQ(volume->state().fetched.frames, 40U);
  EXPECT_EQ(volume->state().fetched.gets, 40U + objects);
}

TEST_F(VolumeReads, WaitsWhileTheStoreIsAway) {
  open_full();
  store.go_away(true);
  ByteVector out(kBlockBytes);
  std::optional<Result<void>> done;
  loop.spawn(read_until_closed(*volume, out, done));
  loop.run_for(std::chrono::hours(2));
  EXPECT_FALSE(done.has_value());
  store.go_away(false);
  loop.run_for(std::chrono::seconds(3));
  ASSERT_TRUE(done.has_value());
  EXPECT_TRUE(*done);
  EXPECT_TRUE(std::ranges::equal(out, Bytes(image).first(kBlockBytes)));
}

TEST_F(VolumeReads, WaitsForAStoreThatIsAwayNoLongerThanItMay) {
  options.timeout = std::chrono::seconds(30);
  open_full();
  store.go_away(true);
  const Nanos begin = loop.now();
  const Result<void> done = try_read(0);
  ASSERT_FALSE(done);
  EXPECT_TRUE(done.error().is(Errc::kAgain)) << done.error().message();
  EXPECT_GE(loop.now() - begin, options.timeout);
  EXPECT_LT(loop.now() - begin, 3 * options.timeout);
  store.go_away(false);
}

TEST_F(VolumeReads, AnObjectThatCannotBeReadIsNotWaitedForWhileOthersCan) {
  open_full();
  const auto fail = [](const std::string& name, Result<objects::Fetched>& fetched) {
    fetched = Error(Errc::kIo, name + ": a bad sector");
  };
  store.shape(fail);
  const Result<void> done = try_read(0);
  ASSERT_FALSE(done);
  EXPECT_TRUE(done.error().is(Errc::kIo));
}

TEST_F(VolumeReads, AnObjectThatTheStoreKnowsToBeDamagedIsAskedForOnceMore) {
  open_full();
  read(0);
  static_cast<void>(new_fetches());
  store.shape([](const std::string& name, Result<objects::Fetched>& fetched) {
    fetched = Error(Errc::kDamaged, name + ": the object is damaged");
  });
  const Nanos begin = loop.now();
  const Result<void> done = try_read(1000);
  ASSERT_FALSE(done);
  EXPECT_TRUE(done.error().is(Errc::kIo));
  EXPECT_THAT(done.error().message(), HasSubstr("there is no proven data"));
  EXPECT_LT(loop.now() - begin, std::chrono::seconds(1));
  EXPECT_LE(new_fetches(), 2U);
}

TEST_F(VolumeReads, ThePiecesOfAFrameAreFetchedOnce) {
  open_full();
  for (uint64_t block = 47; block >= 32; --block) read(block);
  EXPECT_EQ(new_fetches(), 1U);
}

TEST_F(VolumeReads, NeighboursAreFetchedTogether) {
  open_full();
  read(128, 256);
  EXPECT_LE(new_fetches(), 2U);
  EXPECT_EQ(volume->state().fetched.frames, 16U);
}

TEST_F(VolumeReads, ALargeReadIsFetchedInParallel) {
  open_full();
  const Nanos begin = loop.now();
  read(1024, 2048);
  EXPECT_LT(loop.now() - begin, Nanos(60'000'000));
  EXPECT_LE(new_fetches(), 12U);
}

TEST_F(VolumeReads, SequentialReadsAreFetchedAhead) {
  open_full();
  for (uint64_t block = 0; block < 2048; block += 4) read(block, 4);
  EXPECT_LE(new_fetches(), 24U);
  const FetchStats fetched = volume->state().fetched;
  EXPECT_GT(fetched.ahead, 100U);
  // What is fetched twice is a waste.
  EXPECT_LE(fetched.ahead + fetched.frames, 2048 / kFrameBlocks + 64);
}

TEST_F(VolumeReads, SeveralStreamsAreFetchedAhead) {
  open_full();
  for (uint64_t block = 0; block < 512; block += 8) {
    for (uint64_t stream = 0; stream < 4; ++stream) read(stream * 1024 + block, 8);
  }
  EXPECT_LE(new_fetches(), 60U);
}

TEST_F(VolumeReads, WhatManyWantAtOnceIsFetchedOnce) {
  open_full();
  run(read_together(777, 16));
  EXPECT_EQ(new_fetches(), 1U);
  EXPECT_EQ(volume->state().fetched.shared, 15U);
}

TEST_F(VolumeReads, FragmentsOfOneObjectAreMerged) {
  open();
  for (uint64_t at = 0; at < 512; at += 64) write(at, 64);
  ASSERT_TRUE(*loop.run(volume->publish_all()));
  // Every other block again, in a later object, backwards.
  for (uint64_t i = 64; i > 0; --i) write(i * 2 - 2, 1);
  reopen_without_checkpoint();
  read(0, 128);
  EXPECT_LE(new_fetches(), 2U);
}

TEST_F(VolumeReads, ReadsTheJournalAndTheStoreInOneRequest) {
  open_full();
  SeededRng(8).fill(MutableBytes(image).subspan(100 * kBlockBytes, 4 * kBlockBytes));
  write(100, 4);
  read(90, 30);
  EXPECT_EQ(new_fetches(), 1U);
  ASSERT_TRUE(*loop.run(volume->clear({104, 3}, ExtentKind::kZero)));
  std::fill_n(image.begin() + 104 * kBlockBytes, 3 * kBlockBytes, std::byte{});
  read(90, 30);
}

// --- the cache

TEST_F(VolumeReads, ACacheThatIsKeptSparesTheStore) {
  options.cache_bytes = 8U << 20;
  options.keeps_cache = true;
  open_full();
  for (uint64_t i = 0; i < 20; ++i) read(i * 160 + 3);
  EXPECT_EQ(new_fetches(), 20U);
  reopen();
  store.shape([](const std::string&, Result<objects::Fetched>& fetched) {
    fetched = Error(Errc::kTimedOut, "away");
  });
  for (uint64_t i = 0; i < 20; ++i) read(i * 160 + 3);
  EXPECT_EQ(volume->state().cache.hits, 20U);
  // With it came what is next to it in the volume, and in its frame.
  read(0, 16);
  EXPECT_FALSE(try_read(16));
}

TEST_F(VolumeReads, ACacheThatIsNotKeptIsEmpty) {
  options.cache_bytes = 8U << 20;
  open_full();
  read(3);
  EXPECT_GT(volume->state().cache.blocks, 0U);
  reopen();
  EXPECT_EQ(volume->state().cache.blocks, 0U);
  read(3);
  EXPECT_EQ(new_fetches(), 2U);  // the directory and the frame
}

TEST_F(VolumeReads, TheCacheTakesOnlyWhatTheVolumeStillHas) {
  options.cache_bytes = 8U << 20;
  open();
  write(0, 16);
  ASSERT_TRUE(*loop.run(volume->publish_all()));
  SeededRng(8).fill(MutableBytes(image).subspan(4 * kBlockBytes, 6 * kBlockBytes));
  write(4, 6);
  reopen();
  read(2);
  loop.run_for(Nanos(1'000'000));
  EXPECT_EQ(volume->state().cache.blocks, 10U);
  read(0, 16);
}

TEST_F(VolumeReads, TheCacheKeepsToItsBudget) {
  options.cache_bytes = 100 * kBlockBytes;
  open_full();
  for (uint64_t round = 0; round < 3; ++round) {
    for (uint64_t i = 0; i < 200; ++i) read(i * 20 % kBlocks, 1 + i % 5);
  }
  EXPECT_EQ(volume->state().cache.blocks, 100U);
  EXPECT_LE(disk.bytes("cache.blocks").size(), 100 * kBlockBytes);
}

TEST_F(VolumeReads, AFullDiskCostsOnlyCache) {
  options.cache_bytes = 8U << 20;
  open_full();
  disk.space = disk.used() + 10 * kBlockBytes;
  for (uint64_t i = 0; i < 40; ++i) read(i * 100);
  EXPECT_LE(volume->state().cache.blocks, 10U);
  disk.reads_fail = "cache";
  disk.writes_fail = "cache";
  for (uint64_t i = 0; i < 40; ++i) read(i * 100);
}

TEST_F(VolumeReads, ADamagedCacheIsReadFromTheStore) {
  options.cache_bytes = 8U << 20;
  options.keeps_cache = true;
  open_full();
  read(0, 64);
  close();
  for (std::byte& byte : disk.bytes("cache.blocks")) byte ^= std::byte{1};
  open();
  EXPECT_EQ(volume->state().cache.blocks, 64U);
  read(0, 64);
  EXPECT_EQ(volume->state().cache.damaged, 64U);
}

TEST_F(VolumeReads, WhatIsHereComesWithoutWaiting) {
  options.cache_bytes = 8U << 20;
  open_full();
  EXPECT_FALSE(read_at_once(5)) << "it is in the store";
  read(5);
  loop.run_for(Nanos(1'000'000));
  EXPECT_TRUE(read_at_once(5));
  EXPECT_TRUE(read_at_once(0, 16)) << "with it came its neighbours";
  EXPECT_FALSE(read_at_once(8, 16));
  EXPECT_EQ(new_fetches(), 1U);
  SeededRng(8).fill(MutableBytes(image).subspan(6 * kBlockBytes, kBlockBytes));
  write(6, 1);
  EXPECT_FALSE(read_at_once(6)) << "it is in the journal";
  EXPECT_FALSE(read_at_once(5, 2));
  EXPECT_TRUE(read_at_once(5));
  ASSERT_TRUE(*loop.run(volume->publish_all()));
  EXPECT_FALSE(read_at_once(6)) << "what the cache has is another one";
  EXPECT_FALSE(read_at_once(5, 2)) << "it is in two objects";
  ASSERT_TRUE(*loop.run(volume->clear({8, 4}, ExtentKind::kZero)));
  ASSERT_TRUE(*loop.run(volume->publish_all()));
  std::fill_n(image.begin() + 8 * kBlockBytes, 4 * kBlockBytes, std::byte{});
  EXPECT_TRUE(read_at_once(8, 4)) << "it is nowhere";
  EXPECT_FALSE(read_at_once(0, limits::kCacheTryBlocks + 1));
  volume->abandon();
  EXPECT_FALSE(read_at_once(5));
  static_cast<void>(*loop.run(volume->close({})));
  loop.run_until_idle();
  volume.reset();
}

TEST_F(VolumeReads, AStreamOfWhatIsHereIsFollowed) {
  options.cache_bytes = 16U << 20;
  open_full();
  read(0, 64);
  loop.run_for(Nanos(1'000'000));
  ASSERT_EQ(volume->state().fetched.ahead, 0U);
  uint64_t block = 64 - 16;
  while (block > 0 && read_at_once(64 - block, 4)) block -= 4;
  ASSERT_GT(block, 0U) << "it is time to fetch ahead";
  read(64 - block, 4);
  loop.run_for(Nanos(100'000'000));
  EXPECT_GT(volume->state().fetched.ahead, 0U);
}

TEST_F(VolumeReads, ThereIsNoCacheForReadOnly) {
  options.cache_bytes = 8U << 20;
  open_full();
  close();
  options.read_only = true;
  open();
  read(5);
  EXPECT_FALSE(volume->state().cache.on);
}

// --- failures

TEST_F(VolumeReads, WhatCameDamagedOnceIsFetchedOnceMore) {
  open_full();
  int left = 1;
  store.shape([&left](const std::string&, Result<objects::Fetched>& fetched) {
    if (left-- > 0) fetched->data[100] ^= std::byte{1};
  });
  read(40);
  // The directory, too, is read anew.
  EXPECT_EQ(new_fetches(), 3U);
}

TEST_F(VolumeReads, WhatCameTooShortOnceIsFetchedOnceMore) {
  open_full();
  int left = 1;
  store.shape([&left](const std::string&, Result<objects::Fetched>& fetched) {
    if (left-- > 0) fetched->data.resize(100);
  });
  read(40);
  EXPECT_EQ(new_fetches(), 3U);
}

TEST_F(VolumeReads, ADamagedFrameIsAnErrorForItsBlocksOnly) {
  options.object_bytes = uint64_t{kBlocks} * kBlockBytes;
  options.journal_bytes = 256U << 20;
  open_full();
  ASSERT_EQ(bucket->objects.count("vol/d/0000000000000002/0000000000000001"), 1U);
  ByteVector& object = bucket->objects["vol/d/0000000000000002/0000000000000001"].data;
  object[10 * kFrameBytes + 1000] ^= std::byte{1};
  const Result<void> failed = try_read(160);
  ASSERT_FALSE(failed);
  EXPECT_TRUE(failed.error().is(Errc::kIo)) << failed.error().message();
  EXPECT_THAT(failed.error().message(), HasSubstr("blocks 160 to 160"));
  read(0, 128);
  read(256, 64);
}

TEST_F(VolumeReads, AMissingObjectIsAnError) {
  open_full();
  store.shape([](const std::string& name, Result<objects::Fetched>& fetched) {
    fetched = Error(Errc::kNotFound, name);
  });
  const Result<void> failed = try_read(160);
  ASSERT_FALSE(failed);
  EXPECT_TRUE(failed.error().is(Errc::kIo)) << failed.error().message();
  store.shape({});
  read(160);
}

TEST_F(VolumeReads, AMovedBlockIsFoundWhereItIsNow) {
  open_full();
  bool moved = false;
  store.shape([this, &moved](const std::string& name, Result<objects::Fetched>& fetched) {
    if (std::exchange(moved, true)) return;
    fetched = Error(Errc::kNotFound, name);
    // Meanwhile the block is written anew; the map says so when it is asked again.
    SeededRng(8).fill(MutableBytes(image).subspan(160 * kBlockBytes, kBlockBytes));
    loop.spawn(write_again(160));
  });
  ByteVector out(kBlockBytes);
  ASSERT_TRUE(*loop.run(volume->read(160, out)));
  loop.run_for(Nanos(1'000'000));
  read(160);
  EXPECT_TRUE(moved);
}

TEST_F(VolumeReads, AStoreThatIsAwayIsNotAskedTwice) {
  open_full();
  store.shape([](const std::string&, Result<objects::Fetched>& fetched) {
    fetched = Error(Errc::kTimedOut, "away");
  });
  const Result<void> failed = try_read(160);
  ASSERT_FALSE(failed);
  EXPECT_TRUE(failed.error().is(Errc::kTimedOut));
  EXPECT_EQ(new_fetches(), 1U);
}

TEST_F(VolumeReads, EndWithTheVolume) {
  open_full();
  ByteVector out(kBlockBytes);
  std::optional<Result<void>> done;
  loop.spawn(read_until_closed(*volume, out, done));
  loop.run_for(Nanos(1'000'000));
  volume->abandon();
  static_cast<void>(*loop.run(volume->close({})));
  loop.run_until_idle();
  ASSERT_TRUE(done.has_value());
  EXPECT_TRUE(!*done && done->error().is(Errc::kShutdown));
  volume.reset();
}

}  // namespace
}  // namespace usbd::objstore

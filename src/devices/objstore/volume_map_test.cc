// SPDX-License-Identifier: Apache-2.0
//
// A volume whose map does not fit into the memory it may take: scattered writes, reads, trims,
// checkpoints, garbage collection and openings, against a plain array. And with a local file that
// fails: what was written is there after the next opening, whatever happened.

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "base/endian.h"
#include "devices/objstore/memory_folder_testing.h"
#include "devices/objstore/volume.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

constexpr uint64_t kLeaves = 48;
constexpr uint64_t kBlocks = kLeaves * kLeafBlocks - 5;

class VolumeWithALargeMap : public ::testing::Test {
 protected:
  VolumeWithALargeMap() : model_(kBlocks) {
    options_.name = "vol";
    options_.size = kBlocks * kBlockBytes;
    options_.cipher = crypto::CipherMode::kIdentity;
    options_.object_bytes = 512U << 10;
    options_.journal_bytes = 64U << 20;
    options_.map_bytes = 16U << 10;
    options_.space.replay_objects = 8;
    options_.space.delete_after = Nanos(1'000'000'000);
    options_.space.clean.round_bytes = 256U << 10;
    options_.space.clean.waste_min = 64U << 10;
  }
  ~VolumeWithALargeMap() override {
    if (volume_) close();
  }

  Result<void> try_open() {
    VolumeParts parts{.store = store_, .folder = &folder_, .rng = rng_};
    Result<std::unique_ptr<Volume>> opened = *loop_.run(Volume::open(std::move(parts), options_));
    if (!opened) return opened.error();
    volume_ = *std::move(opened);
    return {};
  }
  void open() {
    const Result<void> opened = try_open();
    ASSERT_TRUE(opened) << opened.error().message();
  }
  Result<void> try_close() {
    Result<void> closed = *loop_.run(volume_->close({}));
    loop_.run_until_idle();
    volume_.reset();
    return closed;
  }
  void close() {
    const Result<void> closed = try_close();
    ASSERT_TRUE(closed) << closed.error().message();
  }

  static std::vector<std::byte> contents(uint64_t block, uint64_t number) {
    std::vector<std::byte> bytes(kBlockBytes);
    if (number == 0) return bytes;
    SeededRng(block * 1'000'003 + number).fill(bytes);
    return bytes;
  }
  void write(uint64_t block) {
    const uint64_t number = ++writes_;
    const std::vector<std::byte> bytes = contents(block, number);
    ASSERT_TRUE(*loop_.run(volume_->write(block, bytes)));
    model_[block] = number;
  }
  void clear(BlockRange range) {
    ASSERT_TRUE(*loop_.run(volume_->clear(range, ExtentKind::kTrim)));
    std::fill_n(model_.begin() + static_cast<ptrdiff_t>(range.first), range.count, 0);
  }
  void read(uint64_t block) {
    std::vector<std::byte> bytes(kBlockBytes, std::byte{0xEE});
    const Result<void> done = *loop_.run(volume_->read(block, bytes));
    ASSERT_TRUE(done) << done.error().message();
    ASSERT_EQ(bytes, contents(block, model_[block])) << "block " << block;
  }
  void read_many() {
    for (uint64_t block = 0; block < kBlocks; block += 37) ASSERT_NO_FATAL_FAILURE(read(block));
  }
  void expect_kinds() {
    for (uint64_t first = 0; first < kBlocks; first += 3000) {
      const BlockRange range(first, std::min<uint64_t>(3000, kBlocks - first));
      const auto runs = *loop_.run(volume_->data_runs(range));
      ASSERT_TRUE(runs) << runs.error().message();
      uint64_t at = first;
      for (const auto& [blocks, data] : *runs) {
        ASSERT_EQ(blocks.first, at);
        for (; at < blocks.end(); ++at) ASSERT_EQ(model_[at] != 0, data) << at;
      }
      ASSERT_EQ(at, range.end());
    }
  }
  void write_scattered(int writes) {
    for (int i = 0; i < writes; ++i) {
      ASSERT_NO_FATAL_FAILURE(write(rng_.below(kBlocks)));
      if (i % 16 > 0) continue;
      ASSERT_NO_FATAL_FAILURE(read(rng_.below(kBlocks)));
    }
    ASSERT_TRUE(*loop_.run(volume_->publish_all()));
  }
  MapUsage usage() { return volume_->state().map; }

  SimLoop loop_{{.seed = 2, .steps_max = 500'000'000}};
  MemoryDisk disk_;
  MemoryFolder folder_{disk_};
  SeededRng rng_{1};
  objects::MemoryStore store_{std::make_shared<objects::MemoryContainer>()};
  VolumeOptions options_;
  std::unique_ptr<Volume> volume_;
  /// The write that each block is of; 0: none.
  std::vector<uint64_t> model_;
  uint64_t writes_ = 0;
};

TEST_F(VolumeWithALargeMap, IsWhatWasWrittenOverCheckpointsCleaningAndOpenings) {
  uint64_t cleaned = 0;
  uint64_t checkpoints = 0;
  for (int life = 0; life < 3; ++life) {
    ASSERT_NO_FATAL_FAILURE(open());
    EXPECT_LE(usage().memory, options_.map_bytes + 12'000);
    for (int i = 0; i < 4; ++i) {
      ASSERT_NO_FATAL_FAILURE(write_scattered(1500));
      const uint64_t first = rng_.below(kBlocks - 5000);
      ASSERT_NO_FATAL_FAILURE(clear({first, rng_.between(1, 5000)}));
    }
    ASSERT_NO_FATAL_FAILURE(read_many());
    ASSERT_NO_FATAL_FAILURE(expect_kinds());
    const VolumeState state = volume_->state();
    cleaned += state.objects_cleaned;
    checkpoints += state.checkpoints_made;
    EXPECT_GT(state.map.leaves_away, kLeaves / 2);
    EXPECT_GT(state.map.read, 1000U);
    EXPECT_EQ(state.map.damaged + state.map.write_errors, 0U);
    ASSERT_NO_FATAL_FAILURE(close());
  }
  EXPECT_GT(checkpoints, 5U);
  EXPECT_GT(cleaned, 5U);
  options_.read_only = true;
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_NO_FATAL_FAILURE(read_many());
  EXPECT_GT(usage().leaves_away, 0U);
  ASSERT_NO_FATAL_FAILURE(close());
  for (const auto& [name, bytes] : disk_.files) EXPECT_FALSE(name.starts_with("map-")) << name;
}

TEST_F(VolumeWithALargeMap, GoesOnInMoreMemoryWhileItsFileTakesNothing) {
  disk_.writes_fail = "map-";
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_NO_FATAL_FAILURE(write_scattered(3000));
  EXPECT_TRUE(usage().over_budget);
  EXPECT_GE(usage().write_errors, 1U);
  ASSERT_NO_FATAL_FAILURE(read_many());
  ASSERT_NO_FATAL_FAILURE(close());
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_NO_FATAL_FAILURE(read_many());
}

TEST_F(VolumeWithALargeMap, ReadsWhatItsFileHasLostFromTheCheckpoint) {
  disk_.removes_fail = "map-";  // so that the test gets at the file
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_NO_FATAL_FAILURE(write_scattered(3000));
  ASSERT_NO_FATAL_FAILURE(close());
  ASSERT_NO_FATAL_FAILURE(open());
  EXPECT_GT(usage().leaves_away, kLeaves / 2);
  for (auto& [name, bytes] : disk_.files) {
    if (name.starts_with("map-")) std::ranges::fill(*bytes, std::byte{});
  }
  ASSERT_NO_FATAL_FAILURE(read_many());
  EXPECT_GT(usage().recovered, kLeaves / 2);
  EXPECT_EQ(usage().recovered, usage().damaged);
}

TEST_F(VolumeWithALargeMap, StopsWhenItsMapIsLostAndIsWholeWhenItIsOpenedAgain) {
  disk_.removes_fail = "map-";
  options_.space.replay_objects = UINT64_MAX;  // no checkpoint
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_NO_FATAL_FAILURE(write_scattered(3000));
  disk_.reads_fail = "map-";
  uint64_t refused = 0;
  for (uint64_t block = 0; block < kBlocks; block += 37) {
    std::vector<std::byte> bytes(kBlockBytes);
    const Result<void> done = *loop_.run(volume_->read(block, bytes));
    if (done) {
      EXPECT_EQ(bytes, contents(block, model_[block]));
      continue;
    }
    EXPECT_TRUE(done.error().is(Errc::kIo)) << done.error().message();
    ++refused;
  }
  EXPECT_GT(refused, 100U);
  // These are flushed to the journal, and published, and then the map cannot follow.
  for (uint64_t block = 1; block < kBlocks; block += kLeafBlocks) {
    ASSERT_NO_FATAL_FAILURE(write(block));
  }
  ASSERT_TRUE(*loop_.run(volume_->flush()));
  EXPECT_FALSE(*loop_.run(volume_->publish_all()));
  EXPECT_FALSE(try_close());
  disk_.reads_fail = "-";
  ASSERT_NO_FATAL_FAILURE(open());
  for (const auto& [name, bytes] : disk_.files) EXPECT_FALSE(name.starts_with("map-0")) << name;
  ASSERT_NO_FATAL_FAILURE(read_many());
  for (uint64_t block = 1; block < kBlocks; block += kLeafBlocks) {
    ASSERT_NO_FATAL_FAILURE(read(block));
  }
}

}  // namespace
}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// A map of many leaves in the memory of a few, against a plain array: with a file that answers at
// once and one that is slow, with many tasks at a time, with a file that is full, fails, or does
// not give back what it was given.

#include "devices/objstore/map_pager.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "async/scope.h"
#include "async/sim_loop.h"
#include "base/random.h"
#include "base/sanitized.h"
#include "devices/objstore/checkpoint.h"
#include "devices/objstore/memory_folder_testing.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

constexpr uint64_t kLeafBytes = 8192;
constexpr uint64_t kLeaves = 64;
/// Of an object, the first blocks of what is mapped.
constexpr uint64_t kPlaces = limits::kObjectBlocksMax - 4 * kLeafBlocks;
constexpr uint64_t kBlocks = kLeaves * kLeafBlocks - 100;
/// Of a leaf in memory, at most: an array, or a list that has room for a quarter more.
constexpr uint64_t kLeafMemory = kLeafBytes * 5 / 4 + 64;

void ignore(uint32_t /*slot*/, uint32_t /*blocks*/) {}

/// A folder whose files take their time.
class SlowFolder final : public Folder {
 public:
  SlowFolder(MemoryDisk& disk, Loop& loop) : inner_(disk), loop_(loop) {}

  [[nodiscard]] std::string name() const override { return "slow"; }
  Task<Result<std::unique_ptr<BlockFile>>> open(std::string name, OpenHow how) override {
    USBD_CO_TRY(std::unique_ptr<BlockFile> file, co_await inner_.open(std::move(name), how));
    co_return std::unique_ptr<BlockFile>(std::make_unique<File>(std::move(file), loop_));
  }
  Task<Result<void>> rename(std::string from, std::string to) override {
    return inner_.rename(std::move(from), std::move(to));
  }
  Task<Result<void>> remove(std::string name) override { return inner_.remove(std::move(name)); }
  Task<Result<std::vector<std::string>>> list() override { return inner_.list(); }

 private:
  class File final : public BlockFile {
   public:
    File(std::unique_ptr<BlockFile> inner, Loop& loop) : inner_(std::move(inner)), loop_(loop) {}

    [[nodiscard]] std::string name() const override { return inner_->name(); }
    [[nodiscard]] uint32_t block_size() const override { return inner_->block_size(); }
    [[nodiscard]] Result<uint64_t> size() const override { return inner_->size(); }
    Task<Result<void>> read(uint64_t offset, MutableBytes data) override {
      co_await wait();
      const Result<void> done = co_await inner_->read(offset, data);
      co_await wait();
      co_return done;
    }
    Task<Result<void>> write(uint64_t offset, Bytes data, WriteFlags flags) override {
      const std::vector<std::byte> bytes(data.begin(), data.end());
      const size_t half = bytes.size() / 2;
      co_await wait();
      USBD_CO_TRY_VOID(co_await inner_->write(offset, Bytes(bytes).first(half), flags));
      co_await wait();
      USBD_CO_TRY_VOID(co_await inner_->write(offset + half, Bytes(bytes).subspan(half), flags));
      co_await wait();
      co_return Result<void>();
    }
    Task<Result<void>> datasync() override { return inner_->datasync(); }
    Task<Result<void>> allocate(ByteRange range) override { return inner_->allocate(range); }
    Task<Result<void>> punch(ByteRange range) override { return inner_->punch(range); }
    Task<Result<void>> zero(ByteRange range) override { return inner_->zero(range); }
    Task<Result<void>> truncate(uint64_t size) override { return inner_->truncate(size); }
    Task<Result<uint64_t>> next_data(uint64_t offset) override { return inner_->next_data(offset); }
    Task<Result<uint64_t>> next_hole(uint64_t offset) override { return inner_->next_hole(offset); }
    Task<Result<void>> close() override { return inner_->close(); }

   private:
    Task<void> wait() { co_await loop_.sleep_for(Nanos(static_cast<int64_t>(rng_.below(40'000)))); }

    std::unique_ptr<BlockFile> inner_;
    Loop& loop_;
    SeededRng rng_{5};
  };

  MemoryFolder inner_;
  Loop& loop_;
};

class MapPagerTest : public ::testing::Test {
 protected:
  MapPagerTest() : model_(kBlocks) {
    // All entries are there, so that what is counted from here on is leaves.
    for (uint64_t leaf = 0; leaf < kLeaves; leaf += 256) {
      map_->set({leaf * kLeafBlocks, 1}, {1, 0}, ignore);
      map_->set({leaf * kLeafBlocks, 1}, {}, ignore);
    }
    overhead_ = map_->memory();
  }
  ~MapPagerTest() override {
    if (pager_) run(pager_->close());
  }

  /// Room for so many leaves, which are all arrays.
  void start(uint64_t leaves, Folder* folder) {
    options_.memory_max = overhead_ + leaves * (kLeafBytes + 56);
    pager_ = std::make_shared<MapPager>(*map_, folder, rng_, options_);
  }
  void run(Task<void> task) { ASSERT_TRUE(loop_.run(completed(std::move(task)))); }
  static Task<bool> completed(Task<void> task) {
    co_await std::move(task);
    co_return true;
  }
  Result<MapHold> hold(BlockRange range) {
    std::optional<Result<MapHold>> held = loop_.run(pager_->hold(range));
    EXPECT_TRUE(held.has_value());
    return *std::move(held);
  }
  static Task<void> sleep(Loop& loop, Nanos time) { co_await loop.sleep_for(time); }
  void pass_retry_time() { run(sleep(loop_, limits::kMapWriteRetry)); }
  void make_room() { run(pager_->make_room()); }

  static Location after(Location location, uint64_t blocks) {
    if (location.slot == 0) return {};
    return {location.slot, static_cast<uint32_t>(location.position + blocks)};
  }
  void set(BlockRange range, Location to) {
    map_->set(range, to, ignore);
    for (uint64_t i = 0; i < range.count; ++i) model_[range.first + i] = after(to, i);
  }
  void move(BlockRange range, Location from, Location to) {
    uint64_t expected = 0;
    for (uint64_t i = 0; i < range.count; ++i) {
      Location& at = model_[range.first + i];
      if (at != after(from, i)) continue;
      at = after(to, i);
      ++expected;
    }
    if (map_->move(range, from, to, ignore) != expected) ++wrong_;
  }
  void find(BlockRange range) {
    uint64_t next = range.first;
    for (const MappedRun& found : map_->find(range)) {
      if (found.blocks.first != next) ++wrong_;
      for (uint64_t i = 0; i < found.blocks.count; ++i) {
        if (model_[next + i] != after(found.location, i)) ++wrong_;
      }
      next += found.blocks.count;
    }
    if (next != range.end()) ++wrong_;
  }
  /// What is done where the leaves are here.
  void change(BlockRange range) {
    const uint64_t dice = rng_.below(10);
    const Location to{static_cast<uint32_t>(rng_.below(1000)),
                      static_cast<uint32_t>(rng_.below(kPlaces))};
    const Location from = model_[range.first];
    if (dice < 4) {
      find(range);
    } else if (dice < 6 && from.slot != 0 && to.slot != 0) {
      move(range, from, to);
    } else {
      set(range, to);
    }
  }
  BlockRange some_range() {
    if (rng_.one_in(16)) near_ = rng_.below(kBlocks);
    const uint64_t first =
        rng_.one_in(8) ? near_ : rng_.between(near_, std::min(near_ + 2000, kBlocks - 1));
    const uint64_t most = rng_.one_in(500) ? 3 * kLeafBlocks : 4;
    return {first, rng_.between(1, std::min(most, kBlocks - first))};
  }
  /// Random work of one task, checked at each step.
  Task<void> work(uint64_t steps, unsigned tasks) {
    for (uint64_t i = 0; i < steps; ++i) {
      const BlockRange range = some_range();
      const Result<MapHold> held = co_await pager_->hold(range);
      if (!held) ++failed_;
      if (!held) continue;
      if (!map_->here(range)) ++wrong_;
      change(range);
      // Held by this task and by each of the others: at most four leaves, and one that is coming.
      const uint64_t most = options_.memory_max + uint64_t{tasks} * 5 * kLeafMemory;
      highest_ = std::max(highest_, map_->memory());
      if (map_->memory() > most) ++wrong_;
      co_await pager_->make_room();
    }
  }
  Task<void> work_at_once(uint64_t steps, unsigned tasks) {
    Scope scope;
    for (unsigned i = 0; i < tasks; ++i) scope.spawn(work(steps, tasks));
    co_await scope.close();
  }
  /// Every block differs from the one before.
  void fragment_all() {
    for (uint64_t leaf = 0; leaf < kLeaves; ++leaf) fragment(leaf);
  }
  void fragment(uint64_t leaf) {
    const uint64_t end = std::min<uint64_t>((leaf + 1) * kLeafBlocks, kBlocks);
    const MapHold held = *hold({leaf * kLeafBlocks, 1});
    for (uint64_t block = leaf * kLeafBlocks; block < end; ++block) {
      set({block, 1},
          {static_cast<uint32_t>(1 + block % 7), static_cast<uint32_t>(block * 3 % kPlaces)});
    }
    make_room();
  }
  void expect_as_model() {
    for (uint64_t at = 0; at < kBlocks; at += kLeafBlocks) {
      const BlockRange range(at, std::min<uint64_t>(kLeafBlocks, kBlocks - at));
      const Result<MapHold> held = hold(range);
      ASSERT_TRUE(held) << held.error().message();
      find(range);
    }
    EXPECT_EQ(wrong_, 0U);
  }
  std::vector<std::byte>& file() {
    for (auto& [name, bytes] : disk_.files) {
      if (name.starts_with("map-")) return *bytes;
    }
    ADD_FAILURE() << "there is no file";
    return *disk_.files.begin()->second;
  }
  uint64_t first_away() {
    for (uint64_t leaf = 0; leaf < kLeaves; ++leaf) {
      if (map_->is_away(leaf)) return leaf;
    }
    ADD_FAILURE() << "all leaves are here";
    return 0;
  }

  SimLoop loop_{{.seed = 3, .steps_max = 500'000'000}};
  SeededRng rng_{7};
  MemoryDisk disk_;
  MemoryFolder folder_{disk_};
  SlowFolder slow_{disk_, loop_};
  std::unique_ptr<BlockMap> map_ = std::make_unique<BlockMap>(kBlocks);
  MapPager::Options options_;
  std::shared_ptr<MapPager> pager_;
  std::vector<Location> model_;
  uint64_t overhead_ = 0;
  /// Where the work is at the moment.
  uint64_t near_ = 0;
  uint64_t wrong_ = 0;
  uint64_t failed_ = 0;
  uint64_t highest_ = 0;
};

TEST_F(MapPagerTest, KeepsAMapOfManyLeavesInTheMemoryOfAFew) {
  start(6, &folder_);
  fragment_all();
  run(work(sanitized() ? 100'000 : 1'000'000, 1));
  EXPECT_EQ(wrong_ + failed_, 0U);
  expect_as_model();
  const MapUsage usage = pager_->usage();
  EXPECT_GE(usage.leaves_away, kLeaves - 10);
  EXPECT_GT(usage.read, sanitized() ? 5'000U : 50'000U);
  EXPECT_EQ(usage.damaged + usage.write_errors, 0U);
  RecordProperty("highest", static_cast<int>(highest_ - options_.memory_max));
}

TEST_F(MapPagerTest, LetsManyAskAtOnceWhileTheFileIsSlow) {
  start(4, &slow_);
  fragment_all();
  run(work_at_once(3000, 8));
  EXPECT_EQ(wrong_ + failed_, 0U);
  make_room();
  EXPECT_FALSE(pager_->usage().over_budget);
  expect_as_model();
}

TEST_F(MapPagerTest, MakesNoFileWhileThereIsRoom) {
  start(2 * kLeaves, &folder_);
  disk_.opens_fail = "map-";
  fragment_all();
  EXPECT_EQ(pager_->usage().write_errors, 0U);
  EXPECT_EQ(map_->leaves_away(), 0U);
}

TEST_F(MapPagerTest, LeavesNoNameInTheFolder) {
  start(6, &folder_);
  fragment_all();
  EXPECT_GT(map_->leaves_away(), 0U);
  EXPECT_TRUE(disk_.files.empty());
}

TEST_F(MapPagerTest, RemovesWhatADeadProcessHasLeft) {
  for (const char* name : {"map-0000000000000001.spill", "map-x.spill", "map-1.ring", "cache"}) {
    disk_.files[name] = std::make_shared<std::vector<std::byte>>(10);
  }
  run(MapPager::remove_left_over(folder_));
  EXPECT_EQ(disk_.files.size(), 2U);
  EXPECT_TRUE(disk_.has("map-1.ring") && disk_.has("cache"));
}

TEST_F(MapPagerTest, WritesALeafOnlyAfterItChanged) {
  start(6, &folder_);
  fragment_all();
  expect_as_model();
  make_room();
  const uint64_t written = pager_->usage().written;
  expect_as_model();
  expect_as_model();
  EXPECT_EQ(pager_->usage().written, written);
  EXPECT_EQ(written, kLeaves);
}

TEST_F(MapPagerTest, KeepsWhatIsHeld) {
  start(2, &folder_);
  fragment_all();
  {
    const MapHold all = *hold({0, kBlocks});
    EXPECT_TRUE(map_->here({0, kBlocks}));
    make_room();
    EXPECT_TRUE(map_->here({0, kBlocks}));
    EXPECT_TRUE(pager_->usage().over_budget);
  }
  make_room();
  EXPECT_FALSE(pager_->usage().over_budget);
  EXPECT_TRUE(hold({5, 0}));
}

TEST_F(MapPagerTest, ForgetsLeavesThatBecameEmpty) {
  start(6, &folder_);
  fragment_all();
  for (uint64_t leaf = 0; leaf < kLeaves; ++leaf) {
    const BlockRange range(leaf * kLeafBlocks,
                           std::min<uint64_t>(kLeafBlocks, kBlocks - leaf * kLeafBlocks));
    const MapHold held = *hold(range);
    set(range, {});
  }
  EXPECT_EQ(map_->leaves_away(), 0U);
  EXPECT_EQ(map_->encoded_bytes(), 0U);
  EXPECT_LE(map_->memory(), overhead_ + kLeaves * sizeof(uint64_t));
  fragment_all();
  expect_as_model();
}

// --- a file that does not do its part
// -------------------------------------------------------------

TEST_F(MapPagerTest, FindsEveryDamageOfTheFile) {
  disk_.removes_fail = "map-";  // so that the test gets at it
  start(6, &folder_);
  fragment_all();
  uint64_t found = 0;
  for (int i = 0; i < 2000; ++i) {
    const uint64_t leaf = rng_.below(kLeaves);
    if (!map_->is_away(leaf)) continue;
    const uint64_t bytes = map_->proof(leaf).bytes;
    const uint64_t offset = leaf * kLeafBytes + rng_.below(bytes);
    const auto flip = static_cast<std::byte>(1U << rng_.below(8));
    file()[offset] ^= flip;
    const Result<MapHold> held = hold({leaf * kLeafBlocks, 1});
    ASSERT_FALSE(held);
    EXPECT_TRUE(held.error().is(Errc::kIo));
    ++found;
    file()[offset] ^= flip;
    EXPECT_TRUE(hold({leaf * kLeafBlocks, 1}));
  }
  EXPECT_EQ(pager_->usage().damaged, found);
  EXPECT_GT(found, 1500U);
  expect_as_model();
}

TEST_F(MapPagerTest, SaysThatAPartOfTheMapIsLostAndWhatToDo) {
  disk_.removes_fail = "map-";
  start(6, &folder_);
  fragment_all();
  const uint64_t leaf = first_away();
  file()[leaf * kLeafBytes] ^= std::byte{1};
  const Result<MapHold> held = hold({leaf * kLeafBlocks, 1});
  ASSERT_FALSE(held);
  EXPECT_NE(held.error().context().find("its checksum is wrong"), std::string::npos);
  EXPECT_NE(held.error().context().find("Nothing is lost: open the volume again"),
            std::string::npos);
  disk_.reads_fail = "map-";
  EXPECT_FALSE(hold({leaf * kLeafBlocks, 1}));
}

TEST_F(MapPagerTest, TakesNoOtherLeafAndNoOlderOneForIt) {
  disk_.removes_fail = "map-";
  start(2, &folder_);
  fragment_all();
  const std::vector<std::byte> before = file();
  for (uint64_t leaf = 0; leaf < 8; ++leaf) {
    const MapHold held = *hold({leaf * kLeafBlocks, kLeafBlocks});
    set({leaf * kLeafBlocks + 9, 1}, {99, 1});
  }
  make_room();
  ASSERT_TRUE(map_->is_away(2) && map_->is_away(3));
  const auto at = [this](uint64_t leaf) {
    return file().begin() + static_cast<ptrdiff_t>(leaf * kLeafBytes);
  };
  const std::vector<std::byte> now = file();
  std::copy_n(at(3), kLeafBytes, at(2));
  EXPECT_FALSE(hold({2 * kLeafBlocks, 1}));
  std::copy_n(before.begin() + 2 * kLeafBytes, kLeafBytes, at(2));
  EXPECT_FALSE(hold({2 * kLeafBlocks, 1}));
  file() = now;
  expect_as_model();
}

TEST_F(MapPagerTest, ReadsALeafFromTheCheckpointIfTheFileHasItNoMore) {
  disk_.removes_fail = "map-";
  std::map<uint64_t, std::vector<std::byte>> checkpoint;
  options_.recover = [&checkpoint](uint64_t leaf) -> Task<Result<std::vector<std::byte>>> {
    return [](std::vector<std::byte> bytes) -> Task<Result<std::vector<std::byte>>> {
      co_return bytes;
    }(checkpoint[leaf]);
  };
  start(6, &folder_);
  fragment_all();
  for (uint64_t leaf = 0; leaf < kLeaves; ++leaf) {
    const MapHold held = *hold({leaf * kLeafBlocks, 1});
    checkpoint[leaf] = map_->encode_leaf(leaf);
  }
  const uint64_t changed = 11;
  {
    const MapHold held = *hold({changed * kLeafBlocks, 1});
    set({changed * kLeafBlocks, 1}, {77, 7});
  }
  for (uint64_t leaf = 30; leaf < 50; ++leaf) static_cast<void>(hold({leaf * kLeafBlocks, 1}));
  make_room();
  ASSERT_TRUE(map_->is_away(changed));
  const std::vector<std::byte> good = file();
  std::ranges::fill(file(), std::byte{});
  const Result<MapHold> held = hold({changed * kLeafBlocks, 1});
  ASSERT_FALSE(held);
  EXPECT_NE(held.error().context().find("it has changed since the last checkpoint"),
            std::string::npos);
  std::copy_n(good.begin() + changed * kLeafBytes, kLeafBytes,
              file().begin() + changed * kLeafBytes);
  expect_as_model();
  const MapUsage usage = pager_->usage();
  EXPECT_GT(usage.recovered, 40U);
  EXPECT_EQ(usage.damaged, usage.recovered + 1);
}

TEST_F(MapPagerTest, TakesMoreMemoryWhileTheFileIsFullAndGivesItBackLater) {
  disk_.removes_fail = "map-";  // so that the disk counts the file
  disk_.space = 10 * kLeafBytes;
  start(6, &folder_);
  fragment_all();
  expect_as_model();
  MapUsage usage = pager_->usage();
  EXPECT_TRUE(usage.over_budget);
  EXPECT_EQ(usage.write_errors, 1U);
  EXPECT_GT(usage.memory, usage.memory_max + 40 * kLeafBytes);
  disk_.space = UINT64_MAX;
  make_room();
  EXPECT_TRUE(pager_->usage().over_budget);  // not yet
  pass_retry_time();
  make_room();
  usage = pager_->usage();
  EXPECT_FALSE(usage.over_budget);
  EXPECT_EQ(usage.write_errors, 1U);
  expect_as_model();
}

TEST_F(MapPagerTest, LosesNothingWhenWritesFailNowAndThen) {
  start(6, &slow_);
  fragment_all();
  for (int i = 0; i < 10; ++i) {
    disk_.writes_fail = i % 2 == 0 ? "map-" : "-";
    run(work_at_once(50, 4));
    pass_retry_time();
  }
  EXPECT_EQ(failed_, 0U);
  EXPECT_GE(pager_->usage().write_errors, 5U);
  make_room();
  EXPECT_FALSE(pager_->usage().over_budget);
  wrong_ = 0;  // the budget was not kept
  expect_as_model();
}

TEST_F(MapPagerTest, TakesMoreMemoryWithoutAFile) {
  start(6, nullptr);
  fragment_all();
  EXPECT_TRUE(pager_->usage().over_budget);
  EXPECT_EQ(map_->leaves_away(), 0U);
  expect_as_model();
}

TEST_F(MapPagerTest, TakesMoreMemoryIfThereCanBeNoFile) {
  disk_.opens_fail = "map-";
  start(6, &folder_);
  fragment_all();
  EXPECT_TRUE(pager_->usage().over_budget);
  EXPECT_GE(pager_->usage().write_errors, 1U);
  expect_as_model();
}

// --- checkpoints
// ----------------------------------------------------------------------------------

/// Checkpoints of a map whose leaves come and go.
class PagedCheckpointTest : public MapPagerTest {
 protected:
  /// Objects for all that fragment() and change() map.
  void add_objects() {
    for (uint64_t seq = 1; seq < 1000; ++seq) {
      const ObjectFacts facts{.id = {.epoch = 1, .seq = seq, .kind = ObjectKind::kData},
                              .object_bytes = 2U << 20U,
                              .stored_bytes = 1U << 20U,
                              .blocks = limits::kObjectBlocksMax,
                              .first_write = seq,
                              .last_write = seq};
      ASSERT_EQ(*table_.add(facts), seq);
    }
  }
  void count_live() {
    std::map<uint32_t, uint32_t> live;
    for (const Location& at : model_) ++live[at.slot];
    for (const auto& [slot, blocks] : live) {
      if (slot != 0) table_.add_live(slot, blocks);
    }
  }
  Task<void> write(CheckpointWriter& writer, Result<Checkpoint>& done) {
    CheckpointMoment moment(1, 1, {});
    done = co_await writer.write(*map_, table_, std::move(moment), {});
  }
  Task<void> write_while_working(CheckpointWriter& writer, Result<Checkpoint>& done) {
    Scope scope;
    scope.spawn(write(writer, done));
    for (unsigned i = 0; i < 3; ++i) scope.spawn(work(100, 4));
    co_await scope.close();
  }
  static Task<Result<void>> read(CheckpointPlace place, PiecePointer pointer, BlockMap& map,
                                 ObjectTable& table, MapPager& pager) {
    CheckpointReader reader(std::move(place), {});
    USBD_CO_TRY(const CheckpointRoot root, co_await reader.read_root(pointer));
    USBD_CO_TRY_VOID(co_await reader.read_pages(root, map, table, &pager));
    for (uint64_t leaf = 0; leaf < map.leaves(); leaf += 9) {
      const Result<MapHold> held = co_await pager.hold({leaf * kLeafBlocks, 1});
      if (!held) co_return held.error();
      USBD_CO_TRY(const std::vector<std::byte> one, co_await reader.read_leaf(root, leaf));
      if (one != map.encode_leaf(leaf)) co_return Error(Errc::kIo, "another leaf");
    }
    co_return Result<void>();
  }

  void use_new_map() {
    run(pager_->close());
    pager_ = nullptr;
    map_ = std::make_unique<BlockMap>(kBlocks);
    pager_ = std::make_shared<MapPager>(*map_, &slow_, rng_, options_);
  }

  ObjectTable table_;
  VolumeSeal seal_;
  objects::MemoryStore store_{std::make_shared<objects::MemoryContainer>()};
};

TEST_F(PagedCheckpointTest, HasTheMapOfItsMomentAndIsReadWithinTheBudget) {
  start(4, &slow_);
  add_objects();
  fragment_all();
  run(work_at_once(200, 4));
  count_live();
  const std::vector<Location> moment = model_;
  const CheckpointPlace place(store_, "vol", seal_);
  const CheckpointWriter::Options options{.epoch = 1, .pager = pager_.get()};
  CheckpointWriter writer(place, options, rng_, std::nullopt);
  Result<Checkpoint> done = Error(Errc::kIo, "it did not end");
  run(write_while_working(writer, done));
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_NE(model_, moment);
  EXPECT_EQ(writer.copied_bytes(), 0U);
  EXPECT_EQ(wrong_ + failed_, 0U);
  expect_as_model();

  use_new_map();
  ObjectTable table;
  const auto opened = loop_.run(read(place, done->root, *map_, table, *pager_));
  ASSERT_TRUE(opened);
  ASSERT_TRUE(*opened) << opened->error().message();
  make_room();
  EXPECT_FALSE(pager_->usage().over_budget);
  EXPECT_GT(pager_->usage().leaves_away, kLeaves / 2);
  model_ = moment;
  expect_as_model();
}

}  // namespace
}  // namespace usbd::objstore

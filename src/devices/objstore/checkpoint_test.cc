// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints in a store in memory: written and read back, in parts, with puts that fail, with maps
// that change meanwhile, and with every byte of a small one damaged.

#include "devices/objstore/checkpoint.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "async/sim_loop.h"
#include "async/testing.h"
#include "base/limits.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

using objects::CallLimits;
using objects::MemoryContainer;

constexpr uint64_t kBlocks = 4 * kPageLeaves * kLeafBlocks + 100;  // the last page has one leaf

std::vector<std::byte> bytes_of(std::string_view text) {
  const Bytes bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// A MemoryStore that fails, or lets the test look on, when it is told to.
class StoreUnderTest final : public objects::ObjectStore {
 public:
  enum class Fail : uint8_t { kNever, kBefore, kAfter };

  explicit StoreUnderTest(std::shared_ptr<MemoryContainer> container)
      : inner_(std::move(container)) {}

  std::string name() const override { return "test"; }
  objects::Abilities abilities() const override { return inner_.abilities(); }
  Task<Result<std::string>> put(std::string name, Bytes data, objects::Condition condition,
                                CallLimits limits) override {
    ++puts;
    const bool fails = puts == fail_put;
    if (during_put) during_put();
    if (fails && how == Fail::kBefore) co_return Error(Errc::kTimedOut, "lost on the way");
    Result<std::string> tag = co_await inner_.put(std::move(name), data, condition, limits);
    if (fails) co_return Error(Errc::kTimedOut, "lost on the way back");
    co_return tag;
  }
  Task<Result<objects::Fetched>> get(std::string name, objects::Part part,
                                     CallLimits limits) override {
    if (++gets == fail_get) co_return Error(Errc::kIo, "connection reset");
    Result<objects::Fetched> fetched = co_await inner_.get(std::move(name), part, limits);
    if (fetched) bytes_read += fetched->data.size();
    co_return fetched;
  }
  Task<Result<objects::ObjectInfo>> head(std::string name, CallLimits limits) override {
    return inner_.head(std::move(name), limits);
  }
  Task<Result<objects::ListPage>> list(std::string prefix, std::string after, size_t most,
                                       CallLimits limits) override {
    return inner_.list(std::move(prefix), std::move(after), most, limits);
  }
  Task<Result<void>> remove(std::string name, CallLimits limits) override {
    return inner_.remove(std::move(name), limits);
  }
  Task<void> close() override { return inner_.close(); }

  uint64_t puts = 0;
  uint64_t gets = 0;
  uint64_t bytes_read = 0;
  /// Which call fails; 0: none.
  uint64_t fail_put = 0;
  uint64_t fail_get = 0;
  Fail how = Fail::kBefore;
  std::function<void()> during_put;

 private:
  objects::MemoryStore inner_;
};

/// What was read from a checkpoint.
struct Opened {
  Opened() : map(kBlocks) {}
  CheckpointRoot root;
  BlockMap map;
  ObjectTable table;
};

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() { use(crypto::CipherMode::kAesGcm); }

  void use(crypto::CipherMode cipher) {
    seal_ = {.volume = {}, .cipher = cipher, .key = key_};
    seal_.volume.fill(std::byte{7});
  }
  [[nodiscard]] CheckpointPlace place() { return {store_, "vol", seal_}; }

  void start_writer(uint32_t object_bytes = limits::kMapObjectBytes,
                    std::optional<CheckpointWriter::Previous> previous = std::nullopt) {
    const CheckpointWriter::Options options{.epoch = ++epoch_,
                                            .codec = {.kind = codec::CodecKind::kLz4, .level = 1},
                                            .object_bytes = object_bytes};
    writer_ = std::make_unique<CheckpointWriter>(place(), options, rng_, std::move(previous));
  }

  /// As if a data object had been written with these blocks.
  uint32_t write(const std::vector<BlockRange>& ranges) {
    uint32_t blocks = 0;
    for (const BlockRange& range : ranges) blocks += static_cast<uint32_t>(range.count);
    ++seq_;
    const ObjectFacts facts{.id = {.epoch = 1, .seq = seq_, .kind = ObjectKind::kData},
                            .object_bytes = 5000 + uint64_t{blocks} * 1000,
                            .stored_bytes = uint64_t{blocks} * 1000,
                            .blocks = blocks,
                            .first_write = seq_ * 10,
                            .last_write = seq_ * 10 + 9};
    const uint32_t slot = *table_.add(facts);
    uint32_t position = 0;
    for (const BlockRange& range : ranges) {
      map_.set(range, {slot, position}, replaced());
      table_.add_live(slot, static_cast<uint32_t>(range.count));
      position += static_cast<uint32_t>(range.count);
    }
    return slot;
  }
  void unmap(BlockRange range) { map_.set(range, {}, replaced()); }
  BlockMap::Replaced replaced() {
    return [this](uint32_t slot, uint32_t blocks) { table_.drop_live(slot, blocks); };
  }
  /// Objects of scattered blocks all over the volume.
  void write_randomly(int objects) {
    for (int i = 0; i < objects; ++i) {
      std::vector<BlockRange> ranges;
      for (int j = 0; j < 100; ++j) {
        ranges.emplace_back(rng_.below(kBlocks - 8), rng_.between(1, 8));
      }
      std::ranges::sort(ranges, {}, &BlockRange::first);
      std::vector<BlockRange> apart;
      for (const BlockRange& range : ranges) {
        if (apart.empty() || range.first >= apart.back().end()) apart.push_back(range);
      }
      write(apart);
    }
  }

  Result<Checkpoint> checkpoint() {
    CheckpointMoment moment(seq_, seq_ * 10 + 9, bytes_of("head"));
    const auto done = loop_.run(writer_->write(map_, table_, std::move(moment), stop_.get_token()));
    EXPECT_TRUE(done.has_value());
    return *done;
  }
  Checkpoint good_checkpoint() {
    const Result<Checkpoint> done = checkpoint();
    EXPECT_TRUE(done) << done.error().message();
    return done ? *done : Checkpoint();
  }
  static Task<Result<void>> read(CheckpointPlace place, std::stop_token stop, PiecePointer pointer,
                                 Opened& opened) {
    CheckpointReader reader(std::move(place), std::move(stop));
    USBD_CO_TRY(opened.root, co_await reader.read_root(pointer));
    co_return co_await reader.read_pages(opened.root, opened.map, opened.table);
  }
  Result<void> open(const PiecePointer& pointer, Opened& opened) {
    const auto done = loop_.run(read(place(), stop_.get_token(), pointer, opened));
    EXPECT_TRUE(done.has_value());
    return *done;
  }
  /// Why it cannot be opened.
  Error refusal(const PiecePointer& pointer) {
    Opened opened;
    const Result<void> done = open(pointer, opened);
    return done ? Error(Errc::kExists, "accepted") : done.error();
  }
  [[nodiscard]] static std::vector<std::vector<std::byte>> pages_of(const BlockMap& map,
                                                                    const ObjectTable& table) {
    std::vector<std::vector<std::byte>> pages;
    for (uint32_t page = 0; page < map_pages(map); ++page) {
      pages.push_back(encode_map_page(map, page));
    }
    for (uint32_t page = 0; page < table.pages(); ++page) pages.push_back(table.encode_page(page));
    return pages;
  }
  [[nodiscard]] std::vector<std::vector<std::byte>> pages() const { return pages_of(map_, table_); }
  void expect_opens_as(const PiecePointer& pointer,
                       const std::vector<std::vector<std::byte>>& expected) {
    Opened opened;
    const Result<void> done = open(pointer, opened);
    ASSERT_TRUE(done) << done.error().message();
    EXPECT_EQ(pages_of(opened.map, opened.table), expected);
  }
  void remove(const std::vector<std::string>& names) {
    for (const std::string& name : names) EXPECT_EQ(container_->objects.erase(name), 1U) << name;
  }
  [[nodiscard]] bool anything_changed() const {
    for (uint64_t leaf = 0; leaf < map_.leaves(); ++leaf) {
      if (map_.changed(leaf)) return true;
    }
    for (uint32_t page = 0; page < table_.pages(); ++page) {
      if (table_.changed(page)) return true;
    }
    return false;
  }

  const std::vector<std::byte> key_ = std::vector<std::byte>(32, std::byte{3});
  VolumeSeal seal_;
  SeededRng rng_{42};
  SimLoop loop_{{.seed = 11}};
  std::shared_ptr<MemoryContainer> container_ = std::make_shared<MemoryContainer>();
  StoreUnderTest store_{container_};
  std::stop_source stop_;
  BlockMap map_{kBlocks};
  ObjectTable table_;
  uint64_t epoch_ = 0;
  uint64_t seq_ = 0;
  std::unique_ptr<CheckpointWriter> writer_;
};

TEST_F(CheckpointTest, BringsBackMapAndTable) {
  start_writer();
  write_randomly(200);
  const Checkpoint done = good_checkpoint();
  EXPECT_EQ(done.objects, 1U);
  EXPECT_EQ(done.pages, 6U);
  EXPECT_TRUE(done.garbage.empty());
  Opened opened;
  ASSERT_TRUE(open(done.root, opened));
  EXPECT_EQ(pages_of(opened.map, opened.table), pages());
  EXPECT_EQ(opened.root, writer_->root());
  EXPECT_EQ(opened.root.number, 1U);
  EXPECT_EQ(opened.root.last_seq, 200U);
  EXPECT_EQ(opened.root.last_write, 2009U);
  EXPECT_EQ(opened.root.head, bytes_of("head"));
  EXPECT_EQ(opened.table.totals(ObjectState::kInUse), table_.totals(ObjectState::kInUse));
  EXPECT_FALSE(anything_changed());
}

TEST_F(CheckpointTest, IsOneOfAnEmptyVolumeToo) {
  start_writer();
  const Checkpoint done = good_checkpoint();
  EXPECT_EQ(done.pages, 0U);
  expect_opens_as(done.root, pages());
}

TEST_F(CheckpointTest, RunsOnAnEventLoop) {
  start_writer();
  write_randomly(5);
  CheckpointMoment moment(seq_, 0, {});
  const Result<Checkpoint> done =
      testing::run_on_loop(writer_->write(map_, table_, std::move(moment), {}));
  ASSERT_TRUE(done);
  Opened opened;
  ASSERT_TRUE(testing::run_on_loop(read(place(), {}, done->root, opened)));
  EXPECT_EQ(pages_of(opened.map, opened.table), pages());
}

TEST_F(CheckpointTest, PacksPagesIntoObjectsOfTheSizeThatIsAskedFor) {
  start_writer(20'000);
  write_randomly(300);
  const Checkpoint done = good_checkpoint();
  EXPECT_GT(done.objects, 3U);
  EXPECT_EQ(container_->objects.size(), done.objects);
  expect_opens_as(done.root, pages());
}

TEST_F(CheckpointTest, WritesOnlyPagesThatChanged) {
  start_writer();
  write_randomly(200);
  const Checkpoint first = good_checkpoint();
  write({{5, 1}});
  const Checkpoint second = good_checkpoint();
  EXPECT_EQ(second.pages, 2U);  // of the map, and of the table
  EXPECT_EQ(second.objects, 1U);
  EXPECT_LT(second.bytes, first.bytes);
  unmap({kBlocks - 1, 1});  // nothing was there
  const Checkpoint third = good_checkpoint();
  EXPECT_EQ(third.pages, 0U);
  EXPECT_EQ(third.objects, 1U);
  EXPECT_LT(third.bytes, 1000U);
  expect_opens_as(third.root, pages());
  EXPECT_EQ(writer_->root().number, 3U);
}

TEST_F(CheckpointTest, ForgetsPagesInWhichNothingIsLeft) {
  start_writer();
  write({{0, 10}});
  good_checkpoint();
  unmap({0, 10});
  table_.set_pending(1, 2);
  good_checkpoint();
  EXPECT_TRUE(writer_->root().map_pages.empty());
  table_.remove(1);
  const Checkpoint done = good_checkpoint();
  EXPECT_TRUE(writer_->root().table_pages.empty());
  EXPECT_TRUE(writer_->root().objects.empty());
  EXPECT_EQ(done.pages, 0U);
  Opened opened;
  ASSERT_TRUE(open(done.root, opened));
  EXPECT_EQ(opened.map.memory(), BlockMap(kBlocks).memory());
}

TEST_F(CheckpointTest, NamesWhatIsNotNeededAnyMoreAndNothingElse) {
  start_writer(30'000);
  write_randomly(300);
  std::vector<std::string> garbage;
  for (int i = 0; i < 40; ++i) {
    const Checkpoint done = good_checkpoint();
    // What the checkpoint before this one leaves over is removed only now.
    remove(garbage);
    garbage = done.garbage;
    expect_opens_as(done.root, pages());
    if (i % 7 == 6) {
      const CheckpointRoot root = writer_->root();
      start_writer(30'000, CheckpointWriter::Previous{.root = root, .pointer = done.root});
    }
    write_randomly(1 + i % 3);
  }
  remove(garbage);
  std::set<std::string> needed;
  for (const MapObject& object : writer_->root().objects) {
    needed.insert(map_name("vol", object.id.epoch, object.id.id));
  }
  for (const auto& [name, object] : container_->objects) needed.erase(name);
  EXPECT_TRUE(needed.empty());
  // The last root may have an object of its own.
  EXPECT_LE(container_->objects.size(), writer_->root().objects.size() + 1);
}

TEST_F(CheckpointTest, EmptiesObjectsThatAreUnderHalfLive) {
  start_writer();
  constexpr uint64_t kPage = uint64_t{kPageLeaves} * kLeafBlocks;
  write({{0, 1}, {kPage, 1}, {2 * kPage, 1}, {3 * kPage, 1}});
  good_checkpoint();
  ASSERT_EQ(writer_->root().objects.size(), 1U);
  EXPECT_EQ(writer_->root().objects[0].pages, 5U);
  write({{0, 1}, {kPage, 1}});
  good_checkpoint();
  EXPECT_EQ(writer_->root().objects[0].live, 2U);
  const Checkpoint third = good_checkpoint();  // nothing changed, and two pages move
  EXPECT_EQ(third.pages, 2U);
  EXPECT_EQ(third.garbage.size(), 1U);
  remove(third.garbage);
  expect_opens_as(third.root, pages());
}

TEST_F(CheckpointTest, MergesManySmallObjects) {
  const auto blocks = uint64_t{100} * kPageLeaves * kLeafBlocks;
  BlockMap map(blocks);
  start_writer();
  size_t most = 0;
  std::optional<Checkpoint> last;
  std::vector<std::string> garbage;
  for (uint64_t i = 0; i < 100; ++i) {
    const uint64_t block = i * kPageLeaves * kLeafBlocks;
    const ObjectFacts facts{.id = {.epoch = 9, .seq = 1000 + i, .kind = ObjectKind::kData},
                            .object_bytes = 100,
                            .stored_bytes = 50,
                            .blocks = 1};
    const uint32_t one = *table_.add(facts);
    table_.add_live(one, 1);
    map.set({block, 1}, {one, 0}, replaced());
    CheckpointMoment moment(seq_, 0, {});
    const auto done = loop_.run(writer_->write(map, table_, std::move(moment), {}));
    ASSERT_TRUE(done && *done);
    most = std::max(most, writer_->root().objects.size());
    remove(garbage);
    last = **done;
    garbage = last->garbage;
  }
  EXPECT_GT(most, 32U);
  EXPECT_LE(most, limits::kMapObjectsSlack + 2);
  CheckpointReader reader(place(), {});
  BlockMap copy(blocks);
  ObjectTable table;
  const auto root = loop_.run(reader.read_root(last->root));
  ASSERT_TRUE(root && *root);
  const auto read_back = loop_.run(reader.read_pages(**root, copy, table));
  ASSERT_TRUE(read_back && *read_back);
  EXPECT_EQ(pages_of(copy, table), pages_of(map, table_));
}

TEST_F(CheckpointTest, LosesNothingWhenAnyPutFails) {
  using Fail = StoreUnderTest::Fail;
  start_writer(20'000);
  write_randomly(300);
  Checkpoint last = good_checkpoint();
  std::vector<std::vector<std::byte>> stored = pages();
  uint64_t failures = 0;
  for (uint64_t put = 1;; ++put) {
    const Fail how = put % 2 == 0 ? Fail::kBefore : Fail::kAfter;
    write_randomly(30);
    const std::vector<std::vector<std::byte>> now = pages();
    store_.fail_put = store_.puts + put;
    store_.how = how;
    const Result<Checkpoint> failed = checkpoint();
    store_.fail_put = 0;
    if (failed) break;  // it has fewer puts
    ++failures;
    EXPECT_TRUE(failed.error().is(Errc::kTimedOut));
    EXPECT_NE(failed.error().context().find("vol/m/0000000000000001/"), std::string::npos);
    EXPECT_TRUE(anything_changed());
    expect_opens_as(last.root, stored);
    ASSERT_EQ(pages(), now);
    const size_t left_over = container_->objects.size();
    last = good_checkpoint();
    EXPECT_FALSE(anything_changed());
    stored = pages();
    expect_opens_as(last.root, stored);
    // Also what the attempt that failed left over.
    for (const std::string& name : last.garbage) container_->objects.erase(name);
    EXPECT_LT(container_->objects.size(), left_over + last.objects);
    expect_opens_as(last.root, stored);
    std::set<std::string> names;
    for (const auto& [name, object] : container_->objects) names.insert(name);
    EXPECT_LE(names.size(), writer_->root().objects.size() + 1);
  }
  EXPECT_GE(failures, 3U);
}

TEST_F(CheckpointTest, IsOfOneMomentHoweverTheMapChangesMeanwhile) {
  start_writer(5'000);
  write_randomly(200);
  const std::vector<std::vector<std::byte>> moment = pages();
  store_.during_put = [this] {
    write_randomly(3);
    unmap({rng_.below(kBlocks - 5000), 5000});
  };
  const Checkpoint done = good_checkpoint();
  ASSERT_GT(done.objects, 5U);
  store_.during_put = nullptr;
  expect_opens_as(done.root, moment);
  EXPECT_TRUE(anything_changed());
  const Checkpoint next = good_checkpoint();
  expect_opens_as(next.root, pages());
  EXPECT_FALSE(anything_changed());
}

TEST_F(CheckpointTest, LosesNothingWhenTheMapChangesAndThePutFails) {
  start_writer(5'000);
  write_randomly(200);
  const Checkpoint first = good_checkpoint();
  const std::vector<std::vector<std::byte>> stored = pages();
  write_randomly(50);
  store_.during_put = [this] { write_randomly(3); };
  store_.fail_put = store_.puts + 3;
  ASSERT_FALSE(checkpoint());
  store_.during_put = nullptr;
  expect_opens_as(first.root, stored);
  const Checkpoint next = good_checkpoint();
  expect_opens_as(next.root, pages());
}

TEST_F(CheckpointTest, ReadsNeighboursTogether) {
  start_writer();
  write_randomly(200);
  const Checkpoint done = good_checkpoint();
  store_.gets = 0;
  expect_opens_as(done.root, pages());
  EXPECT_EQ(store_.gets, 2U);  // the root, and all pages
}

TEST_F(CheckpointTest, FindsARootThatIsFarFromTheStartOfItsObject) {
  PieceWriter object = *PieceWriter::create(seal_, {.epoch = 1, .id = 1}, {});
  std::vector<std::byte> noise(limits::kRootInlineBytes + 5);
  rng_.fill(noise);
  object.add({.kind = PieceKind::kMapPage, .page = 0}, {}, noise);
  CheckpointRoot root{.number = 1, .blocks = kBlocks};
  const PiecePointer pointer =
      object.add({.kind = PieceKind::kRoot, .page = 0}, {}, *encode_root(root));
  container_->objects["vol/m/0000000000000001/0000000000000001"].data = {object.bytes().begin(),
                                                                         object.bytes().end()};
  Opened opened;
  ASSERT_TRUE(open(pointer, opened));
  EXPECT_EQ(opened.root, root);
  EXPECT_LT(store_.bytes_read, 1000U);
  store_.fail_get = store_.gets + 2;
  EXPECT_EQ(refusal(pointer).context(),
            "checkpoint object vol/m/0000000000000001/0000000000000001: connection reset");
}

TEST_F(CheckpointTest, NamesTheObjectThatIsMissing) {
  start_writer(20'000);
  write_randomly(300);
  const Checkpoint done = good_checkpoint();
  const auto all = container_->objects;
  ASSERT_GT(all.size(), 3U);
  for (const auto& [name, object] : all) {
    container_->objects = all;
    container_->objects.erase(name);
    const Error error = refusal(done.root);
    EXPECT_TRUE(error.is(Errc::kNotFound));
    EXPECT_NE(error.context().find("checkpoint object " + name), std::string::npos)
        << error.context();
  }
}

TEST_F(CheckpointTest, SaysThatAReadFailed) {
  start_writer(20'000);
  write_randomly(300);
  const Checkpoint done = good_checkpoint();
  for (uint64_t get = 1; get <= 4; ++get) {
    store_.fail_get = store_.gets + get;
    const Error error = refusal(done.root);
    EXPECT_TRUE(error.is(Errc::kIo));
    EXPECT_NE(error.context().find("connection reset"), std::string::npos) << error.context();
  }
  store_.fail_get = 0;
  stop_.request_stop();
  EXPECT_TRUE(refusal(done.root).is(Errc::kCanceled));
  EXPECT_TRUE(checkpoint().error().is(Errc::kCanceled));
}

TEST_F(CheckpointTest, RefusesAnotherKeyCipherVolumeAndSize) {
  start_writer();
  write_randomly(3);
  const Checkpoint done = good_checkpoint();
  const VolumeSeal right = seal_;
  const std::vector<std::byte> other(32, std::byte{4});
  seal_.key = other;
  EXPECT_TRUE(refusal(done.root).is(Errc::kAccess));
  seal_ = right;
  seal_.cipher = crypto::CipherMode::kAesCtr;
  EXPECT_TRUE(refusal(done.root).is(Errc::kAccess));
  seal_ = right;
  seal_.volume[0] = std::byte{1};
  EXPECT_EQ(refusal(done.root).context(),
            "checkpoint object vol/m/0000000000000001/0000000000000001: belongs to another volume");
  seal_ = right;
  seal_.key = Bytes(key_).first(5);
  EXPECT_TRUE(refusal(done.root).is(Errc::kInvalid));
  write_randomly(1);
  start_writer();
  EXPECT_TRUE(checkpoint().error().is(Errc::kInvalid));
  seal_ = right;
  BlockMap map(kBlocks - 1);
  ObjectTable table;
  CheckpointReader reader(place(), {});
  const auto read_back =
      loop_.run(reader.read_pages(CheckpointRoot{.blocks = kBlocks}, map, table));
  ASSERT_TRUE(read_back);
  EXPECT_EQ(read_back->error().context(),
            "the checkpoint is of a volume of 131172 blocks, and this one has 131171");
}

TEST_F(CheckpointTest, RefusesAPointerToWhereNoRootIs) {
  start_writer();
  write_randomly(3);
  PiecePointer pointer = good_checkpoint().root;
  pointer.stored = 3;
  EXPECT_TRUE(refusal(pointer).is(Errc::kInvalid));
  EXPECT_NE(refusal(pointer).context().find("head does not say where the root is"),
            std::string::npos);
}

TEST_F(CheckpointTest, RefusesAMapThatDisagreesWithTheTable) {
  const auto ignore = [](uint32_t, uint32_t) {};
  start_writer();
  write({{0, 10}});
  map_.set({20, 1}, {1, 0}, ignore);
  const std::string disagree = "the checkpoint's map and object table disagree: ";
  EXPECT_EQ(refusal(good_checkpoint().root).context(),
            disagree + "11 blocks are mapped to slot 1, and 10 are said to be live");
  map_.set({20, 1}, {7, 0}, ignore);
  EXPECT_EQ(refusal(good_checkpoint().root).context(),
            disagree + "block 20 is at position 0 of slot 7, where nothing is");
  map_.set({20, 1}, {1, 10}, ignore);
  EXPECT_EQ(refusal(good_checkpoint().root).context(),
            disagree + "block 20 is at position 10 of slot 1, where nothing is");
  table_.drop_live(1, 10);
  table_.set_pending(1, 3);
  map_.set({20, 1}, {}, ignore);
  EXPECT_EQ(refusal(good_checkpoint().root).context(),
            disagree + "block 0 is at position 0 of slot 1, where nothing is");
}

TEST_F(CheckpointTest, SaysThatARootIsTooLarge) {
  start_writer();
  CheckpointMoment moment(1, 1, std::vector<std::byte>(limits::kHeadCopyMax + 1));
  const auto done = loop_.run(writer_->write(map_, table_, std::move(moment), {}));
  ASSERT_TRUE(done);
  EXPECT_TRUE(done->error().is(Errc::kOverflow));
  EXPECT_EQ(writer_->root().number, 0U);
}

/// Every byte of a small checkpoint, changed, and every length it may be cut to.
class CheckpointDamage : public CheckpointTest,
                         public ::testing::WithParamInterface<crypto::CipherMode> {};

TEST_P(CheckpointDamage, IsRefusedOrHarmless) {
  use(GetParam());
  start_writer(1'000);
  write({{0, 3}, {10, 1}, {70'000, 2}});
  write({{5, 3}});
  const Checkpoint done = good_checkpoint();
  const std::vector<std::vector<std::byte>> expected = pages();
  const auto all = container_->objects;
  uint64_t refused = 0;
  uint64_t harmless = 0;
  const auto look = [&](const std::string& name) {
    Opened opened;
    if (open(done.root, opened)) {
      ++harmless;
      ASSERT_EQ(pages_of(opened.map, opened.table), expected);
      ASSERT_EQ(opened.root, writer_->root());
    } else {
      ++refused;
      const std::string why = refusal(done.root).context();
      ASSERT_NE(why.find(name), std::string::npos) << why;
    }
    container_->objects = all;
  };
  for (const auto& [name, object] : all) {
    for (size_t i = 0; i < object.data.size(); ++i) {
      const auto flip = static_cast<std::byte>(rng_.between(1, 255));
      container_->objects[name].data[i] ^= flip;
      look(name);
      container_->objects[name].data.resize(i);
      look(name);
    }
  }
  // Only the header of an object without the root is not read.
  EXPECT_GT(refused, 900U);
  EXPECT_LE(harmless, (all.size() - 1) * kMapHeaderBytes);
  RecordProperty("refused", static_cast<int>(refused));
  RecordProperty("harmless", static_cast<int>(harmless));
}

INSTANTIATE_TEST_SUITE_P(Ciphers, CheckpointDamage,
                         ::testing::Values(crypto::CipherMode::kIdentity,
                                           crypto::CipherMode::kAesGcm,
                                           crypto::CipherMode::kAesCtr));

}  // namespace
}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// A bucket in memory with log objects, objects of garbage collection and a checkpoint, and what
// VolumeImage and check_volume say of it: sound, damaged in each part, and changing meanwhile.

#include "devices/objstore/volume_check.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "async/testing.h"
#include "base/random.h"
#include "devices/objstore/checkpoint.h"
#include "devices/objstore/data_object_layout.h"
#include "devices/objstore/data_object_writer.h"
#include "devices/objstore/names.h"
#include "devices/objstore/snapshots.h"
#include "objects/memory/memory_store.h"

namespace usbd::objstore {
namespace {

using objects::CallLimits;

constexpr uint64_t kPageBlocks = uint64_t{kPageLeaves} * kLeafBlocks;
constexpr uint64_t kBlocks = 3 * kPageBlocks + 5;

/// A MemoryStore that lets the test look on, or fails as it says.
class StoreUnderTest final : public objects::ObjectStore {
 public:
  using Hook = std::function<std::optional<Error>(const std::string& name)>;

  explicit StoreUnderTest(std::shared_ptr<objects::MemoryContainer> container)
      : inner_(std::move(container)) {}
  std::string name() const override { return "test"; }
  objects::Abilities abilities() const override { return inner_.abilities(); }
  Task<Result<std::string>> put(std::string name, Bytes data, objects::Condition condition,
                                CallLimits limits) override {
    return inner_.put(std::move(name), data, condition, limits);
  }
  Task<Result<objects::Fetched>> get(std::string name, objects::Part part,
                                     CallLimits limits) override {
    if (before_get) {
      if (const std::optional<Error> error = before_get(name)) co_return *error;
    }
    co_return co_await inner_.get(std::move(name), part, limits);
  }
  Task<Result<objects::ObjectInfo>> head(std::string name, CallLimits limits) override {
    if (away) co_return Error(Errc::kIo, "connection refused");
    co_return co_await inner_.head(std::move(name), limits);
  }
  Task<Result<objects::ListPage>> list(std::string prefix, std::string after, size_t most,
                                       CallLimits limits) override {
    return inner_.list(std::move(prefix), std::move(after), most, limits);
  }
  Task<Result<void>> remove(std::string name, CallLimits limits) override {
    return inner_.remove(std::move(name), limits);
  }
  Task<void> close() override { return inner_.close(); }

  Hook before_get;
  bool away = false;

 private:
  objects::MemoryStore inner_;
};

class VolumeCheckTest : public ::testing::Test {
 protected:
  VolumeCheckTest() {
    head_.volume.fill(std::byte{7});
    head_.size = kBlocks * kBlockBytes - 512;
    head_.logical_block_size = 512;
    head_.cipher = crypto::CipherMode::kAesGcm;
    head_.key_check = crypto::key_check(key_, head_.key_salt);
    head_.epoch = 1;
    head_.epochs = {{.epoch = 1, .first_seq = 1}};
  }

  [[nodiscard]] VolumeSeal seal() const {
    return {.volume = head_.volume, .cipher = head_.cipher, .key = key_};
  }

  /// Stores an object with these blocks, and has map and table know it.
  std::string write(const std::vector<BlockRange>& ranges, ObjectKind kind = ObjectKind::kData) {
    const bool gc = kind == ObjectKind::kGc;
    const ObjectId id{.epoch = 1, .seq = gc ? ++last_gc_ : ++head_.last_seq, .kind = kind};
    DataObjectWriter::Facts facts{.id = id, .codec = {.kind = codec::CodecKind::kIdentity}};
    if (!gc) facts.first_write = facts.last_write = ++head_.published_number;
    rng_.fill(facts.salt);
    DataObjectWriter writer = *DataObjectWriter::create(seal(), facts);
    ObjectFacts known{.id = id, .first_write = facts.first_write, .last_write = facts.last_write};
    std::vector<std::pair<BlockRange, uint32_t>> places;
    for (const BlockRange& range : ranges) {
      std::vector<std::byte> data(range.count * kBlockBytes);
      rng_.fill(data);
      const Position at = gc ? writer.add_moved(range.first, data, {.object = {1, 1}})
                             : writer.add_data(range.first, data);
      places.emplace_back(range, at.value);
      known.blocks += static_cast<uint32_t>(range.count);
    }
    const std::vector<std::byte> bytes = writer.finish();
    known.object_bytes = bytes.size();
    known.stored_bytes = known.blocks == 0 ? 0 : known.blocks * kBlockBytes;
    for (uint32_t i = 0; i < writer.frames(); ++i)
      known.stored_bytes += crypto::tag_bytes(head_.cipher);
    const uint32_t slot = *table_.add(known);
    for (const auto& [range, position] : places) {
      map_.set(range, {slot, position}, replaced());
      table_.add_live(slot, static_cast<uint32_t>(range.count));
    }
    const std::string name = data_name("vol", id);
    put(name, bytes);
    return name;
  }

  /// Stores map and table; the head names them from the next publish() on.
  void checkpoint() {
    if (!writer_) {
      const CheckpointPlace place(store_, "vol", seal());
      writer_ = std::make_unique<CheckpointWriter>(
          place, CheckpointWriter::Options{.epoch = 1, .codec = {}}, rng_, std::nullopt);
    }
    CheckpointMoment moment(head_.last_seq, head_.published_number, {});
    moment.snapshots = snapshots_;
    const Result<Checkpoint> made = loop_.run(writer_->write(map_, table_, moment, {}));
    ASSERT_TRUE(made) << made.error().message();
    const PiecePointer& root = made->root;
    head_.root = {.epoch = root.object.epoch,
                  .id = root.object.id,
                  .offset = root.offset,
                  .stored = root.stored,
                  .logical = root.logical,
                  .piece = root.number,
                  .covers_seq = head_.last_seq};
  }

  /// Keeps the volume as it is.
  void snapshot() {
    checkpoint();
    SnapshotRef taken{.number = writer_->root().number, .root = *to_piece(head_.root)};
    taken.last_seq = head_.last_seq;
    taken.last_write = head_.published_number;
    taken.last_moved = last_gc_;
    snapshots_.push_back(std::move(taken));
  }
  Result<CheckTotals> run_snapshot(const SnapshotRef& snapshot, std::set<ObjectId>& proven) {
    findings_.clear();
    CheckOptions options{.snapshot = snapshot.number, .proven = &proven};
    options.found = [this](const CheckFinding& finding) { findings_.push_back(finding); };
    const ImagePlace place(store_, "vol", key_);
    return loop_.run(
        check_volume(place, head_of_snapshot(head_, snapshot), loop_.pool(), std::move(options)));
  }

  void publish() {
    ++head_.version;
    put("vol/head", encode(head_, key_));
  }

  /// Three objects in a checkpoint, one of garbage collection in it, and one behind it.
  void make_volume() {
    first_ = write({{0, 40}});
    second_ = write({{kPageBlocks + 7, 20}, {100, 3}});
    gc_ = write({{2 * kPageBlocks, 33}}, ObjectKind::kGc);
    checkpoint();
    last_ = write({{5, 2}, {kBlocks - 1, 1}});
    publish();
  }

  Result<CheckTotals> run() {
    findings_.clear();
    CheckOptions options;
    options.found = [this](const CheckFinding& finding) { findings_.push_back(finding); };
    options.progress = [this](const CheckProgress& progress) { progress_ = progress; };
    return loop_.run(check(options));
  }
  Task<Result<CheckTotals>> check(CheckOptions options) {
    const ImagePlace place(store_, "vol", key_);
    USBD_CO_TRY(Head head, co_await read_head(place));
    co_return co_await check_volume(place, std::move(head), loop_.pool(), std::move(options));
  }

  void put(const std::string& name, std::vector<std::byte> bytes) {
    container_->objects[name] = {.data = std::move(bytes), .tag = std::to_string(++tags_)};
  }
  std::vector<std::byte>& object(const std::string& name) {
    return container_->objects.at(name).data;
  }
  void flip(const std::string& name, size_t offset) { object(name).at(offset) ^= std::byte{0x10}; }
  BlockMap::Replaced replaced() {
    return [this](uint32_t slot, uint32_t blocks) { table_.drop_live(slot, blocks); };
  }
  static ByteRange bytes(uint64_t block, uint64_t count) {
    return {block * kBlockBytes, count * kBlockBytes};
  }
  /// The only finding.
  CheckFinding finding() {
    const Result<CheckTotals> done = run();
    EXPECT_TRUE(done) << done.error().message();
    EXPECT_EQ(findings_.size(), 1U);
    for (const CheckFinding& one : findings_) SCOPED_TRACE(one.object + " " + one.what);
    return findings_.empty() ? CheckFinding() : findings_.front();
  }

  const std::vector<std::byte> key_ = std::vector<std::byte>(32, std::byte{3});
  SeededRng rng_{42};
  testing::TestLoop loop_;
  std::shared_ptr<objects::MemoryContainer> container_ =
      std::make_shared<objects::MemoryContainer>();
  StoreUnderTest store_{container_};
  Head head_;
  BlockMap map_{kBlocks};
  ObjectTable table_;
  std::unique_ptr<CheckpointWriter> writer_;
  std::vector<SnapshotRef> snapshots_;
  uint64_t last_gc_ = 0;
  uint64_t tags_ = 0;
  std::string first_, second_, gc_, last_;
  std::vector<CheckFinding> findings_;
  CheckProgress progress_;
};

TEST_F(VolumeCheckTest, FindsNothingInASoundVolume) {
  make_volume();
  const Result<CheckTotals> done = run();
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_TRUE(findings_.empty());
  EXPECT_EQ(done->data_objects, 4U);
  EXPECT_EQ(done->frames, 3U + 2U + 3U + 1U);
  EXPECT_EQ(done->mapped_bytes, (40U + 23U + 33U + 1U) * kBlockBytes);
  EXPECT_EQ(done->rounds, 1U);
  EXPECT_EQ(progress_.objects, 4U);
  EXPECT_EQ(progress_.bytes, progress_.bytes_total);
}

TEST_F(VolumeCheckTest, FindsNothingInAnEmptyVolume) {
  publish();
  const Result<CheckTotals> done = run();
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_TRUE(findings_.empty());
}

TEST_F(VolumeCheckTest, NamesTheLiveBlocksOfADamagedFrame) {
  make_volume();
  flip(first_, sizeof(layout::Header) + 20);
  const CheckFinding found = finding();
  EXPECT_EQ(found.object, first_);
  EXPECT_TRUE(found.exact);
  EXPECT_EQ(found.ranges, (std::vector{bytes(0, 5), bytes(7, 9)}));
}

TEST_F(VolumeCheckTest, NamesOnlyWhatTheVolumeHasOfItsLastBlock) {
  make_volume();
  flip(last_, sizeof(layout::Header) + 20);
  const CheckFinding found = finding();
  EXPECT_EQ(found.ranges,
            (std::vector{bytes(5, 2), ByteRange((kBlocks - 1) * kBlockBytes, kBlockBytes - 512)}));
}

TEST_F(VolumeCheckTest, NamesWhatAMissingObjectOfTheCheckpointHeld) {
  make_volume();
  container_->objects.erase(gc_);
  const CheckFinding found = finding();
  EXPECT_EQ(found.object, gc_);
  EXPECT_EQ(found.what, "is missing");
  EXPECT_TRUE(found.exact);
  EXPECT_EQ(found.ranges, std::vector{bytes(2 * kPageBlocks, 33)});
}

TEST_F(VolumeCheckTest, NamesWhatAnObjectWithoutItsDirectoryHeld) {
  make_volume();
  object(second_).resize(object(second_).size() - 1);
  const CheckFinding found = finding();
  EXPECT_EQ(found.object, second_);
  EXPECT_TRUE(found.exact);
  EXPECT_EQ(found.ranges, (std::vector{bytes(100, 3), bytes(kPageBlocks + 7, 20)}));
}

TEST_F(VolumeCheckTest, CallsEverythingUncertainWhenAnObjectBehindTheCheckpointIsMissing) {
  make_volume();
  const std::string missing = write({{200, 1}});
  write({{0, 10}});
  publish();
  container_->objects.erase(missing);
  const CheckFinding found = finding();
  EXPECT_EQ(found.object, missing);
  EXPECT_FALSE(found.exact);
  EXPECT_EQ(found.ranges, std::vector{ByteRange(10 * kBlockBytes, head_.size - 10 * kBlockBytes)});
}

TEST_F(VolumeCheckTest, NamesTheObjectWhoseBlocksTheMapMistakes) {
  make_volume();
  // As if two blocks had changed places in the map when it was stored.
  const Location moved = map_.find({2 * kPageBlocks, 1}).front().location;
  map_.set({2 * kPageBlocks, 1}, {moved.slot, moved.position + 1}, replaced());
  map_.set({2 * kPageBlocks + 1, 1}, {moved.slot, moved.position}, replaced());
  table_.add_live(moved.slot, 2);
  checkpoint();
  publish();
  const CheckFinding found = finding();
  EXPECT_EQ(found.object, gc_);
  EXPECT_EQ(found.what, "does not hold what the map has in it");
  EXPECT_EQ(found.ranges, std::vector{bytes(2 * kPageBlocks, 2)});
}

TEST_F(VolumeCheckTest, CallsTheVolumeUncertainWithoutItsRoot) {
  make_volume();
  const std::string root = map_name("vol", head_.root.epoch, head_.root.id);
  flip(root, head_.root.offset + 40);
  const CheckFinding found = finding();
  EXPECT_EQ(found.object, root);
  EXPECT_FALSE(found.exact);
  // What the object behind it wrote is known.
  EXPECT_EQ(found.ranges, (std::vector{bytes(0, 5), bytes(7, kBlocks - 8)}));
}

TEST_F(VolumeCheckTest, LosesOnlyThePartOfADamagedPageOfTheMap) {
  make_volume();
  const std::string name = map_name("vol", head_.root.epoch, head_.root.id);
  flip(name, kMapHeaderBytes + kPiecePrefixBytes + 3);  // the first piece: page 0
  const CheckFinding found = finding();
  EXPECT_EQ(found.object, name);
  EXPECT_FALSE(found.exact);
  EXPECT_EQ(found.ranges, (std::vector{bytes(0, 5), bytes(7, kPageBlocks - 7)}));
}

TEST_F(VolumeCheckTest, LosesTheObjectsOfADamagedPageOfTheTable) {
  make_volume();
  const std::string name = map_name("vol", head_.root.epoch, head_.root.id);
  // Three pages of the map, then the one of the table, then the root.
  flip(name, head_.root.offset - 10);
  const Result<CheckTotals> done = run();
  ASSERT_TRUE(done) << done.error().message();
  ASSERT_EQ(findings_.size(), 2U);
  EXPECT_EQ(findings_[0].object, name);
  EXPECT_EQ(findings_[0].bytes, 0U);
  EXPECT_EQ(findings_[1].what, "the map names objects that the object table does not know");
  EXPECT_EQ(findings_[1].ranges,
            (std::vector{bytes(0, 5), bytes(7, 33), bytes(100, 3), bytes(kPageBlocks + 7, 20),
                         bytes(2 * kPageBlocks, 33)}));
}

TEST_F(VolumeCheckTest, SaysThatAHeaderAtTheStartIsDamagedAndCostsNothing) {
  make_volume();
  flip(first_, 50);
  const CheckFinding found = finding();
  EXPECT_EQ(found.bytes, 0U);
  EXPECT_TRUE(found.exact);
  EXPECT_NE(found.what.find("header at its start is damaged"), std::string::npos) << found.what;
}

TEST_F(VolumeCheckTest, SaysThatAnObjectWasPutInPlaceOfAnother) {
  make_volume();
  object(first_) = object(second_);
  const CheckFinding found = finding();
  EXPECT_EQ(found.object, first_);
  EXPECT_NE(found.what.find("instead"), std::string::npos) << found.what;
  EXPECT_EQ(found.ranges, (std::vector{bytes(0, 5), bytes(7, 33)}));
}

TEST_F(VolumeCheckTest, GoesOnWithTheNewHeadWhenObjectsVanish) {
  make_volume();
  bool changed = false;
  // Garbage collection, in the midst: the first object's blocks are elsewhere, and it is gone.
  store_.before_get = [this, &changed](const std::string& name) -> std::optional<Error> {
    if (name != second_ || std::exchange(changed, true)) return std::nullopt;
    container_->objects.erase(first_);
    return std::nullopt;
  };
  const uint32_t slot = table_.find({1, 1});
  const std::string moved = write({{0, 5}, {7, 33}}, ObjectKind::kGc);
  table_.set_pending(slot, 1);
  const RootPointer before = head_.root;
  checkpoint();
  const std::vector<std::byte> after = encode(head_, key_);
  head_.root = before;
  publish();
  // The head changes with the first look at it after the object has gone.
  const StoreUnderTest::Hook vanish = store_.before_get;
  store_.before_get = [&, vanish](const std::string& name) {
    if (name == "vol/head" && changed) put(name, after);
    return vanish(name);
  };
  const Result<CheckTotals> done = run();
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_TRUE(changed);
  EXPECT_TRUE(findings_.empty());
  EXPECT_EQ(done->rounds, 2U);
}

TEST_F(VolumeCheckTest, ChecksASnapshotAsItWas) {
  first_ = write({{0, 40}});
  second_ = write({{100, 3}});
  snapshot();
  last_ = write({{0, 20}});
  checkpoint();
  publish();
  EXPECT_EQ(*loop_.run(read_snapshots(ImagePlace(store_, "vol", key_), head_)), snapshots_);
  std::set<ObjectId> proven;
  Result<CheckTotals> done = run_snapshot(snapshots_[0], proven);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_TRUE(findings_.empty());
  EXPECT_EQ(done->mapped_bytes, 43 * kBlockBytes);
  EXPECT_EQ(done->frames, 4U);
  EXPECT_EQ(proven.size(), 2U);
  done = run_snapshot(snapshots_[0], proven);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->frames, 0U);
  proven.clear();
  // The volume does not need the first frame of this any more.
  flip(first_, sizeof(layout::Header) + 20);
  ASSERT_TRUE(run_snapshot(snapshots_[0], proven));
  ASSERT_EQ(findings_.size(), 1U);
  EXPECT_EQ(findings_[0].object, first_);
  EXPECT_EQ(findings_[0].ranges, std::vector{bytes(0, 16)});
  EXPECT_EQ(proven.size(), 1U);
  container_->objects.erase(first_);
  ASSERT_TRUE(run_snapshot(snapshots_[0], proven));
  ASSERT_EQ(findings_.size(), 1U);
  EXPECT_EQ(findings_[0].what, "is missing");
  EXPECT_EQ(findings_[0].ranges, std::vector{bytes(0, 40)});
}

TEST_F(VolumeCheckTest, SaysThatASnapshotIsGone) {
  first_ = write({{0, 40}});
  snapshot();
  checkpoint();
  publish();
  const SnapshotRef gone = std::exchange(snapshots_, {}).front();
  checkpoint();
  publish();
  container_->objects.erase(first_);
  std::set<ObjectId> proven;
  const Result<CheckTotals> done = run_snapshot(gone, proven);
  ASSERT_FALSE(done);
  EXPECT_TRUE(done.error().is(Errc::kNotFound)) << done.error().message();
  const Result<std::unique_ptr<VolumeImage>> image =
      loop_.run(load_snapshot(ImagePlace(store_, "vol", key_), head_, gone.number, {}));
  ASSERT_FALSE(image);
  EXPECT_TRUE(image.error().is(Errc::kNotFound)) << image.error().message();
}

TEST_F(VolumeCheckTest, EndsWhenTheStoreCannotBeReached) {
  make_volume();
  store_.before_get = [this](const std::string& name) -> std::optional<Error> {
    if (name != gc_) return std::nullopt;
    store_.away = true;
    return Error(Errc::kIo, "connection refused");
  };
  const Result<CheckTotals> done = run();
  ASSERT_FALSE(done);
  EXPECT_TRUE(done.error().is(Errc::kIo));
  EXPECT_TRUE(findings_.empty());
}

TEST_F(VolumeCheckTest, CallsAnObjectDamagedThatOnlyItselfCannotBeRead) {
  make_volume();
  store_.before_get = [this](const std::string& name) -> std::optional<Error> {
    if (name != gc_) return std::nullopt;
    return Error(Errc::kDamaged, "the object is damaged");
  };
  EXPECT_EQ(finding().ranges, std::vector{bytes(2 * kPageBlocks, 33)});
}

TEST_F(VolumeCheckTest, EndsAtOnceWhenAStoreIsTooSlow) {
  make_volume();
  store_.before_get = [this](const std::string& name) -> std::optional<Error> {
    if (name != last_) return std::nullopt;
    return Error(Errc::kTimedOut, "slow");
  };
  const Result<CheckTotals> done = run();
  ASSERT_FALSE(done);
  EXPECT_TRUE(done.error().is(Errc::kTimedOut));
}

TEST_F(VolumeCheckTest, RefusesAHeadThatNamesMoreObjectsThanThereCanBe) {
  make_volume();
  head_.last_seq = uint64_t{1} << 60U;
  publish();
  const Result<CheckTotals> done = run();
  ASSERT_FALSE(done);
  EXPECT_TRUE(done.error().is(Errc::kInvalid));
}

TEST_F(VolumeCheckTest, RefusesAHeadOfAVolumeWhoseMapWouldFillTheMemory) {
  head_.size = uint64_t{1} << 62U;
  publish();
  const Result<CheckTotals> done = run();
  ASSERT_FALSE(done);
  EXPECT_TRUE(done.error().is(Errc::kInvalid));
}

TEST_F(VolumeCheckTest, EndsALoadWithTheFirstLossIfNobodyWantsToKnow) {
  make_volume();
  container_->objects.erase(last_);
  const ImagePlace place(store_, "vol", key_);
  const Result<std::unique_ptr<VolumeImage>> image =
      loop_.run(VolumeImage::load(place, head_, VolumeImage::OnLost()));
  ASSERT_FALSE(image);
  EXPECT_TRUE(image.error().is(Errc::kNotFound));
}

TEST(BlockSet, AddsRemovesAndFinds) {
  BlockSet set;
  set.add({10, 10});
  set.add({30, 5});
  set.add({20, 2});
  EXPECT_EQ(set.within({0, 100}), (std::vector<BlockRange>{{10, 12}, {30, 5}}));
  set.remove({12, 20});
  EXPECT_EQ(set.within({0, 100}), (std::vector<BlockRange>{{10, 2}, {32, 3}}));
  set.remove({33, 1});
  EXPECT_EQ(set.within({11, 22}), (std::vector<BlockRange>{{11, 1}, {32, 1}}));
  EXPECT_EQ(set.within({0, 100}), (std::vector<BlockRange>{{10, 2}, {32, 1}, {34, 1}}));
  set.remove({0, 100});
  EXPECT_TRUE(set.empty());
}

}  // namespace
}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints and garbage collection of a volume, where numbers matter: how many requests an
// opening needs, when something is deleted and when not, what a failure leaves behind. That no
// data is lost by any of it is the business of volume_sim_test.

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/objstore/names.h"
#include "devices/objstore/volume.h"
#include "journal/format.h"
#include "sim/sim_disk.h"
#include "sim/sim_store.h"
#include "sim/toy_sealer.h"

namespace usbd::sim {
namespace {

using objects::CallLimits;
using objects::Condition;
using objects::Part;
using objstore::kBlockBytes;
using objstore::Volume;
using ::testing::HasSubstr;

constexpr Nanos kSecond{1'000'000'000};

/// Refuses to take what begins with a prefix, while that is set.
class PickyStore final : public objects::ObjectStore {
 public:
  PickyStore(std::unique_ptr<objects::ObjectStore> inner, const std::string& refused)
      : inner_(std::move(inner)), refused_(refused) {}
  [[nodiscard]] std::string name() const override { return inner_->name(); }
  [[nodiscard]] objects::Abilities abilities() const override { return inner_->abilities(); }
  Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                CallLimits limits) override {
    if (!refused_.empty() && name.starts_with(refused_)) {
      co_await Loop::current().sleep_for(kSecond / 100);
      co_return Error(Errc::kAgain, name + ": refused");
    }
    co_return co_await inner_->put(std::move(name), data, std::move(condition), limits);
  }
  Task<Result<objects::Fetched>> get(std::string name, Part part, CallLimits limits) override {
    return inner_->get(std::move(name), part, limits);
  }
  Task<Result<objects::ObjectInfo>> head(std::string name, CallLimits limits) override {
    return inner_->head(std::move(name), limits);
  }
  Task<Result<objects::ListPage>> list(std::string prefix, std::string after, size_t most,
                                       CallLimits limits) override {
    return inner_->list(std::move(prefix), std::move(after), most, limits);
  }
  Task<Result<void>> remove(std::string name, CallLimits limits) override {
    return inner_->remove(std::move(name), limits);
  }
  Task<void> close() override { return inner_->close(); }

 private:
  std::unique_ptr<objects::ObjectStore> inner_;
  const std::string& refused_;
};

class VolumeSpace : public ::testing::Test {
 protected:
  VolumeSpace() {
    options.name = "vol";
    options.size = 1400 * kBlockBytes;
    options.cipher = crypto::CipherMode::kIdentity;
    options.flush_mode = objstore::FlushMode::kRemote;
    options.journal_bytes = 256 * journal::kBlock;
    options.journal_payload_max = 8;
    options.space.clean.target = 0;
    options.space.sweeps = false;
    store.on_event([this](uint64_t, const StoreEvent& event) {
      if (event.ended) return;
      if (event.op == StoreOp::kGet) ++gets;
      if (event.op == StoreOp::kRemove) removed[event.name] = loop.now();
    });
  }

  template <typename T>
  T run(Task<T> task) {
    std::optional<T> result = loop.run(std::move(task));
    EXPECT_TRUE(result.has_value()) << "it hangs";
    return *std::move(result);
  }

  Result<void> open() {
    folder = disk.attach();
    client = std::make_unique<PickyStore>(store.attach(), refused);
    const objstore::VolumeParts parts{
        .store = *client, .folder = folder.get(), .rng = rng, .journal_sealer = toy_sealer};
    gets = 0;
    const Nanos begun = loop.now();
    USBD_TRY(volume, run(Volume::open(parts, options)));
    opened_in = loop.now() - begun;
    return {};
  }
  Result<void> close() {
    Result<void> closed = run(volume->close(std::stop_token()));
    volume.reset();
    return closed;
  }
  /// As a crash does; the disk keeps what was synced.
  void kill() {
    store.kill(store.last_life());
    disk.kill_process();
    volume->abandon();
    std::stop_source stop;
    stop.request_stop();
    EXPECT_FALSE(run(volume->close(stop.get_token())));
    volume.reset();
  }
  /// One object for each block.
  void write(uint64_t first, uint64_t count, int content) {
    const std::vector<std::byte> data(kBlockBytes, std::byte(content));
    for (uint64_t block = first; block < first + count; ++block) {
      ASSERT_TRUE(run(volume->write(block, data)));
      ASSERT_TRUE(run(volume->flush()));
    }
  }
  void expect(uint64_t first, uint64_t count, int content) {
    std::vector<std::byte> data(count * kBlockBytes);
    const Result<void> read = run(volume->read(first, data));
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(data, std::vector<std::byte>(data.size(), std::byte(content)));
  }
  Task<bool> sleep(Nanos time) {
    co_await loop.sleep_for(time);
    co_return true;
  }
  Task<void> come_late(SimStore::Object head) {
    co_await loop.sleep_for(kSecond);
    store.objects()["vol/head"] = std::move(head);
  }
  void wait(Nanos time) { EXPECT_TRUE(run(sleep(time))); }
  [[nodiscard]] size_t count(std::string_view prefix) {
    size_t found = 0;
    for (const auto& [name, object] : store.objects()) found += name.starts_with(prefix) ? 1U : 0U;
    return found;
  }

  SeededRng rng{1};
  SimLoop loop{{.seed = 1}};
  SimStore store{loop, {.seed = 2}};
  SimDisk disk{loop, {.seed = 3}};
  objstore::VolumeOptions options;
  std::string refused;
  std::unique_ptr<Folder> folder;
  std::unique_ptr<objects::ObjectStore> client;
  std::unique_ptr<Volume> volume;
  uint64_t gets = 0;
  Nanos opened_in{0};
  std::map<std::string, Nanos> removed;
};

TEST_F(VolumeSpace, OpensWithAsFewRequestsWhateverTheNumberOfObjects) {
  ASSERT_TRUE(open());
  write(0, 1200, 1);
  EXPECT_EQ(volume->state().objects, 1200U);
  ASSERT_TRUE(close());
  EXPECT_EQ(count("vol/d/"), 1200U);
  ASSERT_TRUE(open());
  EXPECT_LT(gets, 10U);
  EXPECT_LT(opened_in, kSecond * 2);
  EXPECT_EQ(volume->state().objects, 1200U);
  expect(0, 1, 1);
  expect(1199, 1, 1);
  expect(1200, 200, 0);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, ReadsOnlyTheObjectsAfterTheLastCheckpoint) {
  options.space.replay_objects = 50;
  ASSERT_TRUE(open());
  write(0, 330, 1);
  EXPECT_GE(volume->state().checkpoints_made, 6U);
  kill();
  ASSERT_TRUE(open());
  EXPECT_LE(gets, 60U);
  expect(0, 330, 1);
  EXPECT_EQ(volume->state().objects, 330U);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, IsOpenedAsOftenAsOneLikes) {
  for (int life = 0; life < 150; ++life) {
    const Result<void> opened = open();
    ASSERT_TRUE(opened) << life << ": " << opened.error().message();
    write(static_cast<uint64_t>(life) % 7, 1, life);
    kill();
  }
  ASSERT_TRUE(open());
  EXPECT_LT(volume->head().epochs.size(), 40U);
  for (uint64_t block = 0; block < 7; ++block) {
    const auto last = static_cast<int>(block <= 149 % 7 ? 147 + block : 140 + block);
    expect(block, 1, last);
  }
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, PublishesNothingThatWouldLeaveNoRoomForTheNextEpoch) {
  refused = "vol/m/";
  options.flush_mode = objstore::FlushMode::kLocal;
  for (size_t life = 0; life < objstore::kEpochStartsMax + 10; ++life) {
    const Result<void> opened = open();
    ASSERT_TRUE(opened) << life << ": " << opened.error().message();
    const std::vector<std::byte> data(kBlockBytes, std::byte(life));
    ASSERT_TRUE(run(volume->write(life, data)));
    ASSERT_TRUE(run(volume->flush()));
    wait(kSecond * 15);  // past -objstore-flushevery
    kill();
  }
  refused.clear();
  ASSERT_TRUE(open());
  EXPECT_EQ(volume->head().epochs.size(), objstore::kEpochStartsMax);
  ASSERT_TRUE(run(volume->publish_all()));
  EXPECT_LT(volume->head().epochs.size(), 3U);
  for (size_t life = 0; life < objstore::kEpochStartsMax + 10; ++life) {
    expect(life, 1, static_cast<int>(life));
  }
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, GoesOnWithTheLastCheckpointWhileNewOnesFail) {
  options.space.replay_objects = 10;
  ASSERT_TRUE(open());
  write(0, 20, 1);
  wait(kSecond);
  const uint64_t before = volume->state().checkpoint;
  EXPECT_GT(before, 0U);
  refused = "vol/m/";
  write(0, 100, 2);
  wait(kSecond * 30);
  EXPECT_EQ(volume->state().checkpoint, before);
  kill();
  ASSERT_TRUE(open());
  EXPECT_EQ(volume->state().checkpoint, before);
  expect(0, 100, 2);
  refused.clear();
  wait(kSecond * 100);
  EXPECT_GT(volume->state().checkpoint, before);
  expect(0, 100, 2);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, ACloseIsNotHeldUpByACheckpointThatFails) {
  ASSERT_TRUE(open());
  write(0, 20, 1);
  refused = "vol/m/";
  ASSERT_TRUE(close());
  refused.clear();
  ASSERT_TRUE(open());
  EXPECT_EQ(volume->state().checkpoint, 0U);
  EXPECT_GE(gets, 20U);
  expect(0, 20, 1);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, DeletesNothingBeforeItsTime) {
  ASSERT_TRUE(open());
  write(0, 1, 1);
  write(0, 1, 2);
  const std::string name = objstore::data_name("vol", {.epoch = 2, .seq = 1});
  ASSERT_TRUE(store.objects().contains(name));
  const Nanos emptied = loop.now();
  EXPECT_EQ(volume->state().objects_to_delete, 1U);
  uint64_t named = 0;
  std::optional<Nanos> named_at;
  while (removed.empty() && loop.now() - emptied < kSecond * 400) {
    wait(kSecond);
    const uint64_t now = volume->state().checkpoint;
    if (now > 0 && !named_at) named_at = loop.now();
    named = now;
  }
  ASSERT_TRUE(removed.contains(name));
  wait(kSecond);
  EXPECT_FALSE(store.objects().contains(name));
  ASSERT_TRUE(named_at);
  // Since a checkpoint says so, give or take what this test sleeps, and with one more.
  EXPECT_GE(removed[name] - *named_at, kSecond * 58);
  EXPECT_GE(named, 2U);
  EXPECT_EQ(volume->state().objects_deleted, 1U);
  expect(0, 1, 2);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, DeletesAfterReopeningWhatWasListedBefore) {
  ASSERT_TRUE(open());
  write(0, 1, 1);
  write(0, 1, 2);
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  EXPECT_EQ(volume->state().objects_to_delete, 1U);
  wait(kSecond * 59);
  EXPECT_TRUE(removed.empty());
  wait(kSecond * 120);
  EXPECT_EQ(volume->state().objects_to_delete, 0U);
  EXPECT_EQ(count("vol/d/"), 1U);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, MergesManySmallObjects) {
  options.space.clean = {};
  ASSERT_TRUE(open());
  write(0, 400, 3);
  wait(kSecond * 300);
  const objstore::VolumeState state = volume->state();
  EXPECT_GE(state.objects_cleaned, 300U);
  EXPECT_LT(state.objects, 100U);
  EXPECT_LT(count("vol/d/"), 100U);
  expect(0, 400, 3);
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  expect(0, 400, 3);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, TakesLittleMoreThanItsTarget) {
  options.flush_mode = objstore::FlushMode::kLocal;
  options.object_bytes = 64 * kBlockBytes;
  options.space.clean.target = 1.4;
  options.space.clean.waste_min = 64 * kBlockBytes;
  options.space.clean.small_objects = 0;
  options.space.delete_after = kSecond;
  ASSERT_TRUE(open());
  std::map<uint64_t, int> written;
  std::vector<std::byte> data(kBlockBytes);
  for (int i = 0; i < 12'000; ++i) {
    const uint64_t block = rng.below(1024);
    written[block] = i % 251;
    data.assign(kBlockBytes, std::byte(i % 251));
    ASSERT_TRUE(run(volume->write(block, data)));
  }
  ASSERT_TRUE(run(volume->publish_all()));
  wait(kSecond * 60);
  const objstore::VolumeState state = volume->state();
  EXPECT_LE(static_cast<double>(state.stored_bytes),
            1.4 * static_cast<double>(state.live_bytes) + 64 * kBlockBytes);
  uint64_t stored = 0;
  for (const auto& [name, object] : store.objects()) stored += object.data.size();
  EXPECT_LT(stored, 2 * 1024 * kBlockBytes);
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  for (const auto& [block, content] : written) expect(block, 1, content);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, WhoOnlyReadsFollowsTheOwnerWhoDeletes) {
  options.space.delete_after = kSecond;
  ASSERT_TRUE(open());
  write(0, 10, 1);
  objstore::VolumeOptions reading = options;
  reading.read_only = true;
  const std::unique_ptr<objects::ObjectStore> other = store.attach();
  const objstore::VolumeParts parts{.store = *other, .rng = rng};
  Result<std::unique_ptr<Volume>> reader = run(Volume::open(parts, reading));
  ASSERT_TRUE(reader);
  write(0, 10, 2);
  wait(kSecond * 20);
  EXPECT_EQ(count("vol/d/"), 10U);
  std::vector<std::byte> data(10 * kBlockBytes);
  const Result<void> read = run((*reader)->read(0, data));
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(data, std::vector<std::byte>(data.size(), std::byte(2)));
  EXPECT_TRUE(run((*reader)->close(std::stop_token())));
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, RemovesWhatProcessesBeforeHaveLeftBehind) {
  ASSERT_TRUE(open());
  write(0, 3, 1);
  ASSERT_TRUE(close());
  const auto copy = [this](std::string_view prefix, const std::string& to) {
    const auto from = store.objects().lower_bound(prefix);
    store.objects()[to] = SimStore::Object(from->second);
  };
  const std::string orphan = objstore::data_name("vol", {.epoch = 2, .seq = 77});
  const std::string ours = objstore::data_name("vol", {.epoch = 90, .seq = 1});
  const std::string foreign = objstore::data_name("vol", {.epoch = 1, .seq = 5});
  const std::string unknown = "vol/d/0000000000000001/note";
  copy("vol/d/", orphan);
  copy("vol/d/", ours);
  copy("vol/m/", foreign);
  copy("vol/d/", unknown);
  options.space.sweeps = true;
  ASSERT_TRUE(open());
  wait(kSecond * 30);
  EXPECT_TRUE(store.objects().contains(orphan));
  wait(kSecond * 60);
  EXPECT_FALSE(store.objects().contains(orphan));
  EXPECT_TRUE(store.objects().contains(ours));
  EXPECT_TRUE(store.objects().contains(foreign));
  EXPECT_TRUE(store.objects().contains(unknown));
  EXPECT_EQ(count("vol/m/"), 1U);
  expect(0, 3, 1);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, SaysThatACheckpointIsDamaged) {
  ASSERT_TRUE(open());
  write(0, 3, 1);
  ASSERT_TRUE(close());
  SimStore::Object& object = store.objects().lower_bound("vol/m/")->second;
  object.data[150] ^= std::byte{1};
  const Result<void> damaged = open();
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().message(), HasSubstr("checkpoint object vol/m/"));
  store.objects().erase(store.objects().lower_bound("vol/m/"));
  const Result<void> gone = open();
  ASSERT_FALSE(gone);
  // Damage; kNotFound would say that there is no such volume.
  EXPECT_TRUE(gone.error().is(Errc::kIo)) << gone.error().message();
  EXPECT_THAT(gone.error().message(), HasSubstr("the store has it no more"));
}

TEST_F(VolumeSpace, KeepsTheEndOfAnOddSize) {
  options.size = (1025 * kBlockBytes) + 512;
  options.logical_block_size = 512;
  ASSERT_TRUE(open());
  EXPECT_EQ(volume->blocks(), 1026U);
  write(1020, 6, 9);
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  EXPECT_LT(gets, 10U);
  expect(1020, 6, 9);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, HasASizeOfWholeBlocks) {
  options.size = (1025 * kBlockBytes) + 512;
  options.logical_block_size = 4096;
  ASSERT_TRUE(open());
  EXPECT_EQ(volume->size(), 1026 * kBlockBytes);
  write(1020, 6, 9);
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  EXPECT_EQ(volume->size(), 1026 * kBlockBytes);
  expect(1020, 6, 9);
  ASSERT_TRUE(close());
}

/// A process died while it took the epoch; what it had asked for took effect when the next process
/// had removed its journal, which was empty: the volume was then another host's, which nobody was.
TEST_F(VolumeSpace, Regression_AnEmptyJournalIsKeptThatTheHeadMayStillName) {
  options.flush_mode = objstore::FlushMode::kLocal;
  ASSERT_TRUE(open());
  ASSERT_TRUE(close());
  const SimStore::Object before = store.objects().at("vol/head");
  disk.restore({});
  ASSERT_TRUE(open());
  const objstore::Nonce journal = volume->head().journal;
  const SimStore::Object late = store.objects().at("vol/head");
  kill();
  // As if it had not taken effect yet.
  store.objects()["vol/head"] = before;
  disk.lose("head.seen");
  refused = "vol/head";
  loop.spawn(come_late(late));
  const Result<void> opened = open();
  ASSERT_FALSE(opened) << "the head has changed under it";
  refused.clear();
  ASSERT_TRUE(open());
  EXPECT_EQ(disk.files().size(), 2U) << "one journal, and head.seen";
  EXPECT_TRUE(volume->head().journal == journal);
  ASSERT_TRUE(close());
}

/// Its newest superblock was misread once, the one before it counted, and the journal was put aside
/// as another epoch's: with it went what had been flushed.
TEST_F(VolumeSpace, Regression_AJournalBehindTheHeadStaysWhereItIs) {
  options.flush_mode = objstore::FlushMode::kLocal;
  ASSERT_TRUE(open());
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  ASSERT_TRUE(run(volume->write(7, std::vector<std::byte>(kBlockBytes, std::byte(9)))));
  ASSERT_TRUE(run(volume->flush()));
  kill();
  const std::vector<std::string> files = disk.files();
  const auto ring = std::ranges::find_if(
      files, [](const std::string& name) { return name.starts_with("journal-"); });
  ASSERT_NE(ring, files.end());
  const Bytes bytes = *disk.contents(*ring);
  const auto first = journal::parse_superblock(bytes.first(journal::kBlock));
  const auto second = journal::parse_superblock(bytes.subspan(journal::kBlock, journal::kBlock));
  ASSERT_TRUE(first && second);
  disk.misread(*ring, first->generation > second->generation ? 20 : journal::kBlock + 20, 3);
  const Result<void> opened = open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message(), HasSubstr("it is damaged, or an older copy of it"));
  EXPECT_EQ(disk.files(), files);
  disk.reads_well();
  ASSERT_TRUE(open());
  expect(7, 1, 9);
  ASSERT_TRUE(close());
}

// --- faults that other block devices over object stores had

TEST_F(VolumeSpace, AFlushAfterAFailedUploadFailsAsWellAndNothingIsForgotten) {
  options.timeout = 2 * kSecond;
  options.cache_bytes = kBlockBytes;
  ASSERT_TRUE(open());
  refused = "vol/d/";
  const std::vector<std::byte> data(kBlockBytes, std::byte(7));
  for (uint64_t block = 5; block < 20; ++block) ASSERT_TRUE(run(volume->write(block, data)));
  for (int i = 0; i < 3; ++i) {
    const Result<void> flushed = run(volume->flush());
    ASSERT_FALSE(flushed) << i;
    EXPECT_TRUE(flushed.error().is(Errc::kTimedOut));
    expect(5, 15, 7);
  }
  kill();
  ASSERT_TRUE(open());
  expect(5, 15, 7);
  refused.clear();
  wait(kSecond * 10);
  EXPECT_TRUE(run(volume->flush()));
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  expect(5, 15, 7);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSpace, ZerosAreTakenWhereNothingIsCached) {
  ASSERT_TRUE(open());
  write(0, 8, 3);
  ASSERT_TRUE(close());
  for (const objstore::ExtentKind kind :
       {objstore::ExtentKind::kZero, objstore::ExtentKind::kTrim}) {
    ASSERT_TRUE(open());
    const uint64_t first = kind == objstore::ExtentKind::kZero ? 1 : 5;
    ASSERT_TRUE(run(volume->clear(objstore::BlockRange(first, 2), kind)));
    ASSERT_TRUE(run(volume->flush()));
    kill();
    ASSERT_TRUE(open());
    expect(first, 2, 0);
    expect(first + 2, 1, 3);
    ASSERT_TRUE(close());
  }
}

TEST_F(VolumeSpace, TwoTebibytesAreTrimmedAtOnce) {
  options.size = uint64_t{2} << 40U;
  ASSERT_TRUE(open());
  const uint64_t last = volume->blocks() - 1;
  write(0, 3, 4);
  write(last, 1, 4);
  const Nanos begun = loop.now();
  const objstore::BlockRange all(0, volume->blocks());
  ASSERT_TRUE(run(volume->clear(all, objstore::ExtentKind::kTrim)));
  ASSERT_TRUE(run(volume->flush()));
  EXPECT_LT(loop.now() - begun, 5 * kSecond);
  expect(0, 3, 0);
  expect(last, 1, 0);
  write(7, 1, 5);
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  expect(7, 1, 5);
  expect(last, 1, 0);
  EXPECT_EQ(volume->state().live_bytes > 0, true);
  ASSERT_TRUE(close());
}

}  // namespace
}  // namespace usbd::sim

// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of a volume: what they hold, what is kept for them and when it goes; and histories that
// take, delete and compare them while everything fails, with the proof that these find what they
// are for.

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/sanitized.h"
#include "devices/objstore/names.h"
#include "devices/objstore/volume.h"
#include "devices/objstore/volume_check.h"
#include "sim/run.h"
#include "sim/sim_disk.h"
#include "sim/sim_store.h"
#include "sim/toy_sealer.h"
#include "sim/volume_history.h"

namespace usbd::sim {
namespace {

using objstore::FlushMode;
using objstore::kBlockBytes;
using objstore::SnapshotRef;
using objstore::Volume;
using objstore::VolumeRule;
using ::testing::HasSubstr;

constexpr Nanos kSecond{1'000'000'000};

class VolumeSnapshot : public ::testing::Test {
 protected:
  VolumeSnapshot() {
    options.name = "vol";
    options.size = 1400 * kBlockBytes;
    options.cipher = crypto::CipherMode::kIdentity;
    options.flush_mode = FlushMode::kRemote;
    options.journal_bytes = 256 * journal::kBlock;
    options.journal_payload_max = 8;
    options.space.clean.target = 0;
    options.space.sweeps = false;
    options.space.delete_after = kSecond;
  }

  template <typename T>
  T run(Task<T> task) {
    std::optional<T> result = loop.run(std::move(task));
    EXPECT_TRUE(result.has_value()) << "it hangs";
    return *std::move(result);
  }

  Result<void> open() {
    folder = disk.attach();
    client = store.attach();
    life = store.last_life();
    const objstore::VolumeParts parts{
        .store = *client, .folder = folder.get(), .rng = rng, .journal_sealer = toy_sealer};
    USBD_TRY(volume, run(Volume::open(parts, options)));
    return {};
  }
  Result<void> close() {
    Result<void> closed = run(volume->close(std::stop_token()));
    volume.reset();
    return closed;
  }
  /// As a crash does; the disk keeps what was synced.
  void kill() {
    store.kill(life);
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
  SnapshotRef take(const std::string& name = "") {
    objstore::SnapshotLabel label{.name = name, .time = 1'700'000'000'000'000'000};
    Result<SnapshotRef> taken = run(volume->snapshot(std::move(label)));
    EXPECT_TRUE(taken) << taken.error().message();
    return taken ? *taken : SnapshotRef();
  }
  Result<void> drop(uint64_t number) { return run(volume->delete_snapshot(number)); }

  [[nodiscard]] objstore::ImagePlace place() const { return {*outside, "vol", {}}; }
  Task<Result<std::vector<std::byte>>> read_snapshot(uint64_t number, uint64_t first,
                                                     uint64_t count) {
    USBD_CO_TRY(const objstore::Head head, co_await objstore::read_head(place()));
    USBD_CO_TRY(const std::unique_ptr<objstore::VolumeImage> image,
                co_await objstore::load_snapshot(place(), head, number, {}));
    objstore::ImageReader reader(place(), *image);
    std::vector<std::byte> data(count * kBlockBytes);
    const Result<void> read = co_await reader.read(first, data);
    co_await reader.close();
    if (!read) co_return read.error();
    co_return data;
  }
  void expect_in(uint64_t number, uint64_t first, uint64_t count, int content) {
    const Result<std::vector<std::byte>> data = run(read_snapshot(number, first, count));
    ASSERT_TRUE(data) << data.error().message();
    EXPECT_EQ(*data, std::vector<std::byte>(data->size(), std::byte(content)));
  }
  Task<bool> sleep(Nanos time) {
    co_await loop.sleep_for(time);
    co_return true;
  }
  void wait(Nanos time) { EXPECT_TRUE(run(sleep(time))); }
  /// Objects of checkpoints that neither the volume nor a snapshot needs.
  Task<Result<size_t>> useless_maps() {
    USBD_CO_TRY(const objstore::Head head, co_await objstore::read_head(place()));
    const objstore::VolumeSeal seal{.volume = head.volume, .cipher = head.cipher, .key = {}};
    objstore::CheckpointReader reader({*outside, "vol", seal}, {});
    std::vector<objstore::PiecePointer> roots{*objstore::to_piece(head.root)};
    USBD_CO_TRY(const std::vector<SnapshotRef> all,
                co_await objstore::read_snapshots(place(), head));
    for (const SnapshotRef& snapshot : all) roots.push_back(snapshot.root);
    std::set<objstore::MapObjectId> needed;
    for (const objstore::PiecePointer& pointer : roots) {
      USBD_CO_TRY(const objstore::CheckpointRoot root, co_await reader.read_root(pointer));
      needed.merge(objstore::map_objects_of(root, pointer.object));
    }
    co_return count("vol/m/") - needed.size();
  }
  void expect_no_useless_maps() {
    const Result<size_t> useless = run(useless_maps());
    ASSERT_TRUE(useless) << useless.error().message();
    EXPECT_EQ(*useless, 0U);
  }
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
  std::unique_ptr<objects::ObjectStore> outside = store.attach();
  std::unique_ptr<Folder> folder;
  std::unique_ptr<objects::ObjectStore> client;
  std::unique_ptr<Volume> volume;
  uint64_t life = 0;
};

TEST_F(VolumeSnapshot, HoldsWhatWasWrittenBefore) {
  ASSERT_TRUE(open());
  write(0, 5, 1);
  const SnapshotRef first = take("first");
  EXPECT_EQ(first.last_write, 5U);
  EXPECT_EQ(first.name, "first");
  EXPECT_EQ(first.time, 1'700'000'000'000'000'000U);
  write(2, 5, 2);
  const SnapshotRef second = take();
  write(0, 10, 3);
  EXPECT_EQ(volume->snapshots(), (std::vector<SnapshotRef>{first, second}));
  wait(kSecond * 300);
  EXPECT_EQ(count("vol/d/"), 5U + 5U + 10U);
  EXPECT_EQ(volume->state().objects_to_delete, 0U);
  EXPECT_EQ(volume->state().objects_held, 10U);
  expect_in(first.number, 0, 5, 1);
  expect_in(first.number, 5, 20, 0);
  expect_in(second.number, 0, 2, 1);
  expect_in(second.number, 2, 5, 2);
  expect_in(second.number, 7, 3, 0);
  expect(0, 10, 3);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, IncludesWhatWasNotPublishedYet) {
  options.flush_mode = FlushMode::kLocal;
  ASSERT_TRUE(open());
  const std::vector<std::byte> data(kBlockBytes, std::byte{7});
  ASSERT_TRUE(run(volume->write(3, data)));
  const SnapshotRef taken = take();
  EXPECT_EQ(taken.last_write, 1U);
  expect_in(taken.number, 3, 1, 7);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, MayBeOfAnEmptyVolume) {
  ASSERT_TRUE(open());
  const SnapshotRef taken = take();
  EXPECT_EQ(taken.last_write, 0U);
  const SnapshotRef again = take();
  EXPECT_GT(again.number, taken.number);
  write(0, 1400, 1);
  expect_in(taken.number, 0, 1400, 0);
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  EXPECT_EQ(volume->snapshots().size(), 2U);
  expect_in(again.number, 0, 1400, 0);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, SurvivesCrashesAndStops) {
  ASSERT_TRUE(open());
  write(0, 5, 1);
  const SnapshotRef taken = take();
  kill();
  for (int turn = 0; turn < 6; ++turn) {
    options.space.sweeps = turn % 3 == 2;
    ASSERT_TRUE(open());
    EXPECT_EQ(volume->snapshots(), (std::vector<SnapshotRef>{taken}));
    write(0, 5, 2 + turn);
    wait(kSecond * 200);
    expect_in(taken.number, 0, 5, 1);
    if (turn % 2 == 0) {
      kill();
    } else {
      ASSERT_TRUE(close());
    }
  }
  EXPECT_LE(count("vol/d/"), 10U + 5U);
}

TEST_F(VolumeSnapshot, LetsEverythingGoWhenItIsDeleted) {
  ASSERT_TRUE(open());
  write(0, 5, 1);
  const SnapshotRef first = take();
  write(0, 5, 2);
  const SnapshotRef second = take();
  write(0, 5, 3);
  wait(kSecond * 60);
  EXPECT_EQ(count("vol/d/"), 15U);
  ASSERT_TRUE(drop(first.number));
  EXPECT_EQ(volume->snapshots(), (std::vector<SnapshotRef>{second}));
  wait(kSecond * 60);
  EXPECT_EQ(count("vol/d/"), 10U);
  expect_in(second.number, 0, 5, 2);
  ASSERT_TRUE(drop(second.number));
  wait(kSecond * 60);
  EXPECT_EQ(count("vol/d/"), 5U);
  EXPECT_EQ(volume->state().objects_held, 0U);
  ASSERT_TRUE(close());
  options.space.sweeps = true;
  ASSERT_TRUE(open());
  wait(kSecond * 60);
  expect_no_useless_maps();
  ASSERT_TRUE(close());
  const Result<std::vector<std::byte>> gone = run(read_snapshot(first.number, 0, 1));
  ASSERT_FALSE(gone);
  EXPECT_TRUE(gone.error().is(Errc::kNotFound)) << gone.error().message();
}

TEST_F(VolumeSnapshot, IsDeletedInAnyOrder) {
  ASSERT_TRUE(open());
  std::vector<SnapshotRef> all;
  for (int i = 0; i < 5; ++i) {
    write(0, 3, 10 + i);
    write(static_cast<uint64_t>(100 + i), 1, 10 + i);
    all.push_back(take());
  }
  write(0, 3, 99);
  std::set<size_t> left{0, 1, 2, 3, 4};
  for (const size_t next : {2U, 0U, 4U, 3U, 1U}) {
    ASSERT_TRUE(drop(all[next].number));
    left.erase(next);
    wait(kSecond * 60);
    EXPECT_EQ(count("vol/d/"), 5U + 3U + 3U * left.size());
    expect_no_useless_maps();
    for (const size_t i : left) {
      expect_in(all[i].number, 0, 3, static_cast<int>(10 + i));
      expect_in(all[i].number, 100 + i, 1, static_cast<int>(10 + i));
      expect_in(all[i].number, 101 + i, 1, 0);
    }
  }
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, LetsGoAfterACrash) {
  ASSERT_TRUE(open());
  write(0, 5, 1);
  const SnapshotRef taken = take();
  write(0, 5, 2);
  wait(kSecond * 60);
  ASSERT_TRUE(drop(taken.number));
  kill();
  EXPECT_EQ(count("vol/d/"), 10U);
  options.space.sweeps = true;
  ASSERT_TRUE(open());
  EXPECT_TRUE(volume->snapshots().empty());
  wait(kSecond * 60);
  EXPECT_EQ(count("vol/d/"), 5U);
  expect_no_useless_maps();
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, KeepsWhatItNeedsAliveForAFullMinute) {
  options.space.delete_after = kSecond * 60;
  ASSERT_TRUE(open());
  write(0, 1, 1);
  const SnapshotRef taken = take();
  write(0, 1, 2);
  wait(kSecond * 400);
  ASSERT_TRUE(drop(taken.number));
  const uint64_t named = volume->state().checkpoint;
  wait(kSecond * 58);
  EXPECT_EQ(count("vol/d/"), 2U);
  wait(kSecond * 30);
  EXPECT_EQ(count("vol/d/"), 1U);
  EXPECT_GT(volume->state().checkpoint, named);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, DoesNotKeepWhatWasWrittenLater) {
  options.space.clean = {.target = 1.2, .round_bytes = 1U << 20, .waste_min = 1};
  options.space.clean.small_objects = 4;
  ASSERT_TRUE(open());
  write(0, 20, 1);
  wait(kSecond * 60);
  const size_t before = count("vol/");
  const SnapshotRef taken = take();
  for (int i = 0; i < 10; ++i) write(0, 20, 2 + i);
  wait(kSecond * 300);
  const objstore::VolumeState state = volume->state();
  EXPECT_GT(state.objects_cleaned, 0U);
  EXPECT_LE(count("vol/d/") + count("vol/g/"), before + 8);
  expect_in(taken.number, 0, 20, 1);
  expect(0, 20, 11);
  ASSERT_TRUE(close());
  ASSERT_TRUE(open());
  expect_in(taken.number, 0, 20, 1);
  ASSERT_TRUE(drop(taken.number));
  wait(kSecond * 120);
  EXPECT_EQ(volume->state().objects_held, 0U);
  EXPECT_LE(count("vol/d/") + count("vol/g/"), 8U);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, IsNotCleaned) {
  ASSERT_TRUE(open());
  write(0, 100, 1);
  static_cast<void>(take());
  for (uint64_t block = 0; block < 100; ++block) {
    if (block % 10 != 0) write(block, 1, 2);
  }
  ASSERT_TRUE(close());
  options.space.clean = {.target = 1.01, .waste_min = 1};
  options.space.clean.small_objects = 0;
  ASSERT_TRUE(open());
  wait(kSecond * 100);
  EXPECT_EQ(volume->state().objects_cleaned, 0U);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, RefusesNamesThatAreTakenOrCannotBe) {
  ASSERT_TRUE(open());
  static_cast<void>(take("monday"));
  static_cast<void>(take());
  static_cast<void>(take());
  const auto refusal = [this](std::string name) {
    objstore::SnapshotLabel label{.name = std::move(name)};
    const Result<SnapshotRef> taken = run(volume->snapshot(std::move(label)));
    return taken ? std::string("accepted") : taken.error().context();
  };
  EXPECT_THAT(refusal("monday"), HasSubstr("is called monday already"));
  EXPECT_THAT(refusal("a\nb"), HasSubstr("has control characters"));
  EXPECT_THAT(refusal(std::string(57, 'x')), HasSubstr("has 57 bytes, of at most 56"));
  EXPECT_EQ(refusal(std::string(56, 'x')), "accepted");
  const Result<void> unknown = drop(4711);
  ASSERT_FALSE(unknown);
  EXPECT_TRUE(unknown.error().is(Errc::kNotFound));
  EXPECT_EQ(volume->snapshots().size(), 4U);
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, IsListedByWhoOnlyReads) {
  ASSERT_TRUE(open());
  write(0, 3, 1);
  const SnapshotRef taken = take();
  objstore::VolumeOptions reading = options;
  reading.read_only = true;
  const objstore::VolumeParts parts{.store = *outside, .rng = rng};
  Result<std::unique_ptr<Volume>> reader = run(Volume::open(parts, reading));
  ASSERT_TRUE(reader);
  EXPECT_EQ((*reader)->snapshots(), (std::vector<SnapshotRef>{taken}));
  objstore::SnapshotLabel label{};
  const Result<SnapshotRef> refused = run((*reader)->snapshot(std::move(label)));
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().is(Errc::kPerm));
  EXPECT_TRUE(run((*reader)->delete_snapshot(taken.number)).error().is(Errc::kPerm));
  EXPECT_TRUE(run((*reader)->close(std::stop_token())));
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, IsGivenUpWhenTheVolumeCloses) {
  ASSERT_TRUE(open());
  write(0, 3, 1);
  store.be_away_until(loop.now() + kSecond * 100);
  objstore::SnapshotLabel label{.name = "late"};
  std::optional<Result<SnapshotRef>> taken;
  const auto take_it = [](Volume& of, objstore::SnapshotLabel named,
                          std::optional<Result<SnapshotRef>>& out) -> Task<void> {
    out.emplace(co_await of.snapshot(std::move(named)));
  };
  loop.spawn(take_it(*volume, std::move(label), taken));
  wait(kSecond * 10);
  EXPECT_FALSE(taken);
  ASSERT_TRUE(run(volume->close(std::stop_token())));
  wait(kSecond);
  volume.reset();
  ASSERT_TRUE(taken);
  ASSERT_FALSE(*taken);
  EXPECT_TRUE(taken->error().is(Errc::kShutdown)) << taken->error().message();
  ASSERT_TRUE(open());
  EXPECT_TRUE(volume->snapshots().empty());
  static_cast<void>(take("late"));
  ASSERT_TRUE(close());
}

TEST_F(VolumeSnapshot, OfDamagedRootsCanBeDeleted) {
  ASSERT_TRUE(open());
  write(0, 3, 1);
  const SnapshotRef first = take();
  write(0, 3, 2);
  const SnapshotRef second = take();
  const std::string name = objstore::map_name("vol", first.root.object.epoch, first.root.object.id);
  store.objects()[name].data[first.root.offset + 30] ^= std::byte{1};
  EXPECT_FALSE(run(read_snapshot(first.number, 0, 1)));
  ASSERT_TRUE(drop(first.number));
  expect_in(second.number, 0, 3, 2);
  ASSERT_TRUE(close());
  options.space.sweeps = true;
  ASSERT_TRUE(open());
  expect_in(second.number, 0, 3, 2);
  wait(kSecond * 60);
  EXPECT_FALSE(store.objects().contains(name));
  expect_in(second.number, 0, 3, 2);
  ASSERT_TRUE(close());
}

// --- histories
// ------------------------------------------------------------------------------------

VolumeHistoryResult run_many(const char* what, VolumeHistoryOptions options) {
  using R = VolumeHistoryResult;
  const std::vector<Count<R>> counts = {{"crashes", &R::crashes},
                                        {"lost disks", &R::lost_disks},
                                        {"takeovers", &R::takeovers},
                                        {"changes", &R::changes},
                                        {"store faults", &R::store_faults},
                                        {"checkpoints", &R::checkpoints},
                                        {"objects cleaned", &R::cleaned},
                                        {"objects deleted", &R::deleted},
                                        {"snapshots", &R::snapshots},
                                        {"of them deleted", &R::snapshots_deleted},
                                        {"compared", &R::snapshots_compared},
                                        {"cut off", &R::snapshots_cut_off}};
  const std::function<R(uint64_t)> one = [options](uint64_t seed) mutable {
    options.seed = seed;
    return run_volume_history(options);
  };
  return run_histories<R>(what, histories(200), counts, one);
}

TEST(SnapshotSimulation, KeepsEveryBlockOfEverySnapshot) {
  for (const FlushMode mode : {FlushMode::kLocal, FlushMode::kRemote}) {
    const char* const what =
        mode == FlushMode::kLocal ? "snapshots, local flush" : "snapshots, remote flush";
    const VolumeHistoryResult result = run_many(what, {.mode = mode, .snapshots_one_in = 1});
    EXPECT_EQ(result.broken_promise, "");
    if (histories(200) < 50) continue;  // too few to say more
    EXPECT_GT(result.snapshots, 0U);
    EXPECT_GT(result.snapshots_deleted, 0U);
    EXPECT_GT(result.snapshots_cut_off, 0U);
  }
}

struct BrokenRule {
  VolumeRule rule;
  const char* name;
};

class SnapshotOracleTest : public testing::TestWithParam<BrokenRule> {};

TEST_P(SnapshotOracleTest, FindsTheBrokenRule) {
  if (sanitized()) return;  // it is the same there, and takes minutes
  const BrokenRule& broken = GetParam();
  const auto one = [&broken](uint64_t seed) {
    return run_volume_history({.seed = seed, .broken_rule = broken.rule, .snapshots_one_in = 1})
        .broken_promise;
  };
  EXPECT_TRUE(finds_broken_rule(broken.name, 20'000, one));
}

INSTANTIATE_TEST_SUITE_P(
    Rules, SnapshotOracleTest,
    testing::Values(BrokenRule{.rule = VolumeRule::kKeepsForSnapshots,
                               .name = "data object deleted that a snapshot needs"},
                    BrokenRule{.rule = VolumeRule::kHoldsForSnapshots,
                               .name = "a snapshot's checkpoint removed with the next one"},
                    BrokenRule{.rule = VolumeRule::kSweepsAroundSnapshots,
                               .name = "a snapshot's checkpoint taken for a dead process's"},
                    BrokenRule{.rule = VolumeRule::kFreesWhatNoneNeeds,
                               .name = "a deleted snapshot takes what others need"},
                    BrokenRule{.rule = VolumeRule::kNamesBeforeItTakes,
                               .name = "snapshot promised before the head names it"}));

}  // namespace
}  // namespace usbd::sim

// SPDX-License-Identifier: Apache-2.0
//
// One call to the store in some fails, and bodies are cut short, so each step is tried often: what
// is lost stays lost.

#include "sim/snapshot_oracle.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "devices/objstore/volume_check.h"

namespace usbd::sim {
namespace {

constexpr unsigned kAttempts = 60;
constexpr Nanos kPause{200'000'000};

/// Reads one snapshot.
class Comparison {
 public:
  Comparison(SimStore& store, std::string volume, Bytes key)
      : store_(store), client_(store.attach()), place_(*client_, std::move(volume), key) {}

  Task<std::string> run(objstore::SnapshotRef snapshot, const ImageModel& model) {
    Result<void> loaded = Error(Errc::kAgain);
    for (unsigned attempt = 0; attempt < kAttempts && !loaded; ++attempt) {
      if (attempt > 0) co_await pause();
      loaded = co_await load(snapshot.number);
    }
    if (!loaded) co_return "cannot be opened: " + loaded.error().message();
    objstore::ImageReader reader(place_, *image_);
    AlignedBuffer memory(objstore::kBlockBytes);
    std::string wrong;
    for (uint64_t block = 0; block < model.blocks() && wrong.empty(); ++block) {
      Result<void> read = Error(Errc::kAgain);
      for (unsigned attempt = 0; attempt < kAttempts && !read; ++attempt) {
        if (attempt > 0) co_await pause();
        read = co_await reader.read(block, memory.bytes());
      }
      if (!read) {
        wrong = fmt::format("block {} cannot be read: {}", block, read.error().message());
      } else {
        wrong = model.check(block, memory.bytes(), snapshot.last_write, snapshot.last_write);
      }
    }
    co_await reader.close();
    co_return wrong;
  }

 private:
  Task<void> pause() {
    Loop& loop = Loop::current();
    co_await loop.sleep_for(std::max(kPause, store_.away_until() - loop.now()));
  }

  Task<Result<void>> load(uint64_t number) {
    USBD_CO_TRY(const objstore::Head head, co_await objstore::read_head(place_));
    USBD_CO_TRY(image_, co_await objstore::load_snapshot(place_, head, number, {}));
    co_return Result<void>();
  }

  SimStore& store_;
  std::unique_ptr<objects::ObjectStore> client_;
  objstore::ImagePlace place_;
  std::unique_ptr<objstore::VolumeImage> image_;
};

std::string describe(const objstore::SnapshotRef& snapshot) {
  return fmt::format("snapshot {} ({}, up to change {})", snapshot.number, snapshot.name,
                     snapshot.last_write);
}

}  // namespace

std::string SnapshotOracle::asked() {
  std::string name = fmt::format("snapshot-{}", ++names_);
  asked_.insert(name);
  return name;
}

std::string SnapshotOracle::taken(const objstore::SnapshotRef& snapshot, uint64_t earliest) {
  asked_.erase(snapshot.name);
  if (!all_.emplace(snapshot.number, snapshot).second) {
    return describe(snapshot) + " has a number that another one has";
  }
  if (snapshot.last_write >= earliest) return {};
  return fmt::format("{} has not change {}, which was made before", describe(snapshot), earliest);
}

void SnapshotOracle::left(uint64_t number) {
  leaving_.erase(number);
  all_.erase(number);
}

std::string SnapshotOracle::listed(const std::vector<objstore::SnapshotRef>& all) {
  std::set<uint64_t> numbers;
  for (const objstore::SnapshotRef& snapshot : all) {
    numbers.insert(snapshot.number);
    const auto known = all_.find(snapshot.number);
    if (known == all_.end() && !asked_.contains(snapshot.name)) {
      return describe(snapshot) + " is listed, which was never taken or is deleted";
    }
    if (known != all_.end() && known->second != snapshot) {
      return describe(snapshot) + " is listed, but was taken as " + describe(known->second);
    }
    all_.insert_or_assign(snapshot.number, snapshot);
  }
  // What was not there at an opening never comes again.
  asked_.clear();
  for (auto known = all_.begin(); known != all_.end();) {
    if (!numbers.contains(known->first)) {
      if (!leaving_.contains(known->first)) return describe(known->second) + " is lost";
      known = all_.erase(known);
    } else {
      ++known;
    }
  }
  leaving_.clear();
  return {};
}

Task<std::string> compare_snapshot(SimStore& store, std::string volume, Bytes key,
                                   objstore::SnapshotRef snapshot, const ImageModel& model) {
  Comparison comparison(store, std::move(volume), key);
  const std::string which = describe(snapshot);
  const std::string wrong = co_await comparison.run(std::move(snapshot), model);
  co_return wrong.empty() ? wrong : which + ": " + wrong;
}

}  // namespace usbd::sim

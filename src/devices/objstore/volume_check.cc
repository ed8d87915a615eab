// SPDX-License-Identifier: Apache-2.0
//
// A few tasks take the objects in turn; each fetches its object in large pieces and has the frames
// of a piece opened on a thread of the pool. While one is proven the others fetch.
//
// The directory of an object says for each block of the volume where in the object it is. What the
// map says is looked up for exactly these blocks: whatever it has in the object beyond that, the
// object does not know of.

#include "devices/objstore/volume_check.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "async/scope.h"
#include "base/limits.h"
#include "devices/objstore/data_object_layout.h"
#include "devices/objstore/names.h"
#include "devices/objstore/snapshots.h"
#include "usbd/loop.h"

namespace usbd::objstore {
namespace {

constexpr BlockRange kAnyBlocks(0, kBlockEnd);

/// Takes all of `other` out of `set`.
void subtract(BlockSet& set, const BlockSet& other) {
  for (const BlockRange& range : other.within(kAnyBlocks)) set.remove(range);
}

/// Frames of one object, numbered from `first`, that lie in one piece of it.
struct FrameRun {
  uint32_t first = 0;
  uint32_t count = 0;
  ByteRange bytes = {};
};

std::vector<FrameRun> plan(const std::vector<FrameInfo>& frames) {
  std::vector<FrameRun> runs;
  for (uint32_t i = 0; i < frames.size(); ++i) {
    const ByteRange range = frames[i].range();
    const bool joins =
        !runs.empty() && range.end() - runs.back().bytes.offset <= limits::kCheckFetchBytes;
    if (!joins) runs.push_back({.first = i, .count = 0, .bytes = {range.offset, 0}});
    ++runs.back().count;
    runs.back().bytes.length = range.end() - runs.back().bytes.offset;
  }
  return runs;
}

}  // namespace

void add_cost(CheckFinding& finding, const BlockSet& blocks, uint64_t volume_bytes) {
  for (const BlockRange& run : blocks.within(kAnyBlocks)) {
    const uint64_t offset = run.first * kBlockBytes;
    // The last block may be longer than what the volume has of it.
    const uint64_t end = std::min(run.end() * kBlockBytes, volume_bytes);
    if (offset >= end) continue;
    finding.bytes += end - offset;
    if (finding.ranges.size() < limits::kFindingRangesMax) {
      finding.ranges.emplace_back(offset, end - offset);
    } else {
      ++finding.ranges_omitted;
    }
  }
}

class VolumeChecker {
 public:
  VolumeChecker(ImagePlace place, WorkerPool& pool, const CheckOptions& options)
      : place_(std::move(place)), pool_(pool), options_(options) {}

  Task<Result<CheckTotals>> run(Head head);

 private:
  /// What is known of an object after it was read.
  struct Seen {
    std::string what;
    BlockSet blocks;
    /// Blocks of the map that its directory knows.
    uint64_t matched = 0;
    bool gone = false;
    /// Nothing of it can be used: all that the map has there is lost.
    bool lost = false;
    /// Filled if the map has more in it than its directory knows: what can be read all the same.
    BlockSet sound;
  };
  /// An object in which the map finds nothing, or not all.
  struct LostObject {
    CheckFinding finding;
    BlockSet sound;
  };

  Task<Result<void>> check_image();
  Task<Result<void>> check_objects();
  Task<void> take_objects();
  Task<Result<void>> check_object(uint32_t slot);
  Task<Result<void>> read_object(uint32_t slot, Seen& seen);
  Task<Result<void>> check_header(const Directory& directory, const std::string& name, Seen& seen);
  Task<Result<void>> check_frames(const Directory& directory, const std::string& name,
                                  std::set<uint32_t>& damaged, Seen& seen);
  /// The blocks that the map has in the object where its directory says that they are.
  [[nodiscard]] std::vector<MappedRun> matching(uint32_t slot, const Directory& directory) const;
  void compare_with_map(uint32_t slot, const Directory& directory,
                        const std::set<uint32_t>& damaged, Seen& seen);
  Task<void> check_map();
  Task<Result<std::optional<Head>>> newer_head();
  Task<Result<std::optional<Head>>> check_at(Head head);
  Task<Result<void>> is_the_store_there(const Error& error);
  void report(CheckFinding finding, const BlockSet& blocks);
  void report_lost();
  void tell_progress() const {
    if (options_.progress) options_.progress(progress_);
  }

  ImagePlace place_;
  WorkerPool& pool_;
  const CheckOptions& options_;
  std::shared_ptr<const VolumeImage> image_;
  /// Whose objects have been read, but for those that had gone.
  std::shared_ptr<const VolumeImage> read_;
  CheckTotals totals_;
  CheckProgress progress_;

  /// Of this round.
  std::vector<LostPart> lost_parts_;
  /// Objects to be read, by slot, and those that have gone.
  std::vector<uint32_t> wanted_;
  size_t next_ = 0;
  std::set<ObjectId> gone_;
  std::map<ObjectId, LostObject> lost_objects_;
  std::optional<Error> failed_;
};

void VolumeChecker::report(CheckFinding finding, const BlockSet& blocks) {
  add_cost(finding, blocks, image_->head().size);
  if (options_.found) options_.found(finding);
}

// --- one object
// -----------------------------------------------------------------------------------

/// Errors of the store that say nothing of an object end the check; this tells which a kIo is.
Task<Result<void>> VolumeChecker::is_the_store_there(const Error& error) {
  if (error.is(Errc::kTimedOut) || error.is(Errc::kAgain) || error.is(Errc::kCanceled)) {
    co_return error;
  }
  const Result<objects::ObjectInfo> info =
      co_await place_.store->head(head_name(place_.volume), place_.limits);
  // That there is none is an answer as well.
  if (info || info.error().is(Errc::kNotFound)) co_return Result<void>();
  co_return error;
}

Task<Result<void>> VolumeChecker::check_header(const Directory& directory, const std::string& name,
                                               Seen& seen) {
  const objects::Part part = objects::Part::range(0, sizeof(layout::Header));
  const Result<objects::Fetched> fetched = co_await place_.store->get(name, part, place_.limits);
  if (!fetched && fetched.error().is(Errc::kNotFound)) {
    seen.gone = true;
    co_return Result<void>();
  }
  if (!fetched) {
    seen.what = "its header cannot be read: " + fetched.error().message();
    co_return co_await is_the_store_there(fetched.error());
  }
  const Result<ObjectHeader> header = parse_header(fetched->data);
  // Reading does without it: no byte of the volume is lost.
  if (!header) {
    seen.what = "the header at its start is damaged: " + header.error().context();
  } else if (*header != directory.header()) {
    seen.what = "the header at its start is not the one at its end";
  }
  co_return Result<void>();
}

Task<Result<void>> VolumeChecker::check_frames(const Directory& directory, const std::string& name,
                                               std::set<uint32_t>& damaged, Seen& seen) {
  const std::vector<FrameInfo>& frames = directory.frames();
  for (const FrameRun& run : plan(frames)) {
    const objects::Part part = objects::Part::range(run.bytes.offset, run.bytes.length);
    const Result<objects::Fetched> fetched = co_await place_.store->get(name, part, place_.limits);
    if (!fetched && fetched.error().is(Errc::kNotFound)) {
      seen.gone = true;
      co_return Result<void>();
    }
    const bool whole = fetched && fetched->data.size() == run.bytes.length;
    std::optional<std::string> what;
    if (!whole) {
      what = fetched ? "it is cut short" : fetched.error().message();
      if (!fetched) USBD_CO_TRY_VOID(co_await is_the_store_there(fetched.error()));
      for (uint32_t i = 0; i < run.count; ++i) damaged.insert(run.first + i);
    } else {
      const auto open = [&] {
        std::vector<std::byte> plain;
        for (uint32_t i = run.first; i < run.first + run.count; ++i) {
          plain.resize(frames[i].logical);
          const Bytes stored =
              Bytes(fetched->data).subspan(frames[i].offset - run.bytes.offset, frames[i].stored);
          const Result<void> opened = directory.open_frame(i, stored, plain);
          if (opened) continue;
          damaged.insert(i);
          if (!what) what = fmt::format("frame {}: {}", i, opened.error().message());
        }
        return true;
      };
      co_await pool_.run(open);
      totals_.bytes += run.bytes.length;
    }
    totals_.frames += run.count;
    progress_.bytes += run.bytes.length;
    if (what && seen.what.empty()) seen.what = *what;
    tell_progress();
  }
  co_return Result<void>();
}

std::vector<MappedRun> VolumeChecker::matching(uint32_t slot, const Directory& directory) const {
  std::vector<MappedRun> runs;
  for (const Extent& extent : directory.extents()) {
    const BlockRange blocks(extent.block, extent.blocks);
    if (extent.kind != ExtentKind::kData || blocks.end() > image_->map().blocks()) continue;
    for (const MappedRun& run : image_->map().find(blocks)) {
      const uint64_t place = extent.position.value + (run.blocks.first - extent.block);
      if (run.location.slot == slot && run.location.position == place) runs.push_back(run);
    }
  }
  return runs;
}

void VolumeChecker::compare_with_map(uint32_t slot, const Directory& directory,
                                     const std::set<uint32_t>& damaged, Seen& seen) {
  const std::vector<MappedRun> runs = matching(slot, directory);
  for (const MappedRun& run : runs) {
    seen.matched += run.blocks.count;
    const uint64_t place = run.location.position;
    const uint64_t end = place + run.blocks.count;
    auto frame = damaged.lower_bound(static_cast<uint32_t>(place / kFrameBlocks));
    for (; frame != damaged.end() && uint64_t{*frame} * kFrameBlocks < end; ++frame) {
      const uint64_t from = std::max<uint64_t>(place, uint64_t{*frame} * kFrameBlocks);
      const uint64_t to = std::min<uint64_t>(end, (uint64_t{*frame} + 1) * kFrameBlocks);
      seen.blocks.add({run.blocks.first + (from - place), to - from});
    }
  }
  if (seen.matched == image_->object(slot)->live) return;
  for (const MappedRun& run : runs) seen.sound.add(run.blocks);
  subtract(seen.sound, seen.blocks);
}

Task<Result<void>> VolumeChecker::read_object(uint32_t slot, Seen& seen) {
  const ObjectId id = image_->object(slot)->facts.id;
  const std::string name = data_name(place_.volume, id);
  const Result<FetchedDirectory> fetched = co_await fetch_directory(place_, image_->seal(), id);
  if (!fetched) {
    seen.gone = fetched.error().is(Errc::kNotFound);
    seen.lost = true;
    seen.what = seen.gone ? "is missing" : fetched.error().message();
    if (!seen.gone) co_return co_await is_the_store_there(fetched.error());
    co_return Result<void>();
  }
  const Directory& directory = fetched->directory;
  USBD_CO_TRY_VOID(co_await check_header(directory, name, seen));
  std::set<uint32_t> damaged;
  const bool proven = options_.proven != nullptr && options_.proven->contains(id);
  if (!seen.gone && !proven) {
    USBD_CO_TRY_VOID(co_await check_frames(directory, name, damaged, seen));
    const bool whole = !seen.gone && seen.what.empty() && damaged.empty();
    if (whole && options_.proven != nullptr) options_.proven->insert(id);
  }
  if (seen.gone) {
    seen.lost = true;
    seen.what = "is missing";
    co_return Result<void>();
  }
  const ImageObject& known = *image_->object(slot);
  const bool same = known.facts.object_bytes == fetched->object_bytes &&
                    known.facts.blocks == directory.header().data_blocks;
  if (!same && seen.what.empty()) {
    seen.what = "is not of the size that the checkpoint's object table says";
  }
  compare_with_map(slot, directory, damaged, seen);
  co_return Result<void>();
}

Task<Result<void>> VolumeChecker::check_object(uint32_t slot) {
  Seen seen;
  USBD_CO_TRY_VOID(co_await read_object(slot, seen));
  const ImageObject& object = *image_->object(slot);
  const std::string name = data_name(place_.volume, object.facts.id);
  ++progress_.objects;
  ++totals_.data_objects;
  tell_progress();
  // Its directory, and so what it costs, was lost already; or it is read again with a new image.
  if (object.lost || seen.gone) {
    if (seen.gone) gone_.insert(object.facts.id);
    co_return Result<void>();
  }
  if (!seen.lost && seen.matched == object.live && seen.what.empty()) co_return Result<void>();
  CheckFinding finding{.object = name, .what = seen.what};
  if (seen.lost || seen.matched != object.live) {
    if (finding.what.empty()) finding.what = "does not hold what the map has in it";
    LostObject lost{.finding = std::move(finding), .sound = std::move(seen.sound)};
    lost_objects_.emplace(object.facts.id, std::move(lost));
  } else {
    report(std::move(finding), seen.blocks);
  }
  co_return Result<void>();
}

Task<void> VolumeChecker::take_objects() {
  while (!failed_ && next_ < wanted_.size()) {
    const Result<void> checked = co_await check_object(wanted_[next_++]);
    if (!checked && !failed_) failed_ = checked.error();
  }
}

Task<Result<void>> VolumeChecker::check_objects() {
  next_ = 0;
  Scope scope;
  const auto tasks = std::min<size_t>(limits::kCheckFetchesMax, wanted_.size());
  for (size_t i = 0; i < tasks; ++i) scope.spawn(take_objects());
  co_await scope.close();
  if (failed_) co_return *failed_;
  co_return Result<void>();
}

// --- the whole
// ------------------------------------------------------------------------------------

/// What the map has in objects that are lost, or in none.
Task<void> VolumeChecker::check_map() {
  std::map<uint32_t, BlockSet> lost;
  for (const auto& [id, object] : lost_objects_) lost.emplace(image_->find(id), BlockSet());
  BlockSet nowhere;
  totals_.mapped_bytes = 0;
  const BlockMap& map = image_->map();
  for (uint64_t leaf = 0; leaf < map.leaves(); ++leaf) {
    const uint64_t first = leaf * kLeafBlocks;
    const uint64_t end = std::min<uint64_t>(first + kLeafBlocks, map.blocks());
    for (const MappedRun& run : map.find({first, end - first})) {
      const uint32_t slot = run.location.slot;
      if (slot == 0) continue;
      totals_.mapped_bytes += run.blocks.count * kBlockBytes;
      const auto found = lost.find(slot);
      if (found != lost.end()) {
        found->second.add(run.blocks);
      } else if (image_->object(slot) == nullptr) {
        nowhere.add(run.blocks);
      }
    }
    if (leaf % kPageLeaves == kPageLeaves - 1) co_await Loop::current().schedule();
  }
  for (const auto& [id, object] : lost_objects_) {
    const uint32_t slot = image_->find(id);
    if (slot == 0) continue;  // garbage collection has removed it meanwhile
    subtract(lost[slot], object.sound);
    report(object.finding, lost[slot]);
  }
  if (!nowhere.empty()) {
    report({.object = map_name(place_.volume, image_->head().root.epoch, image_->head().root.id),
            .what = "the map names objects that the object table does not know"},
           nowhere);
  }
}

void VolumeChecker::report_lost() {
  for (const LostPart& part : lost_parts_) {
    CheckFinding finding{.object = part.object, .what = part.error.message()};
    if (part.error.is(Errc::kNotFound)) finding.what = "is missing";
    finding.exact = part.blocks.count == 0;
    BlockSet blocks;
    for (const BlockRange& range : image_->uncertain().within(part.blocks)) blocks.add(range);
    report(std::move(finding), blocks);
  }
}

/// The head, if it is another one by now that explains why objects have gone.
Task<Result<std::optional<Head>>> VolumeChecker::newer_head() {
  USBD_CO_TRY(Head head, co_await read_head(place_));
  if (options_.snapshot > 0) {
    USBD_CO_TRY(const std::vector<SnapshotRef> all, co_await read_snapshots(place_, head));
    if (std::ranges::find(all, options_.snapshot, &SnapshotRef::number) == all.end()) {
      co_return Error(Errc::kNotFound,
                      fmt::format("snapshot {} was deleted meanwhile", options_.snapshot));
    }
    co_return std::optional<Head>();
  }
  const bool same = head.root == image_->head().root && head.epoch == image_->head().epoch;
  co_return same ? std::optional<Head>() : std::optional<Head>(std::move(head));
}

Task<Result<void>> VolumeChecker::check_image() {
  const std::set<ObjectId> gone_before = std::exchange(gone_, {});
  wanted_.clear();
  progress_ = {};
  for (uint32_t slot = 1; slot < image_->slots_end(); ++slot) {
    const ImageObject* const object = image_->object(slot);
    if (object == nullptr || object->facts.state != ObjectState::kInUse || object->lost) continue;
    const ObjectId& id = object->facts.id;
    const uint32_t before = read_ ? read_->find(id) : 0;
    if (before > 0 && !read_->object(before)->lost && !gone_before.contains(id)) continue;
    wanted_.push_back(slot);
    ++progress_.objects_total;
    progress_.bytes_total += object->facts.stored_bytes;
  }
  USBD_CO_TRY_VOID(co_await check_objects());
  read_ = image_;
  co_return Result<void>();
}

/// One round: returns the head to go on with, if objects have gone for good reason.
Task<Result<std::optional<Head>>> VolumeChecker::check_at(Head head) {
  ++totals_.rounds;
  totals_.head_version = head.version;
  lost_parts_.clear();
  const VolumeImage::OnLost on_lost = [this](const LostPart& part) { lost_parts_.push_back(part); };
  USBD_CO_TRY(image_, co_await VolumeImage::load(place_, std::move(head), on_lost));
  if (image_->root()) {
    totals_.map_pages = image_->root()->map_pages.size() + image_->root()->table_pages.size();
  }
  for (const LostPart& part : lost_parts_) {
    if (part.error.is(Errc::kIo)) USBD_CO_TRY_VOID(co_await is_the_store_there(part.error));
  }
  std::optional<Head> newer;
  const auto is_gone = [](const LostPart& part) { return part.error.is(Errc::kNotFound); };
  if (std::ranges::any_of(lost_parts_, is_gone)) {
    USBD_CO_TRY(newer, co_await newer_head());
    if (newer) co_return newer;
  }
  USBD_CO_TRY_VOID(co_await check_image());
  if (!gone_.empty()) {
    USBD_CO_TRY(newer, co_await newer_head());
  }
  co_return newer;
}

Task<Result<CheckTotals>> VolumeChecker::run(Head head) {
  std::optional<Head> next = std::move(head);
  while (next) {
    if (totals_.rounds == limits::kCheckRounds) {
      co_return Error(Errc::kBusy,
                      "the volume is changing so fast that objects vanish before they are read; "
                      "check it again when it is less busy, or stop it");
    }
    USBD_CO_TRY(next, co_await check_at(*std::move(next)));
  }
  for (const ObjectId& id : gone_) {
    LostObject lost;
    lost.finding = {.object = data_name(place_.volume, id), .what = "is missing"};
    lost_objects_.emplace(id, std::move(lost));
  }
  report_lost();
  co_await check_map();
  co_return totals_;
}

Task<Result<Head>> read_head(ImagePlace place) {
  const std::string name = head_name(place.volume);
  const objects::Part part = objects::Part::whole(kHeadBytesMax);
  USBD_CO_TRY(const objects::Fetched fetched, co_await place.store->get(name, part, place.limits));
  Result<Head> head = decode(fetched.data, place.key);
  if (head) co_return head;
  co_return Error(head.error().code(), head.error().context());
}

Task<Result<CheckTotals>> check_volume(ImagePlace place, Head head, WorkerPool& pool,
                                       CheckOptions options) {
  VolumeChecker checker(std::move(place), pool, options);
  co_return co_await checker.run(std::move(head));
}

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// What is live in the objects that garbage collection has chosen, by the map, and its bytes, proven
// as every read does. Frames that are near each other are fetched by one request, one at a time.

#include <algorithm>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "devices/objstore/clean_job.h"
#include "devices/objstore/names.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {
namespace {

/// Opens the frames of a part of an object, and keeps the one that was opened last.
class FramesOfPart {
 public:
  /// `stored` begins at byte `start` of the object.
  FramesOfPart(const Directory& directory, Bytes stored, uint64_t start)
      : directory_(directory), stored_(stored), start_(start) {}

  /// `count` blocks from a position on, which are in one frame.
  /// Errors: kAccess: it does not open, or has no such blocks: trying again is of no use.
  Result<Bytes> blocks(Position at, uint64_t count) {
    const FrameInfo& info = directory_.frames()[at.frame()];
    if (open_ != at.frame()) {
      open_.reset();
      plain_.resize(info.logical);
      const Bytes stored = stored_.subspan(info.offset - start_, info.stored);
      const Result<void> opened = directory_.open_frame(at.frame(), stored, plain_);
      if (!opened) return Error(Errc::kAccess, opened.error().message());
      open_ = at.frame();
    }
    if ((at.block() + count) * kBlockBytes > plain_.size()) {
      return Error(Errc::kAccess, fmt::format("frame {} has no such block", at.frame()));
    }
    return Bytes(plain_).subspan(at.block() * kBlockBytes, count * kBlockBytes);
  }

 private:
  const Directory& directory_;
  const Bytes stored_;
  const uint64_t start_;
  std::vector<std::byte> plain_;
  std::optional<uint32_t> open_;
};

}  // namespace

Task<Result<void>> Volume::collect(CleanJob& job) {
  for (const Victim& victim : job.victims) {
    if (job.blocks * kBlockBytes >= options_.space.clean.round_bytes) break;
    if (cleaning_is_over()) co_return Error(Errc::kCanceled, "garbage collection was stopped");
    USBD_CO_TRY_VOID(co_await collect_from(job, victim));
  }
  std::ranges::sort(job.runs, {}, [](const LiveRun& run) { return run.blocks.first; });
  size_t at = 0;
  for (LiveRun& run : job.runs) {
    run.at = at;
    at += run.blocks.count * kBlockBytes;
  }
  co_return Result<void>();
}

Task<Result<void>> Volume::collect_from(CleanJob& job, Victim victim) {
  const Result<Slot> fetched = co_await fetch_slot(victim.id);
  if (!fetched) {
    if (!objects::is_transient(fetched.error())) shunned_.insert(victim.id);
    co_return fetched.error();
  }
  // By its name: the slot may be another object's by now.
  const uint32_t slot = live_->table().find(victim.id);
  if (slot == 0) co_return Result<void>();
  uint32_t turn = 0;
  for (const Extent& extent : fetched->directory->extents()) {
    if (extent.kind != ExtentKind::kData) continue;
    if (BlockRange(extent.block, extent.blocks).end() > blocks()) break;
    const BlockRange blocks(extent.block, extent.blocks);
    MapHold hold;
    if (!live_->map().here(blocks)) {
      USBD_CO_TRY(hold, co_await pager_->hold(blocks));
    }
    for (const MappedRun& run : live_->map().find(blocks)) {
      if (run.location.slot != slot) continue;
      // What is above a round's size is left for the next.
      if (job.blocks * kBlockBytes >= options_.space.clean.round_bytes) co_return Result<void>();
      job.runs.push_back(
          {.blocks = run.blocks, .id = victim.id, .position = {run.location.position}});
      job.blocks += run.blocks.count;
    }
    if (++turn % limits::kCleanTurn == 0) co_await home_.schedule();
  }
  co_return Result<void>();
}

/// Fetches object by object, in the order of their frames.
Task<Result<void>> Volume::fetch_live(CleanJob& job) {
  job.data.resize(job.blocks * kBlockBytes);
  std::vector<LiveRun> runs = job.runs;
  std::ranges::sort(runs, {}, [](const LiveRun& run) { return std::tuple(run.id, run.position); });
  for (size_t first = 0; first < runs.size();) {
    if (cleaning_is_over()) co_return Error(Errc::kCanceled, "garbage collection was stopped");
    const ObjectId id = runs[first].id;
    USBD_CO_TRY(const Slot source, co_await fetch_slot(id));
    const std::shared_ptr<const Directory>& directory = source.directory;
    const auto other = std::find_if(runs.begin() + static_cast<ptrdiff_t>(first), runs.end(),
                                    [&id](const LiveRun& run) { return run.id != id; });
    const auto end = static_cast<size_t>(other - runs.begin());
    Result<size_t> fetched = Error(Errc::kAccess, "has fewer frames than the map says");
    if (runs[end - 1].last_frame() < directory->frames().size()) {
      fetched = co_await fetch_part(job, directory, std::span(runs).subspan(first, end - first));
    }
    if (!fetched) {
      if (!objects::is_transient(fetched.error())) shunned_.insert(id);
      co_return Error(fetched.error().code(), fmt::format("{}: {}", data_name(options_.name, id),
                                                          fetched.error().context()));
    }
    first += *fetched;
  }
  co_return Result<void>();
}

/// `runs` are of one object, in order; takes those at the front that are near each other, and
/// returns how many these are.
Task<Result<size_t>> Volume::fetch_part(CleanJob& job, std::shared_ptr<const Directory> directory,
                                        std::span<const LiveRun> runs) {
  const std::vector<FrameInfo>& frames = directory->frames();
  const uint64_t start = frames[runs[0].first_frame()].offset;
  uint64_t end = frames[runs[0].last_frame()].range().end();
  size_t count = 1;
  for (; count < runs.size(); ++count) {
    const uint64_t to = frames[runs[count].last_frame()].range().end();
    const bool near = frames[runs[count].first_frame()].offset <= end + limits::kCleanReadGap;
    if (!near || to > start + limits::kCleanReadBytes) break;
    end = std::max(end, to);
  }
  const objects::CallLimits limits{.stop = stop_.get_token()};
  const objects::Part part = objects::Part::range(start, end - start);
  const std::string name = data_name(options_.name, runs[0].id);
  USBD_CO_TRY(const objects::Fetched fetched, co_await parts_.store.get(name, part, limits));
  if (fetched.data.size() != part.length) co_return Error(Errc::kDamaged, "is cut short");
  FramesOfPart opened(*directory, fetched.data, start);
  for (const LiveRun& run : runs.first(count)) {
    for (uint64_t done = 0; done < run.blocks.count;) {
      const Position at = run.position_of(done);
      const auto some = std::min<uint64_t>(run.blocks.count - done, kFrameBlocks - at.block());
      USBD_CO_TRY(const Bytes bytes, opened.blocks(at, some));
      std::memcpy(job.data.data() + run.at + done * kBlockBytes, bytes.data(), bytes.size());
      done += some;
    }
    co_await home_.schedule();  // others have their turn
  }
  co_return count;
}

}  // namespace usbd::objstore

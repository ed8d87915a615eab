// SPDX-License-Identifier: Apache-2.0
//
// Reads: which part is in a batch, which in the store, and which nowhere, is found in one moment;
// then each part is fetched, proven, and only then given out.

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "devices/objstore/names.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {

std::vector<Volume::Segment> Volume::resolve(BlockRange range) {
  std::vector<Segment> segments;
  std::vector<BlockRange> gaps{range};
  const MutexLock lock(mutex_);
  for (auto batch = batches_.rbegin(); batch != batches_.rend() && !gaps.empty(); ++batch) {
    std::vector<BlockRange> left;
    for (const BlockRange& gap : gaps) {
      uint64_t at = gap.first;
      for (const Change& change : (*batch)->find(gap)) {
        if (change.blocks.first > at) left.emplace_back(at, change.blocks.first - at);
        at = change.blocks.end();
        Segment& segment = segments.emplace_back(change.blocks);
        if (change.kind == ExtentKind::kData) segment.held.emplace(journal_->hold(change.place));
      }
      if (at < gap.end()) left.emplace_back(at, gap.end() - at);
    }
    gaps = std::move(left);
  }
  for (const BlockRange& gap : gaps) {
    for (const MappedRun& run : live_->map().find(gap)) {
      Segment& segment = segments.emplace_back(run.blocks);
      segment.location = run.location;
      if (run.location.slot != 0) segment.object = live_->table().facts(run.location.slot)->id;
    }
  }
  return segments;
}

/// As long as it is there, nothing that the map points at now is deleted.
struct Volume::ReadPin {
  explicit ReadPin(Volume& of) : volume(of) {
    if (volume.options_.read_only) return;  // deletes nothing
    const MutexLock lock(volume.mutex_);
    generation = volume.live_->begin_read();
  }
  ReadPin(const ReadPin&) = delete;
  ReadPin& operator=(const ReadPin&) = delete;
  ~ReadPin() {
    if (volume.options_.read_only) return;
    const MutexLock lock(volume.mutex_);
    volume.live_->end_read(generation);
  }

  Volume& volume;
  uint64_t generation = 0;
};

Task<Result<void>> Volume::read(uint64_t first_block, MutableBytes data) {
  Result<void> result = co_await read_once(first_block, data);
  const auto gone = [&result] { return !result && result.error().is(Errc::kNotFound); };
  if (!options_.read_only || !gone()) co_return result;
  // Its owner goes on, and deletes what this image needs after a while.
  Loop& caller = Loop::current();
  for (unsigned attempt = 0; attempt < limits::kLooksMax && gone(); ++attempt) {
    const Result<void> looked = co_await look_again();
    co_await caller.schedule();
    if (!looked) co_return looked;
    result = co_await read_once(first_block, data);
  }
  co_return result;
}

Task<Result<void>> Volume::read_once(uint64_t first_block, MutableBytes data) {
  USBD_ASSERT(data.size() % kBlockBytes == 0);
  const BlockRange range(first_block, data.size() / kBlockBytes);
  USBD_ASSERT(range.end() <= blocks());
  {
    const MutexLock lock(mutex_);
    if (ended_) co_return *ended_;
  }
  const ReadPin pin(*this);
  // Nothing here waits for uploads, or is waited for by them.
  for (Segment& segment : resolve(range)) {
    const MutableBytes out = data.subspan((segment.blocks.first - first_block) * kBlockBytes,
                                          segment.blocks.count * kBlockBytes);
    if (segment.held) {
      USBD_CO_TRY_VOID(co_await journal_->read(*segment.held, out));
    } else if (segment.location.slot == 0) {
      std::memset(out.data(), 0, out.size());
    } else {
      const Position position{segment.location.position};
      USBD_CO_TRY_VOID(co_await read_object(segment.blocks, segment.object, position, out));
    }
  }
  co_return Result<void>();
}

Task<Result<Volume::Slot>> Volume::fetch_slot(ObjectId id) {
  const std::string name = data_name(options_.name, id);
  objects::Part part = objects::Part::tail(limits::kObjectTailBytes);
  while (true) {
    USBD_CO_TRY(const objects::Fetched fetched, co_await parts_.store.get(name, part, {}));
    if (fetched.data.size() > fetched.object_size) {
      co_return Error(Errc::kIo, name + ": more bytes than the object has");
    }
    Result<Tail> tail = parse_tail(seal(), id, fetched.data, fetched.object_size);
    if (!tail) co_return Error(tail.error().code(), name + ": " + tail.error().context());
    if (tail->directory) {
      co_return Slot{.bytes = fetched.object_size,
                     .directory = std::make_shared<const Directory>(*std::move(tail->directory))};
    }
    part = objects::Part::range(tail->missing.offset, tail->missing.length);
  }
}

Task<Result<std::shared_ptr<const Directory>>> Volume::directory_of(ObjectId id) {
  {
    const MutexLock lock(mutex_);
    const auto found = directories_.find(id);
    if (found != directories_.end()) {
      found->second.used = ++uses_;
      co_return found->second.directory;
    }
  }
  USBD_CO_TRY(const Slot fetched, co_await fetch_slot(id));
  const MutexLock lock(mutex_);
  keep_directory(id, fetched);
  co_return fetched.directory;
}

void Volume::keep_directory(const ObjectId& id, Slot slot) {
  slot.used = ++uses_;
  directories_.insert_or_assign(id, std::move(slot));
  if (directories_.size() <= limits::kDirectoriesMax) return;
  const auto oldest = std::ranges::min_element(directories_, {},
                                               [](const auto& entry) { return entry.second.used; });
  directories_.erase(oldest);
}

Task<Result<void>> Volume::read_object(BlockRange blocks, ObjectId id, Position position,
                                       MutableBytes out) {
  Loop& caller = Loop::current();
  co_await home_.schedule();
  Result<void> result = co_await read_object_here(blocks, id, position, out);
  co_await caller.schedule();
  co_return result;
}

Task<Result<void>> Volume::read_object_here(BlockRange blocks, ObjectId id, Position position,
                                            MutableBytes out) {
  USBD_CO_TRY(const std::shared_ptr<const Directory> directory, co_await directory_of(id));
  const std::vector<FrameInfo>& frames = directory->frames();
  const std::string name = data_name(options_.name, id);
  const Position first = position;
  const Position last{position.value + static_cast<uint32_t>(blocks.count) - 1};
  if (last.frame() >= frames.size()) co_return Error(Errc::kIo, name + ": has no such frame");
  const uint64_t start = frames[first.frame()].offset;
  const ByteRange range(start, frames[last.frame()].range().end() - start);
  const objects::Part part = objects::Part::range(range.offset, range.length);
  USBD_CO_TRY(const objects::Fetched fetched, co_await parts_.store.get(name, part, {}));
  if (fetched.data.size() != range.length) co_return Error(Errc::kIo, name + ": is cut short");
  std::vector<std::byte> plain;
  for (uint32_t frame = first.frame(); frame <= last.frame(); ++frame) {
    const FrameInfo& info = frames[frame];
    plain.resize(info.logical);
    const Bytes stored = Bytes(fetched.data).subspan(info.offset - start, info.stored);
    const Result<void> opened = directory->open_frame(frame, stored, plain);
    if (!opened) co_return Error(Errc::kIo, name + ": " + opened.error().message());
    const uint32_t from = frame == first.frame() ? first.block() : 0;
    const uint32_t to = frame == last.frame() ? last.block() + 1 : kFrameBlocks;
    if (to * kBlockBytes > plain.size()) co_return Error(Errc::kIo, name + ": has no such block");
    const uint64_t at = uint64_t{frame} * kFrameBlocks + from - position.value;
    std::memcpy(out.data() + at * kBlockBytes, plain.data() + from * kBlockBytes,
                (to - from) * kBlockBytes);
  }
  co_return Result<void>();
}

std::vector<std::pair<BlockRange, bool>> Volume::data_runs(BlockRange range) {
  std::vector<Segment> segments = resolve(range);
  std::ranges::sort(segments, {}, [](const Segment& segment) { return segment.blocks.first; });
  std::vector<std::pair<BlockRange, bool>> runs;
  for (const Segment& segment : segments) {
    const bool data = segment.held.has_value() || segment.location.slot != 0;
    if (!runs.empty() && runs.back().second == data) {
      runs.back().first.count += segment.blocks.count;
    } else {
      runs.emplace_back(segment.blocks, data);
    }
  }
  return runs;
}

}  // namespace usbd::objstore

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
namespace {

/// The part of a run that is not in the cache.
ReadPiece piece_of(BlockRange blocks, Location location, const ObjectId& id,
                   const BlockCache::Gap& gap) {
  return {.blocks = {blocks.first + gap.first, gap.count},
          .location = {.slot = location.slot,
                       .position = location.position + static_cast<uint32_t>(gap.first)},
          .id = id};
}

}  // namespace

std::optional<std::vector<Volume::Segment>> Volume::resolve(BlockRange range) {
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
    if (!live_->map().here(gap)) return std::nullopt;
    for (const MappedRun& run : live_->map().find(gap)) {
      Segment& segment = segments.emplace_back(run.blocks);
      segment.location = run.location;
      if (run.location.slot != 0) segment.id = live_->table().facts(run.location.slot)->id;
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

/// The same, each with its part of `data`.
std::optional<std::vector<Volume::Segment>> Volume::resolve_into(BlockRange range,
                                                                 MutableBytes data) {
  std::optional<std::vector<Segment>> segments = resolve(range);
  if (!segments) return segments;
  for (Segment& segment : *segments) {
    segment.out = data.subspan((segment.blocks.first - range.first) * kBlockBytes,
                               segment.blocks.count * kBlockBytes);
  }
  return segments;
}

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
  co_return damage_if_gone(std::move(result));
}

Result<void> Volume::damage_if_gone(Result<void> result) {
  if (result || !result.error().is(Errc::kNotFound)) return result;
  return Error(Errc::kIo, result.error().context() +
                              ": the volume needs this object, but the store has it no more");
}

Task<Result<void>> Volume::read_once(uint64_t first_block, MutableBytes data) {
  USBD_ASSERT(data.size() % kBlockBytes == 0);
  const BlockRange range(first_block, data.size() / kBlockBytes);
  USBD_ASSERT(range.end() <= blocks());
  BlockRange ahead;
  {
    const MutexLock lock(mutex_);
    if (ended_) co_return *ended_;
    ahead = streams_.note(range);
  }
  if (ahead.count > 0 && ahead.first < blocks()) co_await read_ahead(ahead);
  const ReadPin pin(*this);
  MapHold hold;
  std::optional<std::vector<Segment>> segments = resolve_into(range, data);
  while (!segments) {
    USBD_CO_TRY(hold, co_await page_in(range));
    segments = resolve_into(range, data);
  }
  hold = MapHold();
  USBD_CO_TRY(std::vector<ReadPiece> missing, co_await read_all_local(*segments));
  if (missing.empty()) co_return Result<void>();
  co_await read_objects(missing, ObjectReader::Effort::kNormal);
  for (const ReadPiece& piece : missing) {
    if (!piece.error) continue;
    if (options_.read_only && piece.error->is(Errc::kNotFound)) co_return *piece.error;
    USBD_CO_TRY_VOID(co_await read_again(piece));
  }
  co_return Result<void>();
}

// --- what is here, and comes without waiting
// -------------------------------------------------------

/// The one place in an object, or nowhere, that all of a small range is in; and it needs no pin: in
/// the cache no block is ever another one.
std::optional<Volume::Segment> Volume::find_quickly(BlockRange range) {
  const MutexLock lock(mutex_);
  if (ended_) return std::nullopt;
  for (const std::shared_ptr<Batch>& batch : batches_) {
    if (!batch->find(range).empty()) return std::nullopt;
  }
  if (!live_->map().here(range)) return std::nullopt;
  const std::vector<MappedRun> runs = live_->map().find(range);
  if (runs.size() != 1) return std::nullopt;
  Segment segment(range);
  segment.location = runs.front().location;
  if (segment.location.slot != 0) {
    segment.id = live_->table().facts(segment.location.slot)->id;
  }
  if (!streams_.note_if_quiet(range)) return std::nullopt;
  return segment;
}

std::optional<Result<void>> Volume::try_read(uint64_t first_block, MutableBytes data) {
  USBD_ASSERT(data.size() % kBlockBytes == 0);
  const BlockRange range(first_block, data.size() / kBlockBytes);
  USBD_ASSERT(range.end() <= blocks());
  if (range.count > limits::kCacheTryBlocks) return std::nullopt;
  const std::optional<Segment> segment = find_quickly(range);
  if (!segment) return std::nullopt;
  if (segment->location.slot == 0) {
    std::memset(data.data(), 0, data.size());
    return Result<void>();
  }
  if (!cache_ || !cache_->try_read(segment->id, segment->location.position, data)) {
    return std::nullopt;
  }
  return Result<void>();
}

// --- what is here
// ---------------------------------------------------------------------------------

Task<Result<std::vector<ReadPiece>>> Volume::read_all_local(std::vector<Segment>& segments) {
  std::vector<ReadPiece> missing;
  std::optional<Error> failed;
  if (segments.size() == 1) {
    co_await read_local(segments.front(), missing, failed);
  }
  for (size_t next = segments.size() == 1 ? 1 : 0; next < segments.size() && !failed;) {
    Scope some;
    for (unsigned i = 0; i < limits::kLocalReadsMax && next < segments.size(); ++i, ++next) {
      some.spawn(read_local(segments[next], missing, failed));
    }
    co_await some.close();
  }
  if (failed) co_return *failed;
  co_return std::move(missing);
}

/// Reads what of a segment is in the journal or the cache; the rest goes to `missing`.
Task<void> Volume::read_local(Segment& segment, std::vector<ReadPiece>& missing,
                              std::optional<Error>& failed) {
  if (segment.held) {
    const Result<void> read = co_await journal_->read(*segment.held, segment.out);
    if (!read && !failed) failed = read.error();
    co_return;
  }
  if (segment.location.slot == 0) {
    std::memset(segment.out.data(), 0, segment.out.size());
    co_return;
  }
  std::vector<BlockCache::Gap> gaps{{.first = 0, .count = segment.blocks.count}};
  if (cache_) gaps = co_await cache_->read(segment.id, segment.location.position, segment.out);
  for (const BlockCache::Gap& gap : gaps) {
    missing.push_back(piece_of(segment.blocks, segment.location, segment.id, gap));
    missing.back().out = segment.out.subspan(gap.first * kBlockBytes, gap.count * kBlockBytes);
  }
}

// --- what is in the store
// -------------------------------------------------------------------------

Task<void> Volume::read_objects(std::span<ReadPiece> pieces, ObjectReader::Effort effort) {
  Loop& caller = Loop::current();
  if (&caller != &home_) co_await home_.schedule();
  co_await reader_->read(pieces, effort);
  if (&caller != &home_) co_await caller.schedule();
}

/// One more look at the map, and then at the store, past all that is kept.
Task<Result<void>> Volume::read_again(const ReadPiece& piece) {
  if (piece.error->is(Errc::kCanceled)) co_return Error(Errc::kShutdown, options_.name);
  if (!piece.doubtful) co_return *piece.error;
  // Looking again would hide it if objects were deleted under readers, most of the time.
  if (!keeps(VolumeRule::kWaitsForReaders)) co_return *piece.error;
  std::vector<ReadPiece> pieces;
  MapHold hold;
  std::optional<std::vector<Segment>> segments = resolve_into(piece.blocks, piece.out);
  while (!segments) {
    USBD_CO_TRY(hold, co_await page_in(piece.blocks));
    segments = resolve_into(piece.blocks, piece.out);
  }
  hold = MapHold();
  std::optional<Error> failed;
  for (Segment& segment : *segments) {
    if (segment.held || segment.location.slot == 0) {
      co_await read_local(segment, pieces, failed);
    } else {
      const BlockCache::Gap all{.first = 0, .count = segment.blocks.count};
      pieces.push_back(piece_of(segment.blocks, segment.location, segment.id, all));
      pieces.back().out = segment.out;
    }
  }
  if (failed) co_return *failed;
  co_await read_objects(pieces, ObjectReader::Effort::kAnew);
  for (const ReadPiece& again : pieces) {
    if (!again.error) continue;
    if (!again.doubtful) co_return *again.error;
    co_return Error(
        Errc::kIo, fmt::format("blocks {} to {}: there is no proven data for them: {}",
                               again.blocks.first, again.blocks.end() - 1, again.error->message()));
  }
  co_return Result<void>();
}

/// Begins to fetch what will be asked for next.
Task<void> Volume::read_ahead(BlockRange ahead) {
  ahead.count = std::min(ahead.count, blocks() - ahead.first);
  std::vector<ReadPiece> pieces;
  const std::optional<std::vector<Segment>> segments = resolve(ahead);
  if (!segments) co_return;  // nobody waits for it yet
  for (const Segment& segment : *segments) {
    if (segment.held || segment.location.slot == 0) continue;
    std::vector<BlockCache::Gap> gaps{{.first = 0, .count = segment.blocks.count}};
    if (cache_) {
      gaps = cache_->missing(segment.id, segment.location.position, segment.blocks.count);
    }
    for (const BlockCache::Gap& gap : gaps) {
      pieces.push_back(piece_of(segment.blocks, segment.location, segment.id, gap));
    }
  }
  if (pieces.empty()) co_return;
  Loop& caller = Loop::current();
  if (&caller != &home_) co_await home_.schedule();
  reader_->read_ahead(std::move(pieces));
  if (&caller != &home_) co_await caller.schedule();
}

/// Puts into the cache what a client asked for, and what of its frame is next to it in the volume
/// too, as far as the volume still has it there.
void Volume::admit(const ReadPiece& piece, uint32_t frame, const FrameMemory& plain) {
  if (!cache_) return;
  const uint64_t frame_first = uint64_t{frame} * kFrameBlocks;
  // Of the block at position p in this row the volume's number is p + blocks.first - location.
  const uint64_t position = piece.location.position;
  const uint64_t first =
      piece.blocks.first + frame_first < position ? position - piece.blocks.first : frame_first;
  uint64_t from = piece.blocks.first + first - position;
  uint64_t until =
      std::min(blocks(), piece.blocks.first + frame_first + plain->size() / kBlockBytes - position);
  if (from >= until) return;
  const uint64_t asked_from = std::max(from, piece.blocks.first);
  const uint64_t asked_until = std::min(until, piece.blocks.end());
  if (!cache_->takes_unasked((until - from) - (asked_until - asked_from))) {
    from = asked_from;
    until = asked_until;
  }
  std::vector<MappedRun> runs;
  {
    const MutexLock lock(mutex_);
    const ObjectFacts* const facts = live_->table().facts(piece.location.slot);
    if (facts == nullptr || facts->id != piece.id) return;
    const BlockRange range(from, until - from);
    if (!live_->map().here(range)) return;
    runs = live_->map().find(range);
  }
  for (const MappedRun& run : runs) {
    const bool in_row = run.location.slot == piece.location.slot &&
                        run.location.position + piece.blocks.first == position + run.blocks.first;
    if (!in_row) continue;
    const uint64_t at = run.location.position - frame_first;
    const Bytes blocks = plain->bytes().subspan(at * kBlockBytes, run.blocks.count * kBlockBytes);
    cache_->add(piece.id, run.location.position, blocks, plain);
  }
}

Task<Result<Volume::Slot>> Volume::fetch_slot(ObjectId id) {
  Result<ObjectReader::FetchedDirectory> fetched = co_await reader_->fetch_directory(id);
  if (!fetched) co_return fetched.error();
  co_return Slot{.bytes = fetched->object_bytes, .directory = std::move(fetched->directory)};
}

Task<Result<std::vector<std::pair<BlockRange, bool>>>> Volume::data_runs(BlockRange range) {
  MapHold hold;
  std::optional<std::vector<Segment>> segments = resolve(range);
  while (!segments) {
    USBD_CO_TRY(hold, co_await page_in(range));
    segments = resolve(range);
  }
  std::ranges::sort(*segments, {}, [](const Segment& segment) { return segment.blocks.first; });
  std::vector<std::pair<BlockRange, bool>> runs;
  for (const Segment& segment : *segments) {
    const bool data = segment.held.has_value() || segment.location.slot != 0;
    if (!runs.empty() && runs.back().second == data) {
      runs.back().first.count += segment.blocks.count;
    } else {
      runs.emplace_back(segment.blocks, data);
    }
  }
  co_return runs;
}

}  // namespace usbd::objstore

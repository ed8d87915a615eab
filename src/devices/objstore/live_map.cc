// SPDX-License-Identifier: Apache-2.0
//
// Whatever the map replaces is counted at once; objects that went empty are listed when the change
// is complete, since one and the same change may empty and fill.

#include "devices/objstore/live_map.h"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"

namespace usbd::objstore {

void LiveMap::loaded(uint64_t named) {
  next_checkpoint_ = named + 1;
  table_.for_each([this, named](uint32_t slot, const ObjectFacts& facts) {
    if (facts.state == ObjectState::kPending) {
      // A number that no checkpoint has yet would never come to pass. And this checkpoint may be
      // the first that does without a snapshot which pinned it.
      const uint64_t since = std::clamp(facts.pending_since, named, next_checkpoint_);
      line_up({.slot = slot, .id = facts.id, .since = since, .readers = generation_});
    } else if (facts.live == 0) {
      touched_.push_back(slot);
    }
  });
  std::ranges::sort(emptied_, {}, &Emptied::since);
  ++generation_;
  settle_touched();
}

Result<ObjectFacts> LiveMap::facts_of(const Directory& directory, uint64_t object_bytes) const {
  ObjectFacts facts{.id = directory.header().id,
                    .object_bytes = object_bytes,
                    .blocks = static_cast<uint32_t>(directory.header().data_blocks),
                    .first_write = directory.first_write(),
                    .last_write = directory.last_write()};
  for (const FrameInfo& frame : directory.frames()) facts.stored_bytes += frame.stored;
  if (facts.id.kind == ObjectKind::kGc) facts.first_write = facts.last_write = 0;
  if (const std::string wrong = ObjectTable::check(facts); !wrong.empty()) {
    return Error(Errc::kDamaged, fmt::format("object {} {}", to_text(facts.id), wrong));
  }
  for (const Extent& extent : directory.extents()) {
    const BlockRange blocks(extent.block, extent.blocks);
    if (blocks.end() <= map_.blocks()) continue;
    return Error(Errc::kDamaged, fmt::format("object {} holds block {}, but the volume has {}",
                                             to_text(facts.id), blocks.end() - 1, map_.blocks()));
  }
  return facts;
}

void LiveMap::drop(uint32_t slot, uint32_t blocks) {
  table_.drop_live(slot, blocks);
  if (table_.facts(slot)->live == 0) touched_.push_back(slot);
}

Result<void> LiveMap::add(const Directory& directory, uint64_t object_bytes) {
  USBD_TRY(Intake intake, begin(directory, object_bytes));
  while (next(intake)) step(intake);
  finish(intake);
  return {};
}

Result<uint64_t> LiveMap::add_moved(const Directory& directory, uint64_t object_bytes,
                                    Moves moves) {
  USBD_TRY(Intake intake, begin(directory, object_bytes, moves));
  while (next(intake)) step(intake);
  return finish(intake);
}

Result<LiveMap::Intake> LiveMap::begin(const Directory& directory, uint64_t object_bytes,
                                       std::optional<Moves> moves) {
  USBD_ASSERT(!moves || directory.header().id.kind == ObjectKind::kGc);
  USBD_TRY(const ObjectFacts facts, facts_of(directory, object_bytes));
  USBD_TRY(const uint32_t slot, table_.add(facts));
  incoming_.push_back(slot);
  return Intake{.directory = &directory, .slot = slot, .moves = moves};
}

std::optional<BlockRange> LiveMap::next(const Intake& intake) const {
  const std::vector<Extent>& extents = intake.directory->extents();
  if (intake.extent == extents.size()) return std::nullopt;
  const Extent& extent = extents[intake.extent];
  const uint64_t first = extent.block + intake.done;
  const uint64_t leaf_end = first - first % kLeafBlocks + kLeafBlocks;
  return BlockRange(first, std::min<uint64_t>(extent.block + extent.blocks, leaf_end) - first);
}

void LiveMap::step(Intake& intake) {
  const uint64_t leaf = next(intake)->first / kLeafBlocks;
  for (std::optional<BlockRange> piece = next(intake); piece && piece->first / kLeafBlocks == leaf;
       piece = next(intake)) {
    const Extent& extent = intake.directory->extents()[intake.extent];
    take(intake, extent, *piece);
    intake.done += piece->count;
    if (intake.done < extent.blocks) continue;
    ++intake.extent;
    intake.done = 0;
  }
}

void LiveMap::take(Intake& intake, const Extent& extent, BlockRange piece) {
  const BlockMap::Replaced replaced = [this](uint32_t old, uint32_t blocks) { drop(old, blocks); };
  const bool data = extent.kind == ExtentKind::kData;
  const auto done = static_cast<uint32_t>(intake.done);
  const Location to{.slot = data ? intake.slot : 0,
                    .position = data ? extent.position.value + done : 0};
  uint64_t count = piece.count;
  if (!intake.moves) {
    map_.set(piece, to, replaced);
  } else if (!data) {
    return;
  } else if (*intake.moves == Moves::kEverywhere) {
    map_.set(piece, to, replaced);
  } else {
    const Source& source = intake.directory->sources()[intake.extent];
    // By its name: a slot may mean another object by now.
    const Location from{.slot = table_.find(source.object),
                        .position = source.position.value + done};
    count = from.slot == 0 ? 0 : map_.move(piece, from, to, replaced);
  }
  if (!data) return;
  table_.add_live(intake.slot, static_cast<uint32_t>(count));
  intake.moved += count;
}

uint64_t LiveMap::finish(const Intake& intake) {
  std::erase(incoming_, intake.slot);
  touched_.push_back(intake.slot);
  settle_touched();
  return intake.moved;
}

bool LiveMap::is_incoming(uint32_t slot) const {
  return std::ranges::find(incoming_, slot) != incoming_.end();
}

void LiveMap::settle_touched() {
  for (const uint32_t slot : touched_) {
    if (is_incoming(slot)) continue;  // finish() looks at it
    const ObjectFacts& facts = *table_.facts(slot);
    if (facts.state == ObjectState::kInUse && facts.live == 0) list(slot);
  }
  touched_.clear();
}

void LiveMap::list(uint32_t slot) {
  table_.set_pending(slot, next_checkpoint_);
  line_up({.slot = slot,
           .id = table_.facts(slot)->id,
           .since = next_checkpoint_,
           .readers = generation_});
  ++generation_;  // reads that begin from here on do not find it
}

void LiveMap::line_up(const Emptied& emptied) {
  const bool pinned = is_pinned(*table_.facts(emptied.slot));
  if (pinned) {
    held_.push_back(emptied);
  } else {
    emptied_.push_back(emptied);
  }
}

void LiveMap::set_pins(SnapshotPins pins, uint64_t released) {
  if (pins == pins_) return;
  pins_ = std::move(pins);
  table_.set_pins(pins_.newest());
  for (Emptied& emptied : std::exchange(held_, {})) {
    emptied.since = std::max(emptied.since, released);
    line_up(emptied);
  }
}

bool LiveMap::is_used(const Directory& directory, uint32_t slot) const {
  return std::ranges::any_of(directory.extents(),
                             [this, slot](const Extent& extent) { return is_used(extent, slot); });
}

bool LiveMap::is_used(const Extent& extent, uint32_t slot) const {
  if (extent.kind != ExtentKind::kData) return false;
  const bool ours = BlockRange(extent.block, extent.blocks).end() <= map_.blocks();
  if (!ours) return true;  // not what was taken in: nothing to be sure of
  const std::vector<MappedRun> runs = map_.find({extent.block, extent.blocks});
  return std::ranges::any_of(runs,
                             [slot](const MappedRun& run) { return run.location.slot == slot; });
}

uint64_t LiveMap::begin_read() {
  ++readers_[generation_];
  return generation_;
}

void LiveMap::end_read(uint64_t generation) {
  const auto found = readers_.find(generation);
  USBD_ASSERT(found != readers_.end());
  if (--found->second == 0) readers_.erase(found);
}

std::vector<LiveMap::Emptied> LiveMap::take_deletable(const Named& named, size_t most,
                                                      bool heeds_readers) {
  std::vector<Emptied> taken;
  while (taken.size() < most && !emptied_.empty()) {
    const Emptied& next = emptied_.front();
    // Listed by a checkpoint that was named long enough ago, and not by the last one only.
    if (next.since > named.settled || next.since >= named.last) break;
    const bool wanted = !readers_.empty() && readers_.begin()->first <= next.readers;
    if (wanted && heeds_readers) break;
    if (is_pinned(*table_.facts(next.slot))) {
      held_.push_back(next);
    } else {
      taken.push_back(next);
    }
    emptied_.pop_front();
  }
  return taken;
}

}  // namespace usbd::objstore

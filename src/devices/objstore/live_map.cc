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
    return Error(Errc::kIo, fmt::format("object {} {}", to_text(facts.id), wrong));
  }
  for (const Extent& extent : directory.extents()) {
    const BlockRange blocks(extent.block, extent.blocks);
    if (blocks.end() <= map_.blocks()) continue;
    return Error(Errc::kIo, fmt::format("object {} holds block {}, but the volume has {}",
                                        to_text(facts.id), blocks.end() - 1, map_.blocks()));
  }
  return facts;
}

void LiveMap::drop(uint32_t slot, uint32_t blocks) {
  table_.drop_live(slot, blocks);
  if (table_.facts(slot)->live == 0) touched_.push_back(slot);
}

Result<void> LiveMap::add(const Directory& directory, uint64_t object_bytes) {
  USBD_TRY(const ObjectFacts facts, facts_of(directory, object_bytes));
  USBD_TRY(const uint32_t slot, table_.add(facts));
  const BlockMap::Replaced replaced = [this](uint32_t old, uint32_t blocks) { drop(old, blocks); };
  for (const Extent& extent : directory.extents()) {
    const BlockRange blocks(extent.block, extent.blocks);
    const bool data = extent.kind == ExtentKind::kData;
    const Location to{.slot = slot, .position = extent.position.value};
    map_.set(blocks, data ? to : Location{}, replaced);
    if (data) table_.add_live(slot, extent.blocks);
  }
  touched_.push_back(slot);
  settle_touched();
  return {};
}

Result<uint64_t> LiveMap::add_moved(const Directory& directory, uint64_t object_bytes,
                                    Moves moves) {
  USBD_ASSERT(directory.header().id.kind == ObjectKind::kGc);
  USBD_TRY(const ObjectFacts facts, facts_of(directory, object_bytes));
  USBD_TRY(const uint32_t slot, table_.add(facts));
  const BlockMap::Replaced replaced = [this](uint32_t old, uint32_t blocks) { drop(old, blocks); };
  uint64_t moved = 0;
  for (size_t i = 0; i < directory.extents().size(); ++i) {
    const Extent& extent = directory.extents()[i];
    const Source& source = directory.sources()[i];
    if (extent.kind != ExtentKind::kData) continue;
    const BlockRange blocks(extent.block, extent.blocks);
    const Location to{.slot = slot, .position = extent.position.value};
    // By its name: a slot may mean another object by now.
    const Location from{.slot = table_.find(source.object), .position = source.position.value};
    uint64_t count = extent.blocks;
    if (moves == Moves::kEverywhere) {
      map_.set(blocks, to, replaced);
    } else {
      count = from.slot == 0 ? 0 : map_.move(blocks, from, to, replaced);
    }
    table_.add_live(slot, static_cast<uint32_t>(count));
    moved += count;
  }
  touched_.push_back(slot);
  settle_touched();
  return moved;
}

void LiveMap::settle_touched() {
  for (const uint32_t slot : touched_) {
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
  return std::ranges::any_of(directory.extents(), [this, slot](const Extent& extent) {
    if (extent.kind != ExtentKind::kData) return false;
    const bool ours = BlockRange(extent.block, extent.blocks).end() <= map_.blocks();
    if (!ours) return true;  // not what was taken in: nothing to be sure of
    const std::vector<MappedRun> runs = map_.find({extent.block, extent.blocks});
    return std::ranges::any_of(runs,
                               [slot](const MappedRun& run) { return run.location.slot == slot; });
  });
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

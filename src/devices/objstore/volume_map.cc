// SPDX-License-Identifier: Apache-2.0
//
// The volume's map within its memory: whoever needs leaves that are away has them brought back
// first, on the volume's own loop, and then goes on as if they had never been gone.
//
// Objects are taken in leaf by leaf, each under the lock for a moment. Until a log object is taken
// in, its batch stays in front of the map, so no read sees the half of it; and no checkpoint takes
// its moment meanwhile. What garbage collection moves is found at its old or at its new place, and
// both are there.

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "base/log.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {

std::shared_ptr<MapPager> Volume::make_pager(LiveMap& live) {
  MapPager::Options options;
  // The rest is for what changes while a checkpoint is made.
  options.memory_max = options_.map_bytes - options_.map_bytes / limits::kMapCopiesPart;
  options.exclusively = [this](const std::function<void()>& change) {
    const MutexLock lock(mutex_);
    change();
  };
  options.recover = [this](uint64_t leaf) { return recover_leaf(leaf); };
  return std::make_shared<MapPager>(live.map(), parts_.folder, parts_.rng, std::move(options));
}

Task<Result<std::vector<std::byte>>> Volume::recover_leaf(uint64_t leaf) {
  const CheckpointRoot* root = checkpoints_ ? &checkpoints_->root() : nullptr;
  if (read_root_) root = &*read_root_;
  if (root == nullptr || root->number == 0) {
    co_return Error(Errc::kNotFound, "there is no checkpoint");
  }
  const CheckpointPlace place(parts_.store, options_.name, seal());
  CheckpointReader reader(place, stop_.get_token());
  co_return co_await reader.read_leaf(*root, leaf);
}

Task<Result<MapHold>> Volume::page_in(BlockRange range) {
  Loop& caller = Loop::current();
  if (&caller != &home_) co_await home_.schedule();
  // Who only reads may have another map from one moment to the next: the caller looks again.
  const std::shared_ptr<MapPager> pager = pager_;
  Result<MapHold> hold = co_await pager->hold(range);
  if (&caller != &home_) co_await caller.schedule();
  co_return hold;
}

Task<Result<uint64_t>> Volume::take_in(LiveMap& live, MapPager& pager, const Slot& slot,
                                       std::optional<LiveMap::Moves> moves) {
  // It is this task's as long as that runs.
  const std::shared_ptr<const Directory> directory = slot.directory;
  LiveMap::Intake intake;
  {
    const MutexLock lock(mutex_);
    USBD_CO_TRY(intake, live.begin(*directory, slot.bytes, moves));
  }
  Result<void> taken;
  uint64_t turn = 0;
  while (taken) {
    const std::optional<BlockRange> piece = live.next(intake);
    if (!piece) break;
    MapHold hold;
    if (!live.map().here(*piece)) {
      Result<MapHold> held = co_await pager.hold(*piece);
      if (held) {
        hold = *std::move(held);
      } else {
        taken = held.error();
        continue;
      }
    }
    {
      const MutexLock lock(mutex_);
      live.step(intake);
    }
    if (!pager.has_room()) co_await pager.make_room();
    while (has_many_copies()) co_await home_.sleep_for(limits::kMapCopiesPause);
    if (++turn % limits::kMapTurn == 0) co_await home_.schedule();
  }
  const MutexLock lock(mutex_);
  const uint64_t moved = live.finish(intake);
  if (!taken) co_return taken.error();
  co_return moved;
}

/// Whether changes have to wait until the checkpoint has written what they changed before.
bool Volume::has_many_copies() {
  return checkpoints_ && !stop_.stop_requested() &&
         checkpoints_->copied_bytes() > options_.map_bytes / limits::kMapCopiesPart;
}

Task<Result<bool>> Volume::is_used(const Directory& directory, uint32_t slot) {
  uint64_t turn = 0;
  for (const Extent& extent : directory.extents()) {
    const BlockRange blocks(extent.block, extent.blocks);
    MapHold hold;
    if (blocks.end() <= this->blocks() && !live_->map().here(blocks)) {
      USBD_CO_TRY(hold, co_await pager_->hold(blocks));
    }
    if (live_->is_used(extent, slot)) co_return true;
    if (++turn % limits::kMapTurn == 0) co_await home_.schedule();
  }
  co_return false;
}

}  // namespace usbd::objstore

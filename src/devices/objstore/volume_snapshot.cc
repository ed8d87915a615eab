// SPDX-License-Identifier: Apache-2.0
//
// Snapshots are taken and deleted by the checkpoints that are made anyway. A snapshot is a
// checkpoint, and it exists while the root that the head names lists it; the root that is the
// snapshot cannot list itself, so that takes one checkpoint more.
//
// What makes it safe:
// - Taking: everything numbered is published; a checkpoint is stored, and the head names it; the
//   next one, whose root lists the first, is stored; the head names that. Only then the snapshot is
//   there. A crash before leaves a checkpoint like others, of which nothing is left in the end.
// - What was emptied after the snapshot's moment is deleted only after two later checkpoints. The
//   first of these lists the snapshot, and pins are set before it is begun.
// - Deleting: a root that does not list it is stored; the head names that; only then what it alone
//   needed is let go: parts of checkpoints that neither the snapshot before it, nor the one behind
//   it, nor the volume needs; data objects by the rules that all follow, from that root on.
// - Checkpoints need an object in an unbroken row. So its neighbours are all that have to be asked.

#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"
#include "devices/objstore/names.h"
#include "devices/objstore/snapshot_order.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {

std::vector<SnapshotRef> Volume::snapshots() {
  const MutexLock lock(mutex_);
  return snapshots_;
}

Task<Result<SnapshotRef>> Volume::snapshot(SnapshotLabel label) {
  Loop& caller = Loop::current();
  if (&caller != &home_) co_await home_.schedule();
  Result<SnapshotRef> taken = co_await take_snapshot(std::move(label));
  if (&caller != &home_) co_await caller.schedule();
  co_return taken;
}

Task<Result<void>> Volume::delete_snapshot(uint64_t number) {
  Loop& caller = Loop::current();
  if (&caller != &home_) co_await home_.schedule();
  const Result<void> dropped = co_await drop_snapshot(number);
  if (&caller != &home_) co_await caller.schedule();
  co_return dropped;
}

/// Waits for its turn: one order at a time.
Task<Result<void>> Volume::place(SnapshotOrder order) {
  if (options_.read_only) {
    co_return Error(Errc::kPerm, options_.name + ": is open for reading only");
  }
  while (order_ && !stop_.stop_requested()) {
    co_await home_.sleep_for(limits::kHeadRetryMin, stop_.get_token());
  }
  const MutexLock lock(mutex_);
  if (ended_) co_return *ended_;
  if (closing_ || stop_.stop_requested()) co_return Error(Errc::kShutdown, options_.name);
  order_ = std::make_unique<SnapshotOrder>(std::move(order));
  co_return Result<void>();
}

Task<Result<SnapshotRef>> Volume::take_snapshot(SnapshotLabel label) {
  if (const std::string wrong = check_snapshot_name(label.name); !wrong.empty()) {
    co_return Error(Errc::kInvalid, "the name of the snapshot " + wrong);
  }
  SnapshotOrder order;
  order.step = SnapshotOrder::Step::kWaits;
  order.label = std::move(label);
  USBD_CO_TRY_VOID(co_await place(std::move(order)));
  Result<void> done = may_take(order_->label);
  if (done) done = co_await wait_published(last_number());
  if (done) {
    order_->step = SnapshotOrder::Step::kTakes;
    done = co_await carry_out();
  }
  const std::unique_ptr<SnapshotOrder> carried = std::exchange(order_, nullptr);
  if (!done) co_return done.error();
  log::info("{}: snapshot {} {} is taken: what was written up to {}", options_.name,
            carried->taken.number, carried->taken.name, carried->taken.last_write);
  co_return carried->taken;
}

Result<void> Volume::may_take(const SnapshotLabel& label) {
  const MutexLock lock(mutex_);
  if (snapshots_.size() >= limits::kSnapshotsMax) {
    return Error(Errc::kNoSpace, fmt::format("{} has {} snapshots, as many as it can: delete one",
                                             options_.name, snapshots_.size()));
  }
  const auto same = std::ranges::find(snapshots_, label.name, &SnapshotRef::name);
  if (label.name.empty() || same == snapshots_.end()) return {};
  return Error(Errc::kExists, fmt::format("snapshot {} of {} is called {} already", same->number,
                                          options_.name, label.name));
}

Task<Result<void>> Volume::drop_snapshot(uint64_t number) {
  SnapshotOrder order;
  order.step = SnapshotOrder::Step::kWaits;
  order.drops = number;
  USBD_CO_TRY_VOID(co_await place(std::move(order)));
  Result<void> done = co_await find_freed(number);
  if (done) {
    order_->step = SnapshotOrder::Step::kLists;
    done = co_await carry_out();
  }
  order_.reset();
  if (done) log::info("{}: snapshot {} is deleted", options_.name, number);
  co_return done;
}

/// Until the head names what was ordered.
Task<Result<void>> Volume::carry_out() {
  while (order_->step != SnapshotOrder::Step::kDone) {
    {
      const MutexLock lock(mutex_);
      if (ended_) co_return *ended_;
      // What is stored will be named by the last change of the head, or before.
      const bool stored = order_->attempt > 0 && ready_root_;
      if (stop_.stop_requested() || (closing_ && !stored)) {
        co_return Error(Errc::kShutdown, options_.name + ": is closed before the snapshot is done");
      }
      wake_background();
    }
    co_await home_.sleep_for(limits::kHeadRetryMin, stop_.get_token());
  }
  co_return Result<void>();
}

// --- what the checkpoints do for it
// ---------------------------------------------------------------

bool Volume::order_is_due() const {
  return order_ && (order_->step == SnapshotOrder::Step::kTakes ||
                    order_->step == SnapshotOrder::Step::kLists);
}

/// At the moment of checkpoint `number`: the snapshots that its root lists.
std::vector<SnapshotRef> Volume::snapshots_at(uint64_t number) {
  std::vector<SnapshotRef> list = checkpoints_->root().snapshots;
  if (order_ && order_->step == SnapshotOrder::Step::kTakes) {
    order_->attempt = number;
    order_->taken = {.number = number,
                     .root = {},
                     .last_seq = published_seq_,
                     .last_write = published_number_,
                     .last_moved = last_moved_id_,
                     .time = order_->label.time,
                     .name = order_->label.name};
  } else if (order_ && order_->step == SnapshotOrder::Step::kLists) {
    order_->attempt = number;
    if (order_->drops > 0) {
      std::erase_if(list, [this](const SnapshotRef& ref) { return ref.number == order_->drops; });
    } else {
      list.push_back(order_->taken);
    }
  }
  // Until the head names it: what the last root needs, too.
  pin(*live_, SnapshotPins(list, snapshots_), number);
  return list;
}

void Volume::pin(LiveMap& live, SnapshotPins pins, uint64_t released) const {
  if (keeps(VolumeRule::kKeepsForSnapshots)) live.set_pins(std::move(pins), released);
}

/// Checkpoint `number` is stored.
void Volume::order_stored(uint64_t number, const PiecePointer& root) {
  if (!order_ || order_->attempt != number) return;
  if (order_->step == SnapshotOrder::Step::kTakes) {
    order_->taken.root = root;
    order_->step = SnapshotOrder::Step::kLists;
    order_->attempt = 0;
    return;
  }
  const std::set<MapObjectId> needed = map_objects_of(checkpoints_->root(), root.object);
  for (const MapObjectId& id : order_->freed) {
    if (needed.contains(id)) continue;
    ready_root_->garbage.push_back(map_name(options_.name, id.epoch, id.id));
  }
  if (!keeps(VolumeRule::kNamesBeforeItTakes)) order_->step = SnapshotOrder::Step::kDone;
}

/// The head names checkpoint `number`.
void Volume::order_named(uint64_t number) {
  const MutexLock lock(mutex_);
  // No other checkpoint was begun since this one was stored.
  snapshots_ = checkpoints_->root().snapshots;
  pin(*live_, SnapshotPins(snapshots_), number);
  if (order_ && order_->attempt == number && order_->step == SnapshotOrder::Step::kLists) {
    order_->step = SnapshotOrder::Step::kDone;
  }
}

// --- what a snapshot alone needs
// ------------------------------------------------------------------

Task<Result<std::set<MapObjectId>>> Volume::needed_by(SnapshotRef snapshot) {
  const CheckpointPlace place(parts_.store, options_.name, seal());
  CheckpointReader reader(place, stop_.get_token());
  Result<CheckpointRoot> root = Error(Errc::kCanceled);
  for (unsigned attempt = 0; attempt < limits::kSnapshotAttempts; ++attempt) {
    root = co_await reader.read_root(snapshot.root);
    if (root || !objects::is_transient(root.error()) || stop_.stop_requested()) break;
    co_await home_.sleep_for(limits::kUploadRetry, stop_.get_token());
  }
  if (!root) co_return root.error();
  co_return map_objects_of(*root, snapshot.root.object);
}

/// Parts of checkpoints that the snapshot needs, and none of those beside it.
Task<Result<void>> Volume::find_freed(uint64_t number) {
  const std::vector<SnapshotRef> all = snapshots();
  const auto found = std::ranges::find(all, number, &SnapshotRef::number);
  if (found == all.end()) {
    co_return Error(Errc::kNotFound,
                    fmt::format("{}: there is no snapshot {}", options_.name, number));
  }
  Result<std::set<MapObjectId>> freed = co_await needed_by(*found);
  std::vector<SnapshotRef> beside;
  if (found != all.begin()) beside.push_back(*std::prev(found));
  if (std::next(found) != all.end()) beside.push_back(*std::next(found));
  if (!keeps(VolumeRule::kFreesWhatNoneNeeds)) beside.clear();
  for (const SnapshotRef& other : beside) {
    if (!freed) break;
    const Result<std::set<MapObjectId>> needed = co_await needed_by(other);
    if (!needed) {
      freed = needed.error();
    } else {
      std::erase_if(*freed, [&needed](const MapObjectId& id) { return needed->contains(id); });
    }
  }
  if (freed) {
    order_->freed.assign(freed->begin(), freed->end());
    co_return Result<void>();
  }
  const bool is_away = freed.error().is(Errc::kAgain) || freed.error().is(Errc::kTimedOut);
  if (is_away || stop_.stop_requested()) co_return freed.error();
  // It is damaged. It shall be possible to get rid of it nevertheless. The next opening looks for
  // what it leaves.
  log::warning("{}; what snapshot {} alone needs is left behind for now", freed.error().message(),
               number);
  co_return Result<void>();
}

}  // namespace usbd::objstore

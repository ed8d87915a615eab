// SPDX-License-Identifier: Apache-2.0
//
// What nobody needs any more is removed from the bucket: data objects in which nothing is live, and
// what earlier checkpoints were made of.
//
// What makes it safe, also when this process does not own the volume any more and does not know, or
// when a deletion takes effect long after it was asked for (src/devices/objstore/README.md):
// - What is asked for here is not needed by the root that the head names, as its owner knows, nor
//   by any later one. Whoever takes the volume has read a head that names this root or a later one.
// - Names are of one epoch, and never given twice: what takes effect late hits what was meant.
// - Blocks are mapped to an object only when it is taken in, so nothing comes back to life.

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"
#include "devices/objstore/names.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {

LiveMap::Named Volume::named_checkpoints() {
  if (!keeps(VolumeRule::kListsBeforeItDeletes)) {
    return {.settled = UINT64_MAX, .last = UINT64_MAX};
  }
  const Nanos now = home_.now();
  while (!recently_named_.empty() &&
         now - recently_named_.front().second >= options_.space.delete_after) {
    named_.settled = recently_named_.front().first;
    recently_named_.pop_front();
  }
  return named_;
}

bool Volume::deleting_is_over() {
  const MutexLock lock(mutex_);
  return stop_.stop_requested() || ended_.has_value() || closing_ || keeper_.fenced();
}

void Volume::add_garbage(std::string name) {
  // Beyond that they are left to whoever opens the volume next.
  if (garbage_.size() >= limits::kGarbageMax) return;
  const Nanos not_before = home_.now() + options_.space.delete_after;
  garbage_.push_back({.name = std::move(name), .not_before = not_before});
}

void Volume::start_deleting() {
  if (deleting_ || home_.now() < delete_not_before_ || deleting_is_over()) return;
  {
    const MutexLock lock(mutex_);
    if (garbage_.empty() && live_->emptied() == 0) return;
  }
  deleting_ = true;
  scope_.spawn(delete_unneeded());
}

Task<void> Volume::delete_unneeded() {
  bool more = true;
  // A store that cannot compare lets another process take the volume without a trace: look first.
  if (!options_.fencing) {
    const objects::CallLimits limits{.stop = stop_.get_token()};
    const Result<void> checked = co_await keeper_.check(limits);
    if (keeper_.fenced()) fence(checked.error());
    more = checked.has_value();
  }
  while (more && !deleting_is_over()) more = co_await delete_some();
  deleting_ = false;
}

Task<bool> Volume::delete_some() {
  Scope some;
  bool failed = false;
  size_t count = 0;
  for (; count < limits::kDeletesAtOnce && !garbage_.empty(); ++count) {
    if (garbage_.front().not_before > home_.now()) break;
    Garbage garbage = std::move(garbage_.front());
    garbage_.pop_front();
    some.spawn(remove_garbage(std::move(garbage), failed));
  }
  std::vector<LiveMap::Emptied> deletable;
  {
    const LiveMap::Named named = named_checkpoints();
    const MutexLock lock(mutex_);
    deletable =
        live_->take_deletable(named, limits::kDeletesAtOnce, keeps(VolumeRule::kWaitsForReaders));
  }
  count += deletable.size();
  for (const LiveMap::Emptied& emptied : deletable) some.spawn(delete_object(emptied, failed));
  co_await some.close();
  if (failed) {
    const Nanos pause = std::min<Nanos>(limits::kDeleteRetry, options_.space.delete_after);
    delete_not_before_ = home_.now() + std::max<Nanos>(pause, limits::kUpkeepMin);
  }
  co_return count > 0 && !failed;
}

Task<void> Volume::remove_garbage(Garbage garbage, bool& failed) {
  const objects::CallLimits limits{.stop = stop_.get_token()};
  const Result<void> removed = co_await parts_.store.remove(garbage.name, limits);
  if (removed || stop_.stop_requested()) co_return;
  log::info("{}; it is tried again", removed.error().message());
  failed = true;
  garbage_.push_back(std::move(garbage));
}

Task<void> Volume::delete_object(LiveMap::Emptied emptied, bool& failed) {
  const Result<Slot> fetched = co_await fetch_slot(emptied.id);
  if (fetched) {
    const Result<bool> used = co_await is_used(*fetched->directory, emptied.slot);
    if (!used) {
      log::info("{}; it is tried again", used.error().message());
      const MutexLock lock(mutex_);
      live_->give_back(emptied);
      failed = true;
      co_return;
    }
    if (*used) {
      log::error("{} counts as empty, but blocks are mapped to it: it is kept",
                 data_name(options_.name, emptied.id));
      co_return;
    }
  }
  const bool gone = !fetched && fetched.error().is(Errc::kNotFound);
  if (deleting_is_over()) co_return;
  Result<void> removed;
  if (fetched) {
    const objects::CallLimits limits{.stop = stop_.get_token()};
    removed = co_await parts_.store.remove(data_name(options_.name, emptied.id), limits);
  } else if (!gone) {
    removed = fetched.error();
  }
  const MutexLock lock(mutex_);
  if (removed) {
    live_->deleted(emptied);
    ++since_.changes;
    ++counted_.objects_deleted;
    co_return;
  }
  live_->give_back(emptied);
  if (!stop_.stop_requested()) log::info("{}; it is tried again", removed.error().message());
  failed = true;
}

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// Garbage collection, one round at a time, in the background: blocks that are live in objects with
// much that is dead, or in small ones, are copied in the order of the volume into a new object
// `g/<epoch>/<id>`, and the map is told where they are now.
//
// What makes it safe:
// - It copies what the map says, proves it as every read does, and maps only those blocks to the
//   copy that still are where it was copied from. What was written meanwhile stays.
// - The new object is whole in the store before the map points at it. The head learns of it by the
//   next checkpoint; if that never comes, the next opening reads the old places, which are there:
//   they are deleted only after two checkpoints say that they are empty (volume_delete.cc).
// - No flush waits for it: it is not in the order of the writes.
//
// It has one request under way at a time and rests as long as it has worked, unless the volume is
// far above its size.

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"
#include "devices/objstore/clean_job.h"
#include "devices/objstore/data_object_writer.h"
#include "devices/objstore/names.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {

bool Volume::cleaning_is_due() {
  if (cleaning_ || ended_ || closing_ || home_.now() < clean_not_before_) return false;
  const CleanRules& rules = options_.space.clean;
  if (rules.target <= 0) return false;
  const ObjectTotals used = live_->table().unpinned();
  return VictimChooser::is_wasteful(rules, used.stored_bytes, used.live_bytes) ||
         (rules.small_objects > 0 && objects_since_choice_ >= rules.small_objects);
}

bool Volume::cleaning_is_over() {
  const MutexLock lock(mutex_);
  return stop_.stop_requested() || ended_.has_value() || closing_ || keeper_.fenced();
}

void Volume::start_cleaning() {
  {
    const MutexLock lock(mutex_);
    if (stop_.stop_requested() || !cleaning_is_due()) return;
  }
  cleaning_ = true;
  scope_.spawn(clean());
}

Task<void> Volume::clean() {
  const Nanos begun = home_.now();
  const Result<bool> cleaned = co_await clean_once();
  if (!cleaned && !cleaning_is_over()) {
    log::warning("{}; garbage collection goes on later", cleaned.error().message());
  }
  Nanos pause = home_.now() - begun;
  const MutexLock lock(mutex_);
  const ObjectTotals used = live_->table().unpinned();
  const bool wasteful =
      VictimChooser::is_wasteful(options_.space.clean, used.stored_bytes, used.live_bytes);
  // That there are not enough small objects says nothing of what will be wasted soon.
  if (!cleaned || (!*cleaned && wasteful)) {
    pause = std::min<Nanos>(limits::kCleanRetry, options_.space.delete_after);
  }
  const double most = options_.space.clean.target * limits::kCleanHurry;
  const bool hurries = cleaned && *cleaned &&
                       static_cast<double>(used.stored_bytes) >
                           most * static_cast<double>(std::max<uint64_t>(used.live_bytes, 1));
  clean_not_before_ = home_.now() + (hurries ? Nanos(0) : pause);
  cleaning_ = false;
  wake_background();
}

/// Returns whether there was anything to do.
Task<Result<bool>> Volume::clean_once() {
  CleanJob job;
  job.victims = co_await choose_victims();
  if (job.victims.empty()) co_return false;
  USBD_CO_TRY_VOID(co_await collect(job));
  if (job.runs.empty()) co_return true;  // overwritten meanwhile
  USBD_CO_TRY_VOID(co_await fetch_live(job));
  const uint64_t moved_id = std::max(next_moved_id_, moved_id_after(last_published_seq()));
  next_moved_id_ = moved_id + 1;
  job.id = {.epoch = head().epoch, .seq = moved_id, .kind = ObjectKind::kGc};
  USBD_CO_TRY(const std::vector<std::byte> bytes, co_await seal_moved(job));
  USBD_CO_TRY_VOID(co_await store_moved(job, bytes));
  USBD_CO_TRY_VOID(co_await apply_moved(job, bytes));
  co_return true;
}

uint64_t Volume::last_published_seq() {
  const MutexLock lock(mutex_);
  return published_seq_;
}

Task<std::vector<Victim>> Volume::choose_victims() {
  {
    const MutexLock lock(mutex_);
    objects_since_choice_ = 0;
  }
  VictimChooser chooser(options_.space.clean, last_published_seq());
  const ObjectTable& table = live_->table();
  for (uint32_t slot = 1; slot < table.slots_end(); ++slot) {
    const ObjectFacts* const facts = table.facts(slot);
    // Of what a snapshot pins nothing would be gained.
    const bool stays = facts == nullptr || live_->is_pinned(*facts) || live_->is_incoming(slot);
    if (!stays && !shunned_.contains(facts->id)) chooser.show(slot, *facts);
    if (slot % limits::kCleanTurn == 0) co_await home_.schedule();
  }
  co_return chooser.choose();
}

// --- the new object
// -------------------------------------------------------------------------------

Task<Result<std::vector<std::byte>>> Volume::seal_moved(CleanJob& job) {
  DataObjectWriter::Facts facts{.id = job.id, .codec = options_.codec};
  parts_.rng.fill(facts.salt);
  USBD_CO_TRY(DataObjectWriter writer, DataObjectWriter::create(seal(), facts));
  writer.expect(job.runs.size(), job.data.size() / kBlockBytes);
  for (size_t next = 0; next < job.runs.size();) {
    const auto add_some = [&writer, &job, &next] {
      for (uint64_t added = 0; added < limits::kSealStepBytes && next < job.runs.size(); ++next) {
        const LiveRun& run = job.runs[next];
        const Bytes bytes = Bytes(job.data).subspan(run.at, run.blocks.count * kBlockBytes);
        const Source source{.object = run.id, .position = run.position};
        static_cast<void>(writer.add_moved(run.blocks.first, bytes, source));  // directory says
        added += bytes.size();
      }
      return true;
    };
    co_await aside(add_some);
  }
  std::vector<std::byte>().swap(job.data);
  std::vector<std::byte> object;
  const auto finish = [&writer, &object] {
    object = writer.finish();
    return true;
  };
  co_await aside(finish);
  co_return object;
}

Task<Result<void>> Volume::store_moved(const CleanJob& job, Bytes bytes) {
  const std::string name = data_name(options_.name, job.id);
  Result<void> stored = Error(Errc::kCanceled, name + ": was not stored");
  for (unsigned attempt = 0; attempt < limits::kCleanAttempts; ++attempt) {
    if (cleaning_is_over()) co_return stored;
    const objects::CallLimits limits{.stop = stop_.get_token()};
    const objects::Condition always;
    const Result<std::string> put = co_await parts_.store.put(name, bytes, always, limits);
    if (put) co_return Result<void>();
    stored = put.error();
    co_await home_.sleep_for(limits::kUploadRetry, stop_.get_token());
  }
  // It may be there, or come there yet; nobody will ever want it.
  add_garbage(name);
  co_return stored;
}

Task<Result<void>> Volume::apply_moved(const CleanJob& job, Bytes bytes) {
  const size_t tail = std::min<size_t>(bytes.size(), limits::kObjectTailBytes);
  Result<Tail> parsed = parse_tail(seal(), job.id, bytes.last(tail), bytes.size());
  if (parsed && !parsed->directory) parsed = parse_tail(seal(), job.id, bytes, bytes.size());
  USBD_ASSERT(parsed.has_value());
  USBD_ASSERT(parsed->directory.has_value());
  const auto directory = std::make_shared<const Directory>(*std::move(parsed->directory));
  const LiveMap::Moves moves = keeps(VolumeRule::kAppliesWhereSourceStill)
                                   ? LiveMap::Moves::kWhereSourceStill
                                   : LiveMap::Moves::kEverywhere;
  const Slot slot{.bytes = bytes.size(), .directory = directory};
  reader_->remember(*directory);
  const Result<uint64_t> moved = co_await take_in(*live_, *pager_, slot, moves);
  const MutexLock lock(mutex_);
  ++since_.changes;  // if only in part
  last_moved_id_ = job.id.seq;
  USBD_CO_TRY_VOID(moved);
  counted_.objects_cleaned += job.victims.size();
  counted_.bytes_moved += *moved * kBlockBytes;
  co_return Result<void>();
}

}  // namespace usbd::objstore

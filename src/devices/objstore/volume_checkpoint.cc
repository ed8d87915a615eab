// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints: read when the volume is opened, with the log objects behind them; made in the
// background, and named by the head with its next change. While one is made, nothing waits for it.
//
// What makes it safe:
// - The moment is one in which map and table hold exactly the log objects up to published_seq_. The
//   head names it as covering these and no later ones; the next opening reads the later ones.
// - All of a checkpoint is stored before the head names it. Until then, and if it fails, the last
//   one is what counts, and the journal has no part in it: that forgets by publications alone.
// - No checkpoint is begun before the head names the last: what it removes is never needed by one
//   that the head names.

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/log.h"
#include "devices/objstore/volume.h"

namespace usbd::objstore {
namespace {

/// Errors: the checkpoint is not one that this head can name.
Result<void> check_root(const CheckpointRoot& root, const Head& head) {
  if (root.last_seq != head.root.covers_seq || root.last_write > head.published_number) {
    return Error(
        Errc::kDamaged,
        fmt::format("the checkpoint ends with object {} and write {}; the head says with "
                    "object {}, and publishes write {}",
                    root.last_seq, root.last_write, head.root.covers_seq, head.published_number));
  }
  if (!root.objects.empty() && root.objects.back().id.epoch >= head.epoch + 1) {
    return Error(Errc::kDamaged,
                 fmt::format("the checkpoint has objects of epoch {}, but the head is "
                             "of epoch {}",
                             root.objects.back().id.epoch, head.epoch));
  }
  if (!root.snapshots.empty() && root.snapshots.back().root.object.epoch > head.epoch) {
    return Error(Errc::kDamaged,
                 fmt::format("the checkpoint has a snapshot of epoch {}, but the head "
                             "is of epoch {}",
                             root.snapshots.back().root.object.epoch, head.epoch));
  }
  return {};
}

}  // namespace

// --- opening
// --------------------------------------------------------------------------------------

Task<Result<void>> Volume::load_checkpoint(LiveMap& live, MapPager& pager) {
  const CheckpointPlace place(parts_.store, options_.name, seal());
  std::optional<CheckpointWriter::Previous> previous;
  uint64_t number = 0;
  std::vector<SnapshotRef> snapshots;
  if (head().root.stored > 0) {
    USBD_CO_TRY(const PiecePointer pointer, to_piece(head().root));
    CheckpointReader reader(place, stop_.get_token());
    USBD_CO_TRY(CheckpointRoot root, co_await reader.read_root(pointer));
    USBD_CO_TRY_VOID(check_root(root, head()));
    snapshots = root.snapshots;
    pin(live, SnapshotPins(snapshots), root.number);
    // Nobody else knows of the map yet.
    read_root_ = root;  // for leaves that go away and do not come back while it is read
    USBD_CO_TRY_VOID(co_await reader.read_pages(root, live.map(), live.table(), &pager));
    number = root.number;
    previous.emplace(CheckpointWriter::Previous{.root = std::move(root), .pointer = pointer});
  }
  {
    const MutexLock lock(mutex_);
    live.loaded(number);
    snapshots_ = std::move(snapshots);
    counted_.checkpoint = number;
    counted_.checkpoint_age = home_.now();
  }
  named_ = {.settled = 0, .last = number};
  named_at_ = home_.now();
  if (number > 0) recently_named_.emplace_back(number, named_at_);
  if (options_.read_only) co_return Result<void>();
  const auto is_of_this_epoch = [this](const SnapshotRef& ref) {
    return ref.root.object.epoch >= head().epoch;
  };
  if (previous && (previous->pointer.object.epoch >= head().epoch ||
                   std::ranges::any_of(previous->root.snapshots, is_of_this_epoch) ||
                   (!previous->root.objects.empty() &&
                    previous->root.objects.back().id.epoch >= head().epoch))) {
    co_return Error(Errc::kDamaged, "the checkpoint is of this epoch, which was taken only now");
  }
  CheckpointWriter::Options options{.epoch = head().epoch, .codec = options_.codec};
  options.pager = &pager;
  options.holds_for_snapshots = keeps(VolumeRule::kHoldsForSnapshots);
  options.exclusively = [this](const std::function<void()>& change) {
    const MutexLock lock(mutex_);
    change();
  };
  checkpoints_ =
      std::make_unique<CheckpointWriter>(place, options, parts_.rng, std::move(previous));
  read_root_.reset();
  co_return Result<void>();
}

Task<void> Volume::load_directory(uint64_t seq, std::optional<Slot>& slot,
                                  std::optional<Error>& failed) {
  const ObjectId id{.epoch = head().epoch_of(seq), .seq = seq, .kind = ObjectKind::kData};
  Result<Slot> fetched = co_await fetch_slot(id);
  if (fetched) {
    slot = *std::move(fetched);
  } else if (!failed) {
    failed = fetched.error();
  }
}

Task<Result<void>> Volume::load_map(LiveMap& live, std::shared_ptr<MapPager> pager) {
  USBD_CO_TRY_VOID(co_await load_checkpoint(live, *pager));
  const uint64_t last = head().last_seq;
  uint64_t next = head().root.covers_seq + 1;
  while (next <= last) {
    std::vector<std::optional<Slot>> found(
        std::min<uint64_t>(last + 1 - next, limits::kFetchesMax));
    std::optional<Error> failed;
    Scope some;
    for (std::optional<Slot>& slot : found) some.spawn(load_directory(next++, slot, failed));
    co_await some.close();
    if (failed) co_return *failed;
    for (const std::optional<Slot>& slot : found) {
      USBD_CO_TRY_VOID(co_await add_object(live, *pager, *slot));
    }
  }
  const MutexLock lock(mutex_);
  published_seq_ = last;
  co_return Result<void>();
}

Task<Result<void>> Volume::add_object(LiveMap& live, MapPager& pager, Slot slot) {
  const Result<uint64_t> taken = co_await take_in(live, pager, slot, std::nullopt);
  USBD_CO_TRY_VOID(taken);
  const MutexLock lock(mutex_);
  uint64_t frames = 0;
  for (const FrameInfo& frame : slot.directory->frames()) frames += frame.stored;
  ++since_.objects;
  ++since_.changes;
  since_.directory_bytes += slot.bytes - frames;
  since_.data_bytes += slot.directory->header().data_blocks * kBlockBytes;
  ++objects_since_choice_;
  reader_->remember(*slot.directory);
  co_return Result<void>();
}

Task<Result<void>> Volume::look_again() {
  co_await home_.schedule();
  const uint64_t before = looks_;
  while (looking_) co_await home_.sleep_for(limits::kHeadRetryMin);
  if (looks_ > before) co_return Result<void>();  // somebody else has, meanwhile
  looking_ = true;
  Result<void> looked;
  // While it is read the owner may go on, and delete what this head still named.
  for (unsigned attempt = 0; attempt < limits::kLooksMax; ++attempt) {
    Result<HeadKeeper::Found> found = co_await keeper_.read({});
    looked = found ? Result<void>() : Result<void>(found.error());
    if (!found) break;
    keeper_.look(*found);
    auto live = std::make_unique<LiveMap>(blocks());
    std::shared_ptr<MapPager> pager = make_pager(*live);
    looked = co_await load_map(*live, pager);
    if (looked) {
      show_head();
      const MutexLock lock(mutex_);
      live_.swap(live);
      pager_.swap(pager);
      published_number_ = head().published_number;
      next_number_ = published_number_ + 1;
    }
    co_await pager->close();  // nobody asks it for anything more
    if (looked || !looked.error().is(Errc::kNotFound)) break;
  }
  if (looked) ++looks_;
  looking_ = false;
  co_return looked;
}

// --- making one
// -----------------------------------------------------------------------------------

bool Volume::checkpoint_is_cheap() {
  const BlockMap& map = live_->map();
  // Whole pages are written. That every leaf is as long as the others is near enough.
  const uint64_t leaves = std::min(map.changed_leaves() * kPageLeaves, map.leaves());
  return leaves * (map.encoded_bytes() / map.leaves()) * limits::kCheckpointCostPart <=
         since_.data_bytes;
}

bool Volume::checkpoint_is_due() {
  if (checkpointing_ || ready_root_ || ended_ || taking_in_ > 0) return false;
  if (closing_ && published_number_ + 1 == next_number_) {
    return since_.changes > 0 && !checkpointed_at_close_;
  }
  const Nanos now = home_.now();
  if (now < checkpoint_not_before_) return false;
  if (order_is_due()) return true;
  const SpaceRules& rules = options_.space;
  const bool much_to_replay = since_.objects >= rules.replay_objects ||
                              since_.directory_bytes >= rules.replay_directory_bytes ||
                              head().epochs.size() >= limits::kEpochsBeforeCheckpoint;
  const bool worth_it = since_.data_bytes >= rules.checkpoint_data_bytes && checkpoint_is_cheap();
  // Objects are deleted only after checkpoints say that they are not needed, even if there is
  // nothing else to be said.
  const bool waited_for =
      live_->waits_for_checkpoint(named_.last) && now - named_at_ >= rules.delete_after;
  return (since_.changes > 0 && (much_to_replay || worth_it)) || waited_for;
}

void Volume::start_checkpoint() {
  {
    const MutexLock lock(mutex_);
    if (stop_.stop_requested() || !checkpoint_is_due()) return;
    checkpointed_at_close_ = closing_ && published_number_ + 1 == next_number_;
  }
  checkpointing_ = true;
  scope_.spawn(checkpoint());
}

Task<void> Volume::checkpoint() {
  const uint64_t number = checkpoints_->root().number + 1;
  std::optional<CheckpointMoment> moment;
  Since before;
  uint32_t generation = 0;
  {
    const MutexLock lock(mutex_);
    live_->moment_of(number);
    before = std::exchange(since_, Since());
    generation = live_->table().end_generation();
    const Bytes key = head().cipher == crypto::CipherMode::kIdentity ? Bytes() : parts_.key;
    moment.emplace(published_seq_, published_number_, encode(head(), key));
    moment->snapshots = snapshots_at(number);
  }
  const uint64_t covers = moment->last_seq;
  // It begins at once: nothing comes between the moment and its maps.
  Result<Checkpoint> stored = co_await checkpoints_->write(live_->map(), live_->table(),
                                                           *std::move(moment), stop_.get_token());
  if (stored) {
    const PiecePointer& root = stored->root;
    ready_root_ = ReadyRoot{
        .number = number, .root = to_pointer(root, covers), .garbage = std::move(stored->garbage)};
    order_stored(number, root);
    if (!keeps(VolumeRule::kNamesBeforeItRemoves)) {
      for (const std::string& name : ready_root_->garbage) garbage_.push_front({.name = name});
    }
    checkpoint_pause_ = limits::kCheckpointRetryMin;
  } else if (!stop_.stop_requested()) {
    log::warning("{}; the last checkpoint stays, and another is made later",
                 stored.error().message());
    checkpoint_not_before_ = home_.now() + checkpoint_pause_;
    checkpoint_pause_ = std::min<Nanos>(2 * checkpoint_pause_, limits::kCheckpointRetryMax);
  }
  checkpointing_ = false;
  const MutexLock lock(mutex_);
  if (stored) {
    // A slot that was free at the moment is free in what the next opening reads.
    live_->table().reuse_removed(generation);
  } else {
    since_.objects += before.objects;
    since_.directory_bytes += before.directory_bytes;
    since_.data_bytes += before.data_bytes;
    since_.changes += before.changes;
  }
  wake_background();
}

void Volume::name_root(const ReadyRoot& ready, Head& head) const {
  head.root = ready.root;
  if (!keeps(VolumeRule::kCoversItsMoment)) head.root.covers_seq = head.last_seq;
  // Of the epochs that begin before what is left, only the last one matters.
  const uint64_t first = head.root.covers_seq + 1;
  while (head.epochs.size() > 1 && head.epochs[1].first_seq <= first) {
    head.epochs.erase(head.epochs.begin());
  }
}

void Volume::root_named() {
  const ReadyRoot ready = *std::exchange(ready_root_, std::nullopt);
  named_at_ = home_.now();
  named_.last = ready.number;
  recently_named_.emplace_back(ready.number, named_at_);
  order_named(ready.number);
  // Only from here on: the head names the root that does without these, and so does every later
  // one; whoever takes the volume has read this head, or a later one.
  for (const std::string& name : ready.garbage) add_garbage(name);
  const MutexLock lock(mutex_);
  ++counted_.checkpoints_made;
  counted_.checkpoint = ready.number;
  counted_.checkpoint_age = named_at_;
}

bool Volume::has_upkeep() {
  return since_.changes > 0 || live_->emptied() > 0 || !garbage_.empty();
}

}  // namespace usbd::objstore

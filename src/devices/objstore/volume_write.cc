// SPDX-License-Identifier: Apache-2.0
//
// Changes: numbered, put into the open batch and the journal under one short lock, which is what
// makes their order the same everywhere. Who may not be numbered yet waits before that, so that
// nothing which was promised ever waits for room.

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "base/log.h"
#include "devices/objstore/volume.h"
#include "devices/objstore/waiter.h"

namespace usbd::objstore {

/// Waits until writers are woken.
struct Volume::WriterTurn {
  Volume& volume;
  BlockRange blocks;
  ExtentKind kind;
  Bytes data;
  Waiter& self;
  std::optional<Result<uint64_t>>& result;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    self.resume.handle = handle;
    const MutexLock lock(volume.mutex_);
    result = volume.try_change(blocks, kind, data);
    if (result) return false;
    self.next = nullptr;
    (volume.writers_ == nullptr ? volume.writers_ : volume.writers_end_->next) = &self;
    volume.writers_end_ = &self;
    volume.wake_background();
    return true;
  }
  void await_resume() const noexcept {}
};

uint64_t Volume::last_number() {
  const MutexLock lock(mutex_);
  return next_number_ - 1;
}

bool Volume::may_number(uint32_t payload_blocks) {
  if (!batches_.empty() && home_.now() - batches_.front()->begun() > options_.dirty_age_max) {
    return false;
  }
  return journal_->has_room(payload_blocks);
}

std::optional<Result<uint64_t>> Volume::try_change(BlockRange blocks, ExtentKind kind, Bytes data) {
  if (ended_) return *ended_;
  if (closing_) return Result<uint64_t>(Errc::kShutdown);
  const bool has_data = kind == ExtentKind::kData;
  const auto payload = static_cast<uint32_t>(has_data ? blocks.count : 0);
  if (!may_number(payload)) return std::nullopt;
  const journal::Entry entry{.number = next_number_++,
                             .block = blocks.first,
                             .blocks = static_cast<uint32_t>(blocks.count),
                             .kind = static_cast<uint8_t>(kind),
                             .has_payload = has_data};
  journal::Place place = journal_->append(entry, data);
  add_change({.blocks = blocks, .number = entry.number, .kind = kind, .place = std::move(place)});
  return entry.number;
}

void Volume::add_change(Change change) {
  if (batches_.empty() || batches_.back()->state != Batch::State::kOpen) {
    batches_.push_back(std::make_shared<Batch>(change.number, home_.now()));
    wake_background();  // it is to be closed at its age
  }
  Batch& batch = *batches_.back();
  batch.add(std::move(change));
  const bool full = batch.journal_blocks() * kBlockBytes >= options_.object_bytes ||
                    batch.extents() >= limits::kObjectExtentsMax / 2;
  if (full) close_batch();
}

void Volume::close_batch() {
  if (batches_.empty() || batches_.back()->state != Batch::State::kOpen) return;
  batches_.back()->state = Batch::State::kClosed;
  wake_background();
}

Task<Result<uint64_t>> Volume::change(BlockRange blocks, ExtentKind kind, Bytes data) {
  while (true) {
    Waiter self(Loop::current());
    std::optional<Result<uint64_t>> result;
    WriterTurn turn{*this, blocks, kind, data, self, result};
    co_await turn;
    if (result) co_return *result;
  }
}

Task<Result<uint64_t>> Volume::write(uint64_t first_block, Bytes data) {
  USBD_ASSERT(!data.empty());
  USBD_ASSERT(data.size() % kBlockBytes == 0);
  uint64_t number = 0;
  const uint64_t piece_max =
      std::min<uint64_t>(limits::kChangeBlocksMax, options_.journal_payload_max);
  while (!data.empty()) {
    const uint64_t count = std::min<uint64_t>(data.size() / kBlockBytes, piece_max);
    const BlockRange blocks(first_block, count);
    USBD_ASSERT(blocks.end() <= this->blocks());
    const Bytes piece = data.first(count * kBlockBytes);
    USBD_CO_TRY(number, co_await change(blocks, ExtentKind::kData, piece));
    first_block += count;
    data = data.subspan(count * kBlockBytes);
  }
  co_return number;
}

Task<Result<uint64_t>> Volume::clear(BlockRange blocks, ExtentKind kind) {
  USBD_ASSERT(kind != ExtentKind::kData);
  USBD_ASSERT(blocks.end() <= this->blocks());
  uint64_t number = 0;
  while (blocks.count > 0) {
    const uint64_t count = std::min<uint64_t>(blocks.count, uint64_t{1} << 30U);
    USBD_CO_TRY(number, co_await change(BlockRange(blocks.first, count), kind, {}));
    blocks = BlockRange(blocks.first + count, blocks.count - count);
  }
  co_return number;
}

void Volume::wake_writers() {
  Waiter* woken = nullptr;
  {
    const MutexLock lock(mutex_);
    woken = std::exchange(writers_, nullptr);
    wake_background();
  }
  while (woken != nullptr) {
    Waiter* const next = woken->next;
    woken->home.post(woken->resume);  // it may be gone after this
    woken = next;
  }
}

Task<Result<void>> Volume::flush() {
  if (options_.flush_mode == FlushMode::kRemote) co_return co_await wait_published(last_number());
  if (keeps(VolumeRule::kJournalsBeforeItFlushes)) USBD_CO_TRY_VOID(co_await journal_->sync());
  const MutexLock lock(mutex_);
  if (ended_) co_return *ended_;
  co_return Result<void>();
}

VolumeState Volume::state() {
  VolumeState state;
  state.journal_bytes_used = journal_ ? journal_->bytes_used() : 0;
  const std::optional<Error> failure = journal_ ? journal_->failure() : std::nullopt;
  if (failure) state.journal_failure = failure->message();
  state.fetched = reader_->stats();
  if (cache_) state.cache = cache_->stats();
  const MutexLock lock(mutex_);
  state.head = counted_.head;
  state.checkpoint = counted_.checkpoint;
  state.checkpoint_age = home_.now() - counted_.checkpoint_age;
  state.checkpoints_made = counted_.checkpoints_made;
  state.objects_cleaned = counted_.objects_cleaned;
  state.bytes_moved = counted_.bytes_moved;
  state.objects_deleted = counted_.objects_deleted;
  state.last_number = next_number_ - 1;
  for (const std::shared_ptr<Batch>& batch : batches_) {
    state.unpublished_bytes += batch->data_blocks() * kBlockBytes;
  }
  if (!batches_.empty()) state.unpublished_age = home_.now() - batches_.front()->begun();
  const ObjectTotals& used = live_->table().totals(ObjectState::kInUse);
  state.objects = used.objects;
  state.stored_bytes = used.stored_bytes;
  state.live_bytes = used.live_bytes;
  state.objects_held = live_->held();
  state.objects_to_delete =
      live_->table().totals(ObjectState::kPending).objects - state.objects_held;
  state.map = pager_->usage();
  state.snapshots = snapshots_.size();
  state.fenced = keeper_.fenced();
  return state;
}

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// How entries get into the ring and onto stable storage. While a record is being written, what
// comes is collected in the next one, so that records grow with the load. There is one sync at a
// time: of two at once the kernel could tell the wrong one of a failure. A superblock that is due
// shares the sync.

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "journal/journal.h"
#include "journal/nonce.h"
#include "journal/sync_waiter.h"

namespace usbd::journal {

Journal::PumpWork::PumpWork(Journal& owner) : journal(owner) {
  run = [](Work& self) { static_cast<PumpWork&>(self).journal.pump(); };
}

void Journal::wake() {
  if (pump_posted_ || closing_) return;
  pump_posted_ = true;
  home_.post(pump_work_);
}

bool Journal::pump_is_posted() {
  const MutexLock lock(mutex_);
  return pump_posted_;
}

void Journal::pump() {
  bool room = false;
  {
    const MutexLock lock(mutex_);
    pump_posted_ = false;
    // Before begin() a superblock of the old session could come after the one of the new.
    if (closing_ || !begun_) return;
    room = std::exchange(room_grown_, false);
  }
  if (room) changed_();
  send_records();
  start_syncs();
  trim_if_idle();
}

void Journal::trim_if_idle() {
  if (in_flight_ > 0) return;
  {
    const MutexLock lock(mutex_);
    if (open_ || !live_.empty()) return;
  }
  memory_.trim();
}

bool Journal::send_open() const {
  if (!open_) return false;
  if (in_flight_ == 0) return true;
  for (const SyncWaiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next) {
    if (waiter->ordinal == open_->ordinal) return true;
  }
  return false;
}

std::shared_ptr<Record> Journal::next_to_send() {
  const MutexLock lock(mutex_);
  if (failed_ || in_flight_ >= limits::kJournalWritesMax) return nullptr;
  if (staged_.empty()) {
    if (!send_open()) return nullptr;
    payload_expected_ = open_->payload_blocks;
    return std::move(open_);
  }
  std::shared_ptr<Record> record = std::move(staged_.front());
  staged_.pop_front();
  return record;
}

void Journal::send_records() {
  while (std::shared_ptr<Record> record = next_to_send()) {
    record->header_blocks = header_blocks_for(record->entries.size(), record->payload_blocks);
    record->bytes = (record->header_blocks + record->payload_blocks) * kBlock;
    uint64_t rest = 0;
    {
      const MutexLock lock(mutex_);
      rest = superblock_.ring_bytes - head_ % superblock_.ring_bytes;
    }
    if (record->bytes > rest) send_without_entries(RecordKind::kWrap);
    send(record, RecordKind::kData);
  }
}

void Journal::send_without_entries(RecordKind kind) {
  auto record = std::make_shared<Record>();
  record->ordinal = sent_ordinal_;
  record->last_number = sent_number_;
  record->header_blocks = 1;
  record->bytes = kBlock;
  send(record, kind);
}

void Journal::place_in_ring(const std::shared_ptr<Record>& record) {
  record->jseq = next_jseq_++;
  record->session = superblock_.session;
  record->sealer = sealer_;
  sent_ordinal_ = record->ordinal;
  sent_number_ = record->last_number;
  const MutexLock lock(mutex_);
  record->position = head_;
  head_ += record->bytes;
  // In one step with the head: has_room() of another thread must not see the record nowhere.
  if (!record->entries.empty()) {
    staged_ring_bytes_ -= (kHeaderBlocksMax + record->payload_blocks) * kBlock;
  }
  if (keeps(Rule::kFreesBeforeItReuses)) USBD_ASSERT(head_ - tail_ <= superblock_.ring_bytes);
  live_.push_back(record);
  unwritten_.push_back(record);
}

void Journal::send(const std::shared_ptr<Record>& record, RecordKind kind) {
  const uint64_t written = record->bytes;
  if (kind == RecordKind::kWrap) {
    // It takes all that is left of the ring, though only its header is written.
    const MutexLock lock(mutex_);
    record->bytes = superblock_.ring_bytes - head_ % superblock_.ring_bytes;
  }
  place_in_ring(record);
  const bool in_place = record->plain && !record->sealer;
  std::shared_ptr<RecordBuffer> memory =
      in_place ? record->plain : memory_.take(record->payload_blocks);
  const Bytes bytes = encode_record(*record, kind, *memory);
  USBD_ASSERT(bytes.size() == written);
  last_is_mark_ = kind == RecordKind::kMark;
  ++in_flight_;
  scope_.spawn(write_record(record, std::move(memory), bytes));
}

MutableBytes Journal::encode_record(Record& record, RecordKind kind, const RecordBuffer& memory) {
  const size_t start = (kHeaderBlocksMax - record.header_blocks) * kBlock;
  const size_t bytes = (record.header_blocks + record.payload_blocks) * kBlock;
  const MutableBytes out = memory.bytes().subspan(start, bytes);
  const size_t header_bytes = record.header_blocks * kBlock;
  Header header{.kind = kind,
                .sealed = record.sealer != nullptr,
                .salt = salt_,
                .epoch = superblock_.epoch,
                .session = record.session,
                .jseq = record.jseq,
                .durable_jseq = durable_jseq_,
                .previous_crc = previous_crc_,
                .header_blocks = record.header_blocks,
                .entries = std::exchange(record.entries, {}),
                .seals = {},
                .tag = {},
                .crc = 0};
  header.seals.reserve(record.payload_blocks);
  for (uint32_t i = 0; i < record.payload_blocks; ++i) {
    const MutableBytes block = out.subspan(header_bytes + i * kBlock, kBlock);
    Seal seal;
    if (record.sealer) {
      const Bytes plain = record.plain->bytes().subspan((kHeaderBlocksMax + i) * kBlock, kBlock);
      seal.tag = record.sealer->seal(nonce_of(record.jseq, i), {}, plain, block);
    }
    seal.crc = crc32c(block);
    header.seals.push_back(seal);
  }
  const MutableBytes head = out.first(header_bytes);
  encode_unsealed(header, superblock_.journal, head);
  Tag tag{};
  if (record.sealer) tag = record.sealer->seal(nonce_of(record.jseq, kHeaderNonce), head, {}, {});
  record.crc = previous_crc_ = finish_header(tag, head);
  record.seals = std::move(header.seals);
  return out;
}

Task<void> Journal::write_record(std::shared_ptr<Record> record,
                                 std::shared_ptr<RecordBuffer> memory, Bytes bytes) {
  const uint64_t offset = kRingStart + record->position % superblock_.ring_bytes;
  const Result<void> result = co_await file_->write(offset, bytes, WriteFlags{});
  memory = nullptr;  // until here, whatever became of the record
  --in_flight_;
  if (result || !keeps(Rule::kRemembersFailure)) {
    record_written(*record);
  } else {
    fail(result.error());
  }
}

void Journal::record_written(Record& record) {
  bool room = false;
  {
    Dropped dropped;
    const MutexLock lock(mutex_);
    record.written = true;
    keep_or_forget(record, dropped);
    while (!unwritten_.empty() && unwritten_.front()->written) {
      written_ordinal_ = unwritten_.front()->ordinal;
      written_jseq_ = unwritten_.front()->jseq;
      unwritten_.pop_front();
    }
    free_released(dropped);
    wake();
    room = std::exchange(room_wanted_, false);
  }
  if (room) changed_();
}

void Journal::keep_or_forget(Record& record, Dropped& dropped) {
  if (!record.plain) return;
  const uint64_t size = record.plain->size();
  const bool useful = record.payload_blocks > 0 && record.last_number > unkept_number_;
  if (!useful || kept_bytes_ + size > kept_bytes_max_) {
    forget_plain(record, dropped);
    return;
  }
  record.kept = true;
  staged_bytes_ -= record.payload_blocks * kBlock;
  kept_bytes_ += size;
}

void Journal::free_released(Dropped& dropped) {
  while (!live_.empty()) {
    Record& oldest = *live_.front();
    const bool done = oldest.written || failed_;
    if (!done || oldest.readers > 0 || oldest.last_number > released_number_) break;
    forget_plain(oldest, dropped);
    freed_ = oldest.position + oldest.bytes;
    freed_jseq_ = oldest.jseq + 1;
    live_.pop_front();
  }
  if (!keeps(Rule::kFreesBeforeItReuses)) tail_ = freed_;
  if (!failed_) return;
  // Nothing leads from memory to the ring any more.
  while (!staged_.empty() && staged_.front()->last_number <= released_number_) {
    forget_staged(*staged_.front(), dropped);
    staged_.pop_front();
    room_grown_ = true;
  }
  if (open_ && open_->last_number <= released_number_) {
    forget_staged(*open_, dropped);
    open_ = nullptr;
    room_grown_ = true;
  }
}

void Journal::forget_plain(Record& record, Dropped& dropped) {
  if (!record.plain) return;
  if (std::exchange(record.kept, false)) {
    kept_bytes_ -= record.plain->size();
  } else {
    staged_bytes_ -= record.payload_blocks * kBlock;
  }
  dropped.push_back(std::move(record.plain));
}

void Journal::forget_staged(Record& record, Dropped& dropped) {
  forget_plain(record, dropped);
  staged_ring_bytes_ -= (kHeaderBlocksMax + record.payload_blocks) * kBlock;
}

// --- syncs
// ----------------------------------------------------------------------------------------

std::optional<Journal::Freeing> Journal::due_freeing() {
  const MutexLock lock(mutex_);
  const uint64_t gain = freed_ - tail_;
  const bool due =
      keeps(Rule::kFreesBeforeItReuses)
          ? gain >= superblock_.ring_bytes / limits::kJournalFreeSteps || (room_wanted_ && gain > 0)
          : freed_ % superblock_.ring_bytes != superblock_.tail && room_wanted_;
  if (!due) return std::nullopt;
  Freeing freeing{.superblock = superblock_, .tail = freed_};
  Superblock& next = freeing.superblock;
  ++next.generation;
  next.tail = freed_ % superblock_.ring_bytes;
  next.tail_jseq = freed_jseq_;
  next.durable_jseq = durable_jseq_;
  next.released_number = released_number_;
  return freeing;
}

bool Journal::sync_is_due() {
  {
    const MutexLock lock(mutex_);
    if (failed_) return false;
    for (const SyncWaiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next) {
      if (waiter->ordinal <= written_ordinal_) return true;
    }
  }
  return due_freeing().has_value();
}

void Journal::start_syncs() {
  if (syncing_ || !sync_is_due()) return;
  syncing_ = true;
  scope_.spawn(run_syncs());
}

Task<void> Journal::run_syncs() {
  while (sync_is_due()) {
    const std::optional<Freeing> freeing = due_freeing();
    const Result<void> result = co_await sync_once(freeing);
    if (result) continue;
    fail(result.error());
    break;
  }
  syncing_ = false;
  consider_mark();
}

Task<Result<void>> Journal::sync_once(std::optional<Freeing> freeing) {
  if (freeing) USBD_CO_TRY_VOID(co_await write_superblock_block(freeing->superblock));
  uint64_t ordinal = 0;
  uint64_t jseq = 0;
  {
    // Only what is written before the sync begins is covered by it.
    const MutexLock lock(mutex_);
    ordinal = written_ordinal_;
    jseq = written_jseq_;
  }
  if (keeps(Rule::kSyncsBeforeItSaysSo)) USBD_CO_TRY_VOID(co_await file_->datasync());
  durable_jseq_ = jseq;
  SyncWaiter* served = nullptr;
  bool room = false;
  {
    const MutexLock lock(mutex_);
    durable_ordinal_ = ordinal;
    served = take_waiters(ordinal);
    if (freeing) {
      superblock_ = freeing->superblock;
      tail_ = freeing->tail;
      room = std::exchange(room_wanted_, false);
    }
  }
  answer(served, std::nullopt);
  if (room) changed_();
  co_return Result<void>();
}

Journal::SyncWaiter* Journal::take_waiters(uint64_t ordinal) {
  SyncWaiter* taken = nullptr;
  for (SyncWaiter** link = &waiters_; *link != nullptr;) {
    SyncWaiter* const waiter = *link;
    if (waiter->ordinal > ordinal) {
      link = &waiter->next;
      continue;
    }
    *link = waiter->next;
    waiter->next = std::exchange(taken, waiter);
  }
  return taken;
}

void Journal::answer(SyncWaiter* waiters, const std::optional<Error>& error) {
  while (waiters != nullptr) {
    SyncWaiter* const waiter = std::exchange(waiters, waiters->next);
    waiter->error = error;
    waiter->home.post(waiter->resume);  // it may be gone after this
  }
}

Task<Result<void>> Journal::write_superblock_block(Superblock next) {
  AlignedBuffer block(kBlock);
  encode(next, block.bytes());
  // The one that counts now is left alone.
  const uint64_t place = (next.generation + 1) % 2 * kBlock;
  co_return co_await file_->write(place, block.bytes(), WriteFlags{});
}

Task<Result<void>> Journal::write_superblock(Superblock next) {
  ++next.generation;
  USBD_CO_TRY_VOID(co_await write_superblock_block(next));
  USBD_CO_TRY_VOID(co_await file_->datasync());
  const MutexLock lock(mutex_);
  superblock_ = next;
  co_return Result<void>();
}

// --- marks, and the end
// ---------------------------------------------------------------------------

bool Journal::is_idle() {
  const MutexLock lock(mutex_);
  const uint64_t used = head_ - tail_ + staged_ring_bytes_ + record_bytes_max() + 2 * kBlock;
  return !failed_ && !closing_ && !open_ && staged_.empty() && in_flight_ == 0 &&
         used <= superblock_.ring_bytes;
}

void Journal::consider_mark() {
  const bool unsaid = durable_jseq_ + 1 == next_jseq_ && !last_is_mark_;
  if (mark_waits_ || !unsaid || !is_idle()) return;
  mark_waits_ = true;
  scope_.spawn(mark_when_idle());
}

Task<void> Journal::mark_when_idle() {
  co_await home_.sleep_for(limits::kJournalMarkAfter, closing_soon_.get_token());
  mark_waits_ = false;
  const bool unsaid = durable_jseq_ + 1 == next_jseq_ && !last_is_mark_;
  if (unsaid && is_idle() && !closing_soon_.stop_requested()) {
    send_without_entries(RecordKind::kMark);
  }
}

void Journal::fail(const Error& error) {
  SyncWaiter* waiting = nullptr;
  const Error lost(Errc::kIo, error.message() + "; flushes of this journal fail from now on");
  {
    Dropped dropped;
    const MutexLock lock(mutex_);
    if (!failed_) log::error("{}", lost.context());
    if (keeps(Rule::kRemembersFailure)) failed_ = lost;
    waiting = take_waiters(UINT64_MAX);
    free_released(dropped);
  }
  answer(waiting, lost);
  changed_();
}

}  // namespace usbd::journal

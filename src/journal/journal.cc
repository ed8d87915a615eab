// SPDX-License-Identifier: Apache-2.0
//
// Making, opening and closing a journal, and what owners call: append, read, sync, release. The
// ring itself is written in journal_write.cc and read back in journal_replay.cc.

#include "journal/journal.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "journal/nonce.h"
#include "journal/sync_waiter.h"

namespace usbd::journal {

/// Waits until the journal has answered `self`.
struct Journal::SyncTurn {
  Journal& journal;
  SyncWaiter& self;

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    self.resume.handle = handle;
    const MutexLock lock(journal.mutex_);
    if (journal.failed_) {
      self.error = journal.failed_;
      return false;
    }
    if (journal.last_ordinal_ <= journal.durable_ordinal_) return false;
    self.ordinal = journal.last_ordinal_;
    self.next = std::exchange(journal.waiters_, &self);
    journal.wake();
    return true;
  }
  void await_resume() const noexcept {}
};

Task<Result<void>> Journal::format(BlockFile& file, Identity identity, uint64_t ring_bytes,
                                   uint64_t epoch) {
  USBD_ASSERT(ring_bytes % kBlock == 0);
  USBD_ASSERT(ring_bytes >= kRingBytesMin);
  USBD_CO_TRY_VOID(co_await file.allocate(ByteRange(0, kRingStart + ring_bytes)));
  Superblock superblock{.volume = identity.volume,
                        .journal = identity.journal,
                        .generation = 1,
                        .ring_bytes = ring_bytes,
                        .epoch = epoch};
  AlignedBuffer blocks(2 * kBlock);
  encode(superblock, blocks.bytes().first(kBlock));
  // What the second one was must not win over the first.
  std::ranges::fill(blocks.bytes().subspan(kBlock), std::byte(0));
  USBD_CO_TRY_VOID(co_await file.write(0, blocks.bytes(), WriteFlags{}));
  co_return co_await file.datasync();
}

Task<Result<std::unique_ptr<Journal>>> Journal::open(std::unique_ptr<BlockFile> file, Rng& rng,
                                                     Options options) {
  AlignedBuffer blocks(2 * kBlock);
  Result<void> usable = co_await file->read(0, blocks.bytes());
  std::optional<Superblock> newest;
  std::optional<Error> refused;
  for (size_t i = 0; usable && i < 2; ++i) {
    Result<Superblock> one = parse_superblock(blocks.bytes().subspan(i * kBlock, kBlock));
    if (!one) {
      if (!refused || one.error().is(Errc::kNotSupported)) refused = one.error();
    } else if (!newest || newest->generation < one->generation) {
      newest = *one;
    }
  }
  // One of a later version may be the newer one, and says what this version does not know.
  if (usable && refused && (!newest || refused->is(Errc::kNotSupported))) {
    usable = Error(refused->code(), file->name() + ": " + refused->context());
  }
  if (usable) {
    const Result<uint64_t> size = file->size();
    if (!size) {
      usable = size.error();
    } else if (*size < kRingStart || *size - kRingStart < newest->ring_bytes) {
      usable = Error(Errc::kInvalid, fmt::format("{} has {} bytes, but its ring alone takes {}: "
                                                 "the file was cut short",
                                                 file->name(), *size, newest->ring_bytes));
    }
  }
  if (!usable) {
    static_cast<void>(co_await file->close());  // what made it unusable matters more
    co_return usable.error();
  }
  co_return std::unique_ptr<Journal>(
      new Journal(std::move(file), rng, std::move(options), *newest));
}

Journal::Journal(std::unique_ptr<BlockFile> file, Rng& rng, Options options, Superblock superblock)
    : file_(std::move(file)),
      rng_(rng),
      options_(std::move(options)),
      home_(Loop::current()),
      superblock_(superblock),
      kept_bytes_max_(options_.kept_bytes_max) {
  USBD_ASSERT(options_.payload_blocks_max > 0);
  USBD_ASSERT(options_.payload_blocks_max <= kPayloadBlocksMax);
}

Journal::~Journal() = default;

Task<Result<void>> Journal::begin(uint64_t epoch, uint64_t next_number) {
  USBD_ASSERT(replayed_);
  USBD_ASSERT(!begun_);
  if (damaged_) co_return Error(Errc::kIo, file_->name() + " is damaged: nothing is added to it");
  if (superblock_.ring_bytes < 4 * record_bytes_max()) {
    co_return Error(Errc::kInvalid, file_->name() + ": the ring is too small for four records");
  }
  rng_.fill(salt_);
  sealer_ = options_.sealer ? options_.sealer(salt_) : nullptr;
  Superblock next = superblock_;
  next.epoch = epoch;
  ++next.session;
  // What was replayed may be in the system's memory only, and the superblock says that it is not.
  if (next_jseq_ > superblock_.tail_jseq) USBD_CO_TRY_VOID(co_await file_->datasync());
  next.durable_jseq = next_jseq_ - 1;
  next.session_jseq = next_jseq_;
  next.session_previous_crc = previous_crc_;
  USBD_CO_TRY_VOID(co_await write_superblock(next));
  Dropped dropped;
  const MutexLock lock(mutex_);
  durable_jseq_ = written_jseq_ = next_jseq_ - 1;
  next_number_ = next_number;
  begun_ = true;
  free_released(dropped);
  wake();
  co_return Result<void>();
}

bool Journal::has_room(uint32_t payload_blocks) {
  const MutexLock lock(mutex_);
  // What a wrap may waste, and a mark.
  const uint64_t reserve = record_bytes_max() + 2 * kBlock;
  const uint64_t more = (kHeaderBlocksMax + payload_blocks) * kBlock;
  const uint64_t ring = ring_bytes_held() + staged_ring_bytes_ + more + reserve;
  const bool room = ring <= superblock_.ring_bytes &&
                    staged_bytes_ + payload_blocks * kBlock <= options_.staged_bytes_max;
  if (!room) {
    room_wanted_ = true;
    wake();
  }
  return room;
}

void Journal::begin_record(uint32_t payload_blocks) {
  open_ = std::make_shared<Record>();
  open_->ordinal = ++last_ordinal_;
  open_->plain = memory_.take(std::max(payload_blocks, payload_expected_));
  staged_ring_bytes_ += kHeaderBlocksMax * kBlock;
}

void Journal::make_room_for(uint32_t blocks) {
  const uint32_t all = open_->payload_blocks + blocks;
  if ((kHeaderBlocksMax + all) * kBlock <= open_->plain->size()) return;
  std::shared_ptr<RecordBuffer> larger = memory_.take(all);
  constexpr size_t kStart = kHeaderBlocksMax * kBlock;
  std::memcpy(larger->bytes().data() + kStart, open_->plain->bytes().data() + kStart,
              open_->payload_blocks * kBlock);
  open_->plain = std::move(larger);  // who reads the old one has it
}

Place Journal::append(const Entry& entry, Bytes payload) {
  const uint32_t blocks = entry.has_payload ? entry.blocks : 0;
  USBD_ASSERT(payload.size() == blocks * kBlock);
  USBD_ASSERT(blocks <= options_.payload_blocks_max);
  const MutexLock lock(mutex_);
  USBD_ASSERT(begun_);
  USBD_ASSERT(entry.number == next_number_);
  ++next_number_;
  if (open_ && (open_->entries.size() == kEntriesMax ||
                open_->payload_blocks + blocks > options_.payload_blocks_max)) {
    payload_expected_ = open_->payload_blocks;
    staged_.push_back(std::move(open_));
  }
  if (!open_) begin_record(blocks);
  make_room_for(blocks);
  Place place{.record = open_, .block = open_->payload_blocks};
  const size_t at = (kHeaderBlocksMax + open_->payload_blocks) * kBlock;
  if (!payload.empty()) {
    std::memcpy(open_->plain->bytes().data() + at, payload.data(), payload.size());
  }
  open_->entries.push_back(entry);
  open_->payload_blocks += blocks;
  open_->last_number = entry.number;
  staged_bytes_ += payload.size();
  staged_ring_bytes_ += payload.size();
  wake();
  return place;
}

Result<void> Journal::open_block(const Record& record, uint32_t block, MutableBytes bytes) const {
  const Seal& seal = record.seals[block];
  if (crc32c(bytes) != seal.crc) {
    return Error(Errc::kIo, fmt::format("{}: the checksum of block {} of record {} is wrong",
                                        file_->name(), block, record.jseq));
  }
  if (record.sealer &&
      !record.sealer->open(nonce_of(record.jseq, block), {}, bytes, seal.tag, bytes)) {
    return Error(Errc::kIo, fmt::format("{}: block {} of record {} is not what was sealed",
                                        file_->name(), block, record.jseq));
  }
  return {};
}

Journal::Held Journal::hold(const Place& place) {
  const MutexLock lock(mutex_);
  if (!place.record->plain) ++place.record->readers;
  return Held(*this, place, place.record->plain);
}

Journal::Held::~Held() {
  if (journal_ == nullptr || plain_) return;
  Dropped dropped;
  const MutexLock lock(journal_->mutex_);
  if (--place_.record->readers > 0) return;
  journal_->free_released(dropped);
  journal_->wake();
}

Bytes Journal::Held::in_memory(size_t size) const {
  if (!plain_) return {};
  return plain_->bytes().subspan((kHeaderBlocksMax + place_.block) * kBlock, size);
}

Task<Result<void>> Journal::read(const Held& held, MutableBytes out) {
  const Record& record = *held.place_.record;
  const uint32_t first = held.place_.block;
  if (held.plain_) {
    std::memcpy(out.data(), held.in_memory(out.size()).data(), out.size());
    co_return Result<void>();
  }
  uint64_t offset = 0;
  {
    const MutexLock lock(mutex_);
    offset = kRingStart + record.position % superblock_.ring_bytes;
  }
  USBD_CO_TRY_VOID(co_await file_->read(offset + (record.header_blocks + first) * kBlock, out));
  for (uint32_t i = 0; i < out.size() / kBlock; ++i) {
    USBD_CO_TRY_VOID(open_block(record, first + i, out.subspan(i * kBlock, kBlock)));
  }
  co_return Result<void>();
}

Task<Result<void>> Journal::sync() {
  SyncWaiter self(Loop::current());
  SyncTurn turn{*this, self};
  co_await turn;
  if (self.error) co_return *self.error;
  co_return Result<void>();
}

void Journal::release(uint64_t number) {
  Dropped dropped;
  const MutexLock lock(mutex_);
  released_number_ = std::max(released_number_, number);
  free_released(dropped);
  wake();
}

void Journal::keep_at_most(uint64_t bytes) {
  Dropped dropped;
  const MutexLock lock(mutex_);
  kept_bytes_max_ = bytes;
  for (auto record = live_.rbegin(); record != live_.rend() && kept_bytes_ > bytes; ++record) {
    if ((*record)->kept) forget_plain(**record, dropped);
  }
}

void Journal::unkeep(uint64_t first, uint64_t last) {
  Dropped dropped;
  const MutexLock lock(mutex_);
  unkept_number_ = std::max(unkept_number_, last);
  const auto number = [](const std::shared_ptr<Record>& record) { return record->last_number; };
  for (auto record = std::ranges::lower_bound(live_, first, {}, number);
       record != live_.end() && (*record)->last_number <= last; ++record) {
    if ((*record)->kept) forget_plain(**record, dropped);
  }
}

uint64_t Journal::bytes_kept() {
  const MutexLock lock(mutex_);
  return kept_bytes_;
}

std::optional<Error> Journal::failure() {
  const MutexLock lock(mutex_);
  return failed_;
}

uint64_t Journal::bytes_used() {
  const MutexLock lock(mutex_);
  return ring_bytes_held() + staged_ring_bytes_;
}

Task<Result<void>> Journal::close() {
  Result<void> result;
  if (begun_) result = co_await sync();
  closing_soon_.request_stop();
  {
    const MutexLock lock(mutex_);
    closing_ = true;
  }
  co_await scope_.close();
  while (pump_is_posted()) co_await home_.schedule();
  if (begun_ && result) {
    Superblock last = superblock_;
    {
      Dropped dropped;
      const MutexLock lock(mutex_);
      free_released(dropped);
      last.tail = freed_ % superblock_.ring_bytes;
      last.tail_jseq = freed_jseq_;
      last.released_number = released_number_;
    }
    last.durable_jseq = durable_jseq_;
    if (last != superblock_) result = co_await write_superblock(last);
  }
  const Result<void> closed = co_await file_->close();
  co_return result ? closed : result;
}

}  // namespace usbd::journal

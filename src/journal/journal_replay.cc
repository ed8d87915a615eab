// SPDX-License-Identifier: Apache-2.0
//
// Reading the ring back. The log ends at the first record that is not there as a whole. Whether
// that is where a crash cut it, or damage to what was durable, is told by what stands behind:
// whoever wrote a later record knew by then what was durable.

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "journal/journal.h"
#include "journal/nonce.h"

namespace usbd::journal {

/// A part of the ring in memory. What is asked for in order is read in large pieces.
class Journal::Window {
 public:
  Window(BlockFile& file, uint64_t ring_bytes) : file_(file), ring_bytes_(ring_bytes) {}

  /// The bytes from `offset` on, `wanted` of them or up to the ring's end.
  /// Range: offset < ring_bytes, wanted <= kRecordBytesMax. Lifetime: until the next call.
  Task<Result<Bytes>> at(uint64_t offset, uint64_t wanted) {
    wanted = std::min(wanted, ring_bytes_ - offset);
    if (offset < start_ || offset + wanted > start_ + length_) {
      const uint64_t length = std::min<uint64_t>(memory_.size(), ring_bytes_ - offset);
      length_ = 0;
      USBD_CO_TRY_VOID(co_await file_.read(kRingStart + offset, memory_.bytes().first(length)));
      start_ = offset;
      length_ = length;
    }
    co_return Bytes(memory_.bytes().subspan(offset - start_, wanted));
  }

 private:
  BlockFile& file_;
  const uint64_t ring_bytes_;
  AlignedBuffer memory_{4 * kRecordBytesMax};
  uint64_t start_ = 0;
  uint64_t length_ = 0;
};

std::shared_ptr<const Sealer> Journal::sealer_of(const Salt& salt) {
  if (!options_.sealer) return nullptr;
  if (!sealer_ || salt != replay_salt_) sealer_ = options_.sealer(salt);
  replay_salt_ = salt;
  return sealer_;
}

bool Journal::header_is_authentic(const Header& header, Bytes bytes, const Sealer& sealer) {
  AlignedBuffer copy(bytes.size());
  std::ranges::copy(bytes, copy.bytes().begin());
  strip_seal(copy.bytes());
  return sealer.open(nonce_of(header.jseq, kHeaderNonce), copy.bytes(), {}, header.tag, {});
}

bool Journal::follows(const Header& header) const {
  if (header.jseq != next_jseq_) return false;
  if (!keeps(Rule::kFollowsChain)) return true;
  // The first one after the tail has nobody before it to be compared with.
  const bool chained = next_jseq_ == superblock_.tail_jseq || header.previous_crc == previous_crc_;
  if (!chained || header.session < last_session_) return false;
  return keeps(Rule::kKnowsWhereItsSessionBegan) ? fits_sessions(header)
                                                 : header.session <= superblock_.session;
}

/// What the last session did not find when it began is none of the log, even if it can be read now.
bool Journal::fits_sessions(const Header& header) const {
  const uint64_t begin = superblock_.session_jseq;
  const uint32_t anchor = superblock_.session_previous_crc;
  if (header.jseq >= begin) {
    return header.session == superblock_.session &&
           (header.jseq > begin || header.previous_crc == anchor);
  }
  return header.session < superblock_.session && (header.jseq + 1 < begin || header.crc == anchor);
}

void Journal::take_replayed(const Header& header, const Visitor& visitor, Replayed& found) {
  auto record = std::make_shared<Record>();
  record->payload_blocks = static_cast<uint32_t>(header.seals.size());
  record->jseq = header.jseq;
  record->session = header.session;
  record->header_blocks = header.header_blocks;
  record->crc = header.crc;
  record->seals = header.seals;
  record->sealer = sealer_of(header.salt);
  record->written = true;
  const MutexLock lock(mutex_);
  record->position = head_;
  const uint64_t rest = superblock_.ring_bytes - head_ % superblock_.ring_bytes;
  record->bytes = header.kind == RecordKind::kWrap ? rest : header.bytes();
  record->last_number = header.entries.empty() ? sent_number_ : header.entries.back().number;
  sent_number_ = record->last_number;
  head_ += record->bytes;
  next_jseq_ = header.jseq + 1;
  previous_crc_ = header.crc;
  last_session_ = header.session;
  last_is_mark_ = header.kind == RecordKind::kMark;
  live_.push_back(record);
  ++found.records;
  uint32_t block = 0;
  for (const Entry& entry : header.entries) {
    ++found.entries;
    visitor(entry, Place{.record = record, .block = block});
    if (entry.has_payload) block += entry.blocks;
  }
}

Task<Result<bool>> Journal::replay_one(Window& window, const Visitor& visitor, Replayed& found) {
  uint64_t offset = 0;
  {
    const MutexLock lock(mutex_);
    offset = head_ % superblock_.ring_bytes;
    if (head_ - tail_ >= superblock_.ring_bytes) co_return false;
  }
  USBD_CO_TRY(Bytes bytes, co_await window.at(offset, kHeaderBlocksMax * kBlock));
  const Result<Header> header = parse_header(bytes, superblock_.journal);
  if (!header || !follows(*header)) co_return false;
  if (header->kind != RecordKind::kWrap && offset + header->bytes() > superblock_.ring_bytes) {
    co_return false;
  }
  USBD_CO_TRY(bytes, co_await window.at(offset, header->bytes()));
  const size_t header_bytes = header->header_blocks * kBlock;
  for (size_t i = 0; i < header->seals.size() && keeps(Rule::kChecksPayload); ++i) {
    const Bytes block = bytes.subspan(header_bytes + i * kBlock, kBlock);
    if (crc32c(block) != header->seals[i].crc) co_return false;
  }
  // A checksum that is right and a seal that is not: no crash does that.
  const std::shared_ptr<const Sealer> sealer = sealer_of(header->salt);
  const bool authentic =
      sealer ? header->sealed && header_is_authentic(*header, bytes.first(header_bytes), *sealer)
             : !header->sealed;
  if (!authentic) {
    found.damage =
        fmt::format("record {} of {} was not sealed with this key, or has been changed since",
                    header->jseq, file_->name());
    co_return false;
  }
  take_replayed(*header, visitor, found);
  co_return true;
}

Task<Result<void>> Journal::replay_records(const Visitor& visitor, Replayed& found) {
  Window window(*file_, superblock_.ring_bytes);
  while (true) {
    USBD_CO_TRY(const bool more, co_await replay_one(window, visitor, found));
    if (!more) co_return Result<void>();
  }
}

Task<Result<void>> Journal::look_for_later_records(Replayed& found) {
  Window window(*file_, superblock_.ring_bytes);
  uint64_t known = superblock_.durable_jseq;
  for (uint64_t offset = 0; offset < superblock_.ring_bytes; offset += kBlock) {
    USBD_CO_TRY(const Bytes bytes, co_await window.at(offset, kHeaderBlocksMax * kBlock));
    const Result<Header> header = parse_header(bytes, superblock_.journal);
    if (!header) continue;
    if (header->session > superblock_.session) {
      found.damage = fmt::format(
          "{} holds a record of session {}, but its superblocks know {} at "
          "most: one that was on stable storage is gone",
          file_->name(), header->session, superblock_.session);
      co_return Result<void>();
    }
    if (header->jseq < next_jseq_) continue;
    found.torn_tail = true;
    // Any session: none ever knew as durable what a later one began without.
    known = std::max(known, header->durable_jseq);
  }
  if (known >= next_jseq_ && keeps(Rule::kTellsRotFromTornTail)) {
    found.damage = fmt::format(
        "record {} of {} cannot be read, although it and those up to record {} were on stable "
        "storage: the disk has lost or changed them",
        next_jseq_, file_->name(), known);
  }
  co_return Result<void>();
}

Task<Result<Replayed>> Journal::replay(Visitor visitor) {
  USBD_ASSERT(!replayed_);
  replayed_ = true;
  next_jseq_ = superblock_.tail_jseq;
  {
    const MutexLock lock(mutex_);
    head_ = tail_ = freed_ = superblock_.tail;
    freed_jseq_ = superblock_.tail_jseq;
    released_number_ = sent_number_ = superblock_.released_number;
  }
  Replayed found;
  USBD_CO_TRY_VOID(co_await replay_records(visitor, found));
  if (found.damage.empty()) USBD_CO_TRY_VOID(co_await look_for_later_records(found));
  damaged_ = !found.damage.empty();
  co_return found;
}

}  // namespace usbd::journal

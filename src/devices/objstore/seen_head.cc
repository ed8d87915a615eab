// SPDX-License-Identifier: Apache-2.0
//
// One block for each place. Of two that are whole the one that was written later counts.

#include "devices/objstore/seen_head.h"

#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/aligned_buffer.h"
#include "base/all_zero.h"
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/endian.h"
#include "base/log.h"

namespace usbd::objstore {
namespace {

constexpr uint64_t kPlaceBytes = 4096;
constexpr uint64_t kFileBytes = 2 * kPlaceBytes;
constexpr std::array<uint8_t, 8> kMagic = {'u', 's', 'b', 'd', 's', 'e', 'e', 'n'};
constexpr uint32_t kVersion = 1;

struct DiskRecord {
  std::array<uint8_t, 8> magic{};
  Le32 version;
  /// Of the record, with this field zero.
  Le32 crc;
  VolumeId volume{};
  Le64 generation;
  Le64 head_version;
  Le64 epoch;
  Le64 published_number;
  Nonce nonce{};
};
static_assert(sizeof(DiskRecord) == 80);

uint32_t crc_of(DiskRecord record) {
  record.crc = 0;
  return crc32c(wire_bytes(record));
}

}  // namespace

std::optional<SeenHead::Record> SeenHead::parse(Bytes block) {
  const auto disk = wire_read<DiskRecord>(block);
  if (disk.magic != kMagic || disk.version != kVersion || disk.crc != crc_of(disk)) {
    return std::nullopt;
  }
  return Record{.volume = disk.volume,
                .generation = disk.generation,
                .version = disk.head_version,
                .epoch = disk.epoch,
                .published_number = disk.published_number,
                .nonce = disk.nonce};
}

Task<Result<std::unique_ptr<SeenHead>>> SeenHead::open(Folder& folder) {
  const Folder::OpenHow how{.create = CreatePolicy::kAuto, .new_size = kFileBytes, .direct = true};
  USBD_CO_TRY(std::unique_ptr<BlockFile> file, co_await folder.open(kSeenHeadFile, how));
  std::unique_ptr<SeenHead> seen(new SeenHead(std::move(file)));
  const Result<void> loaded = co_await seen->load();
  if (!loaded) {
    static_cast<void>(co_await seen->close());  // the first error matters
    co_return loaded.error();
  }
  co_return std::move(seen);
}

Task<Result<void>> SeenHead::load() {
  USBD_CO_TRY(const uint64_t size, file_->size());
  // A crash may have come between making the file and giving it its size.
  if (size < kFileBytes) co_return co_await file_->truncate(kFileBytes);
  AlignedBuffer blocks(kFileBytes);
  USBD_CO_TRY_VOID(co_await file_->read(0, blocks.bytes()));
  for (uint64_t at = 0; at < kFileBytes; at += kPlaceBytes) {
    const std::optional<Record> one = parse(blocks.bytes().subspan(at, kPlaceBytes));
    if (one && (!last_ || one->generation > last_->generation)) last_ = one;
  }
  if (!last_ && !all_zero(blocks.bytes())) {
    log::warning(
        "{} is damaged: if the store shows an older state than this host has seen, it is not "
        "noticed this time",
        file_->name());
  }
  co_return Result<void>();
}

Result<void> SeenHead::check(const Head& found) const {
  if (!last_) return {};
  if (last_->volume != found.volume) {
    log::warning("{} is about another volume than the one in the store: it is not used",
                 file_->name());
    return {};
  }
  const bool other = found.version == last_->version && found.nonce != last_->nonce;
  if (found.version > last_->version || (found.version == last_->version && !other)) return {};
  return Error(
      Errc::kIo,
      fmt::format("the store shows an older state than this host has seen: {} of its head (epoch "
                  "{}, up to write {}), and here it was version {} (epoch {}, up to write {}). "
                  "Nothing was changed. It can be looked at with -read-only. If the store was set "
                  "back on purpose, and what was newer is to be given up, move {} away",
                  other ? fmt::format("another version {}", found.version)
                        : fmt::format("version {}", found.version),
                  found.epoch, found.published_number, last_->version, last_->epoch,
                  last_->published_number, file_->name()));
}

Task<Result<void>> SeenHead::remember(Head head, bool synced) {
  const Record next{.volume = head.volume,
                    .generation = last_ ? last_->generation + 1 : 1,
                    .version = head.version,
                    .epoch = head.epoch,
                    .published_number = head.published_number,
                    .nonce = head.nonce};
  DiskRecord disk{.magic = kMagic,
                  .version = {},
                  .crc = {},
                  .volume = next.volume,
                  .generation = {},
                  .head_version = {},
                  .epoch = {},
                  .published_number = {},
                  .nonce = next.nonce};
  disk.version = kVersion;
  disk.generation = next.generation;
  disk.head_version = next.version;
  disk.epoch = next.epoch;
  disk.published_number = next.published_number;
  disk.crc = crc_of(disk);
  AlignedBuffer block(kPlaceBytes);
  std::memset(block.bytes().data(), 0, kPlaceBytes);
  std::memcpy(block.bytes().data(), &disk, sizeof(disk));
  // After a failure the same place is written again: the other one counts.
  const uint64_t place = next.generation % 2 * kPlaceBytes;
  USBD_CO_TRY_VOID(co_await file_->write(place, block.bytes(), WriteFlags{}));
  if (synced) USBD_CO_TRY_VOID(co_await file_->datasync());
  last_ = next;
  co_return Result<void>();
}

}  // namespace usbd::objstore

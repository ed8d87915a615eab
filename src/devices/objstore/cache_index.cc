// SPDX-License-Identifier: Apache-2.0
//
// The index is believed for where to look only. What is found there is proven by its own seal, so
// the checksum here is for damage, and a forged index leads to a miss.

#include "devices/objstore/cache_index.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"

namespace usbd::objstore {
namespace {

constexpr std::array<uint8_t, 8> kMagic = {'u', 's', 'b', 'd', '-', 'c', 'c', 'h'};
constexpr uint32_t kVersion = 1;

struct DiskHeader {
  std::array<uint8_t, 8> magic{};
  Le32 version;
  /// Of the header, with this field zero.
  Le32 crc;
  VolumeId volume{};
  CacheStamp stamp{};
  Le32 sessions;
  Le32 objects;
  Le32 entries;
  uint8_t cipher = 0;
  std::array<uint8_t, 3> reserved{};
  Le32 body_crc;
  std::array<uint8_t, 28> reserved_end{};
};
static_assert(sizeof(DiskHeader) == kCacheHeaderBytes);

struct DiskObject {
  Le64 epoch;
  Le64 seq;
  uint8_t kind = 0;
  std::array<uint8_t, 7> reserved{};
};
static_assert(sizeof(DiskObject) == kCacheObjectBytes);

struct DiskEntry {
  Le32 place;
  Le32 object;
  Le32 position;
  Le32 session;
  Le64 number;
  CacheTag tag{};
};
static_assert(sizeof(DiskEntry) == kCacheEntryBytes);

uint32_t crc_of(DiskHeader header) {
  header.crc = 0;
  return crc32c(wire_bytes(header));
}

template <size_t kSize>
bool all_zero(const std::array<uint8_t, kSize>& bytes) {
  return std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; });
}

template <typename T>
void append_struct(std::vector<std::byte>& out, const T& value) {
  const Bytes bytes = wire_bytes(value);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

Error damaged(const char* what) {
  return Error(Errc::kDamaged, fmt::format("the index of the cache is damaged: {}", what));
}

}  // namespace

std::array<std::byte, kCacheHeaderBytes> encode(const CacheIndexHeader& header) {
  DiskHeader disk;
  disk.magic = kMagic;
  disk.version = kVersion;
  disk.volume = header.volume;
  disk.stamp = header.stamp;
  disk.sessions = header.sessions;
  disk.objects = header.objects;
  disk.entries = header.entries;
  disk.cipher = static_cast<uint8_t>(header.cipher);
  disk.body_crc = header.body_crc;
  disk.crc = crc_of(disk);
  std::array<std::byte, kCacheHeaderBytes> bytes{};
  std::memcpy(bytes.data(), &disk, sizeof(disk));
  return bytes;
}

Result<CacheIndexHeader> decode_cache_header(Bytes start, uint64_t file_bytes) {
  if (start.size() < sizeof(DiskHeader)) return damaged("it is cut short");
  const auto disk = wire_read<DiskHeader>(start);
  if (disk.magic != kMagic) return damaged("it does not begin as one does");
  if (disk.version != kVersion) {
    return Error(Errc::kNotSupported,
                 fmt::format("the index of the cache has version {}, and this program knows {}",
                             uint32_t{disk.version}, kVersion));
  }
  if (disk.crc != crc_of(disk)) return damaged("the checksum of its header is wrong");
  const Result<crypto::CipherMode> cipher = crypto::cipher_of_number(disk.cipher);
  if (!cipher || !all_zero(disk.reserved) || !all_zero(disk.reserved_end)) {
    return damaged("its header says what this version does not know");
  }
  const CacheIndexHeader header{.volume = disk.volume,
                                .stamp = disk.stamp,
                                .cipher = *cipher,
                                .sessions = disk.sessions,
                                .objects = disk.objects,
                                .entries = disk.entries,
                                .body_crc = disk.body_crc};
  const uint64_t wanted = kCacheHeaderBytes + uint64_t{header.sessions} * kCacheSaltBytes +
                          uint64_t{header.objects} * kCacheObjectBytes +
                          uint64_t{header.entries} * kCacheEntryBytes;
  const bool bounded = header.sessions <= limits::kCacheSessionsMax &&
                       header.entries <= limits::kCacheBlocksMax &&
                       header.objects <= header.entries;
  if (!bounded || wanted != file_bytes) return damaged("it is not as long as it says");
  return header;
}

void append(std::vector<std::byte>& out, const CacheSalt& salt) {
  out.insert(out.end(), salt.begin(), salt.end());
}

void append(std::vector<std::byte>& out, const ObjectId& id) {
  DiskObject disk;
  disk.epoch = id.epoch;
  disk.seq = id.seq;
  disk.kind = static_cast<uint8_t>(id.kind);
  append_struct(out, disk);
}

void append(std::vector<std::byte>& out, const CacheEntry& entry) {
  append_struct(out, DiskEntry{.place = entry.place,
                               .object = entry.object,
                               .position = entry.position,
                               .session = entry.session,
                               .number = entry.number,
                               .tag = entry.tag});
}

Result<ObjectId> decode_cache_object(Bytes bytes) {
  USBD_ASSERT(bytes.size() == sizeof(DiskObject));
  const auto disk = wire_read<DiskObject>(bytes);
  const bool known = disk.kind == static_cast<uint8_t>(ObjectKind::kData) ||
                     disk.kind == static_cast<uint8_t>(ObjectKind::kGc);
  if (!known || !all_zero(disk.reserved)) return damaged("it names an object of no known kind");
  return ObjectId{.epoch = disk.epoch, .seq = disk.seq, .kind = static_cast<ObjectKind>(disk.kind)};
}

Result<CacheEntry> decode_cache_entry(Bytes bytes, const CacheIndexHeader& header,
                                      uint64_t places) {
  USBD_ASSERT(bytes.size() == sizeof(DiskEntry));
  const auto disk = wire_read<DiskEntry>(bytes);
  const bool fits = disk.place < places && disk.object < header.objects &&
                    disk.session < header.sessions && disk.number < kCacheNumberEnd &&
                    disk.position < limits::kObjectBlocksMax;
  if (!fits) return damaged("an entry is about nothing that there is");
  return CacheEntry{.place = disk.place,
                    .object = disk.object,
                    .position = disk.position,
                    .session = disk.session,
                    .number = disk.number,
                    .tag = disk.tag};
}

// --- in pieces
// ------------------------------------------------------------------------------------

size_t CacheIndexDecoder::next_size() const {
  if (salts_.size() < header_.sessions) return kCacheSaltBytes;
  if (objects_.size() < header_.objects) return kCacheObjectBytes;
  return entries_seen_ < header_.entries ? kCacheEntryBytes : 0;
}

Result<void> CacheIndexDecoder::take(Bytes record) {
  if (salts_.size() < header_.sessions) {
    std::memcpy(salts_.emplace_back().data(), record.data(), record.size());
  } else if (objects_.size() < header_.objects) {
    USBD_TRY(objects_.emplace_back(), decode_cache_object(record));
  } else {
    USBD_TRY(entries_.emplace_back(), decode_cache_entry(record, header_, places_));
    ++entries_seen_;
  }
  return {};
}

Result<void> CacheIndexDecoder::feed(Bytes piece) {
  crc_ = crc32c(piece, crc_);
  rest_.insert(rest_.end(), piece.begin(), piece.end());
  size_t at = 0;
  for (size_t size = next_size(); size > 0 && rest_.size() - at >= size; size = next_size()) {
    USBD_TRY_VOID(take(Bytes(rest_).subspan(at, size)));
    at += size;
  }
  rest_.erase(rest_.begin(), rest_.begin() + static_cast<ptrdiff_t>(at));
  if (next_size() == 0 && !rest_.empty()) return damaged("it goes on behind its end");
  return {};
}

Result<void> CacheIndexDecoder::finish() const {
  if (next_size() != 0) return damaged("it is cut short");
  if (crc_ != header_.body_crc) return damaged("the checksum of its entries is wrong");
  return {};
}

}  // namespace usbd::objstore

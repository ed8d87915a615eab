// SPDX-License-Identifier: Apache-2.0
//
// The index of a kept cache of blocks: which block of which object is where in the cache's file,
// and how it was sealed. docs/formats/cache.md is the format. The file is only there while nobody
// uses the cache: it is written by a proper close and removed by the next opening before anything
// changes, so that it never tells of places that were used anew.
//
// It is read and written in pieces: there may be a great many entries.

#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/endian.h"
#include "crypto/sealer.h"
#include "devices/objstore/data_object.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::objstore {

/// The nonce of the head that the cache's user left: what comes after another one is not proven to
/// be the same volume.
using CacheStamp = std::array<std::byte, 16>;
/// Drawn anew by each opening.
using CacheSalt = std::array<std::byte, 32>;
using CacheTag = std::array<std::byte, 16>;

/// One block that the cache has.
struct CacheEntry {
  /// Where its sealed bytes are in the file. Units: blocks.
  uint32_t place = 0;
  /// Which of the index's objects, and the block's position in it.
  uint32_t object = 0;
  uint32_t position = 0;
  /// Which of the index's sessions sealed it, and under which number.
  uint32_t session = 0;
  uint64_t number = 0;
  CacheTag tag{};

  friend bool operator==(const CacheEntry&, const CacheEntry&) = default;
};

/// What the index says of itself.
struct CacheIndexHeader {
  VolumeId volume{};
  CacheStamp stamp{};
  crypto::CipherMode cipher = crypto::CipherMode::kIdentity;
  uint32_t sessions = 0;
  uint32_t objects = 0;
  uint32_t entries = 0;
  /// CRC-32C of all that follows.
  uint32_t body_crc = 0;

  friend bool operator==(const CacheIndexHeader&, const CacheIndexHeader&) = default;
};

inline constexpr size_t kCacheHeaderBytes = 96;
inline constexpr size_t kCacheSaltBytes = sizeof(CacheSalt);
inline constexpr size_t kCacheObjectBytes = 24;
inline constexpr size_t kCacheEntryBytes = 40;
/// Numbers of one session.
inline constexpr unsigned kCacheNumberBits = 48;
inline constexpr uint64_t kCacheNumberEnd = uint64_t{1} << kCacheNumberBits;

[[nodiscard]] std::array<std::byte, kCacheHeaderBytes> encode(const CacheIndexHeader& header);
/// Errors: kDamaged (also no index, or not of `file_bytes` bytes), kNotSupported (of a later
/// version).
Result<CacheIndexHeader> decode_cache_header(Bytes start, uint64_t file_bytes);

/// Append what stands behind the header, in this order: salts, objects, entries.
void append(std::vector<std::byte>& out, const CacheSalt& salt);
void append(std::vector<std::byte>& out, const ObjectId& id);
void append(std::vector<std::byte>& out, const CacheEntry& entry);

/// Range:  as many bytes as one takes, asserted. Errors: kDamaged: no such object can be.
Result<ObjectId> decode_cache_object(Bytes bytes);
/// Checks it against what the header says, and that its place is below `places`. Errors: kDamaged.
Result<CacheEntry> decode_cache_entry(Bytes bytes, const CacheIndexHeader& header, uint64_t places);

/// Takes the bytes behind the header, in pieces of any size, and tells what they say.
class CacheIndexDecoder {
 public:
  CacheIndexDecoder(const CacheIndexHeader& header, uint64_t places)
      : header_(header), places_(places) {}

  /// Errors: kDamaged. What was told before does not count then.
  Result<void> feed(Bytes piece);
  /// The end. Errors: kDamaged: something is missing, or damaged.
  Result<void> finish() const;

  [[nodiscard]] const std::vector<CacheSalt>& salts() const { return salts_; }
  [[nodiscard]] const std::vector<ObjectId>& objects() const { return objects_; }
  /// Those that came since the last call.
  [[nodiscard]] std::vector<CacheEntry> take_entries() { return std::exchange(entries_, {}); }

 private:
  [[nodiscard]] size_t next_size() const;
  Result<void> take(Bytes record);

  const CacheIndexHeader header_;
  const uint64_t places_;
  uint32_t crc_ = 0;
  std::vector<std::byte> rest_;
  std::vector<CacheSalt> salts_;
  std::vector<ObjectId> objects_;
  std::vector<CacheEntry> entries_;
  uint64_t entries_seen_ = 0;
};

}  // namespace usbd::objstore

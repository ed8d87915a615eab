// SPDX-License-Identifier: Apache-2.0
//
// The cache's two files: the blocks, and the index that says which they are. There is an index only
// while nobody uses the cache. Each opening takes it away, for good, before it changes a block; so
// a crash leaves blocks of which nobody knows anything, and the next opening begins anew.

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/log.h"
#include "devices/objstore/block_cache.h"

namespace usbd::objstore {
namespace {

constexpr const char* kBlocksFile = "cache.blocks";
constexpr const char* kIndexFile = "cache.index";
/// Being written.
constexpr const char* kNewIndexFile = "cache.index.new";
constexpr std::string_view kLabel = "usbd-cch-v1";

crypto::CipherMode cipher_of(const BlockCache::Options& options) {
  return options.sealed ? crypto::CipherMode::kAesGcm : crypto::CipherMode::kIdentity;
}

/// A kept cache that is of no use, though nothing is wrong with it.
Error not_ours(const char* why) {
  return Error(Errc::kNotFound, why);
}

}  // namespace

/// What entries, objects and sessions are called in the index.
struct BlockCache::Numbering {
  std::vector<uint32_t> sessions;
  std::vector<uint32_t> objects;
  CacheIndexHeader header;
};

Task<std::unique_ptr<BlockCache>> BlockCache::open(Folder& folder, Rng& rng, Options options) {
  std::unique_ptr<BlockCache> cache(new BlockCache(folder, options));
  const Result<void> started = co_await cache->start(rng);
  if (!started) {
    log::warning("there is no cache in {}, and reads go to the store: {}", folder.name(),
                 started.error().message());
    if (cache->file_) static_cast<void>(co_await cache->file_->close());
    cache.reset();
  }
  co_return std::move(cache);
}

Result<void> BlockCache::begin_session(const CacheSalt& salt) {
  const crypto::SealScope scope{.salt = salt, .label = kLabel, .identity = options_.volume};
  USBD_TRY(std::unique_ptr<const crypto::Sealer> sealer,
           crypto::make_sealer(cipher_of(options_), options_.key, scope));
  USBD_ASSERT(sealer->tag_size() <= sizeof(CacheTag));
  sessions_.push_back({.salt = salt, .sealer = std::move(sealer)});
  return {};
}

Task<Result<void>> BlockCache::start(Rng& rng) {
  // It is locked with this: nothing is read before, and nothing that the dead have asked for comes
  // later.
  // In the page cache, which gives its memory back when others want it, are the blocks that are
  // wanted most.
  const Folder::OpenHow how{.create = CreatePolicy::kAuto};
  USBD_CO_TRY(file_, co_await folder_.open(kBlocksFile, how));
  USBD_CO_TRY(const uint64_t bytes, file_->size());
  Result<void> loaded = not_ours("nothing was to be kept");
  if (options_.persist) loaded = co_await load(bytes / kBlockBytes);
  if (!loaded && !loaded.error().is(Errc::kNotFound)) {
    log::warning("the kept cache in {} is not used: {}", folder_.name(), loaded.error().message());
  }
  USBD_CO_TRY_VOID(co_await folder_.remove(kIndexFile));
  USBD_CO_TRY_VOID(co_await folder_.remove(kNewIndexFile));
  uint64_t kept = 0;
  {
    const MutexLock lock(mutex_);
    if (!loaded) clear();
    kept = entries_.size();
  }
  if (!loaded) sessions_.clear();
  if (bytes > kept * kBlockBytes) USBD_CO_TRY_VOID(co_await file_->truncate(kept * kBlockBytes));
  CacheSalt salt;
  rng.fill(salt);
  co_return begin_session(salt);
}

// --- what was kept
// --------------------------------------------------------------------------------

Task<Result<void>> BlockCache::load(uint64_t places) {
  const Folder::OpenHow how{.create = CreatePolicy::kNever, .read_only = true};
  USBD_CO_TRY(const std::unique_ptr<BlockFile> index, co_await folder_.open(kIndexFile, how));
  const Result<void> loaded = co_await load_from(*index, places);
  static_cast<void>(co_await index->close());  // it was only read
  co_return loaded;
}

Task<Result<void>> BlockCache::load_from(BlockFile& index, uint64_t places) {
  USBD_CO_TRY(const uint64_t bytes, index.size());
  std::vector<std::byte> piece(std::min<uint64_t>(bytes, kCacheHeaderBytes));
  USBD_CO_TRY_VOID(co_await index.read(0, piece));
  USBD_CO_TRY(const CacheIndexHeader header, decode_cache_header(piece, bytes));
  if (header.volume != options_.volume) co_return not_ours("it is another volume's");
  if (header.stamp != options_.found) co_return not_ours("the volume was used since");
  if (header.cipher != cipher_of(options_)) co_return not_ours("it is sealed in another way");
  if (header.sessions >= limits::kCacheSessionsMax) co_return not_ours("no session is free");
  CacheIndexDecoder decoder(header, places);
  for (uint64_t at = kCacheHeaderBytes; at < bytes; at += piece.size()) {
    piece.resize(std::min<uint64_t>(limits::kCacheIndexPiece, bytes - at));
    USBD_CO_TRY_VOID(co_await index.read(at, piece));
    USBD_CO_TRY_VOID(decoder.feed(piece));
    USBD_CO_TRY_VOID(adopt(decoder.objects(), decoder.take_entries()));
  }
  USBD_CO_TRY_VOID(decoder.finish());
  for (const CacheSalt& salt : decoder.salts()) USBD_CO_TRY_VOID(begin_session(salt));
  co_return Result<void>();
}

Result<void> BlockCache::adopt(const std::vector<ObjectId>& objects,
                               const std::vector<CacheEntry>& entries) {
  const MutexLock lock(mutex_);
  for (const CacheEntry& kept : entries) {
    if (kept.place >= places_max_) continue;  // the cache was larger
    if (entries_.size() <= kept.place) entries_.resize(kept.place + 1);
    Entry& entry = entries_[kept.place];
    if (entry.state != State::kFree || find(objects[kept.object], kept.position) != kNone) {
      return Error(Errc::kDamaged, "its index names a block or a place twice");
    }
    entry.seal = uint64_t{kept.session} << kCacheNumberBits | kept.number;
    entry.tag = kept.tag;
    entry.object = intern(objects[kept.object]);
    entry.position = kept.position;
    entry.state = State::kHere;
    link(kept.place);
  }
  return {};
}

// --- what is kept
// ---------------------------------------------------------------------------------

Task<void> BlockCache::close(std::optional<CacheStamp> left) {
  closed_ = true;
  co_await scope_.close();
  bool kept = false;
  if (options_.persist && left && stats().on) {
    const Result<void> saved = co_await save(*left);
    kept = saved.has_value();
    if (!kept) {
      log::warning("the cache in {} is not kept: {}", folder_.name(), saved.error().message());
    }
  }
  static_cast<void>(co_await file_->close());  // what it has is only cache
  if (!kept) co_await forget_kept();
}

/// Takes the files away. What fails here the next opening does again.
Task<void> BlockCache::forget_kept() {
  for (const char* name : {kIndexFile, kNewIndexFile, kBlocksFile}) {
    static_cast<void>(co_await folder_.remove(name));
  }
}

BlockCache::Numbering BlockCache::number_all() {
  Numbering numbers;
  numbers.header = {.volume = options_.volume, .stamp = {}, .cipher = cipher_of(options_)};
  const MutexLock lock(mutex_);
  std::vector<uint64_t> of_session(sessions_.size());
  for (const Entry& entry : entries_) {
    if (entry.state == State::kHere) ++of_session[entry.seal >> kCacheNumberBits];
  }
  // The next opening needs a session too, so the oldest blocks may have to go.
  numbers.sessions.assign(sessions_.size(), kNone);
  const size_t from = sessions_.size() < limits::kCacheSessionsMax
                          ? 0
                          : sessions_.size() - (limits::kCacheSessionsMax - 1);
  for (size_t i = from; i < sessions_.size(); ++i) {
    if (of_session[i] > 0) numbers.sessions[i] = numbers.header.sessions++;
  }
  numbers.objects.assign(objects_.size(), kNone);
  for (const Entry& entry : entries_) {
    if (entry.state != State::kHere) continue;
    if (numbers.sessions[entry.seal >> kCacheNumberBits] == kNone) continue;
    ++numbers.header.entries;
    uint32_t& object = numbers.objects[entry.object];
    if (object == kNone) object = numbers.header.objects++;
  }
  return numbers;
}

uint64_t BlockCache::append_entries(uint64_t place, const Numbering& numbers,
                                    std::vector<std::byte>& out) {
  const MutexLock lock(mutex_);
  for (; place < entries_.size() && out.size() < limits::kCacheIndexPiece; ++place) {
    const Entry& entry = entries_[place];
    if (entry.state != State::kHere) continue;
    const uint32_t session = numbers.sessions[entry.seal >> kCacheNumberBits];
    if (session == kNone) continue;
    append(out, CacheEntry{.place = static_cast<uint32_t>(place),
                           .object = numbers.objects[entry.object],
                           .position = entry.position,
                           .session = session,
                           .number = entry.seal & (kCacheNumberEnd - 1),
                           .tag = entry.tag});
  }
  return place;
}

Task<Result<CacheIndexHeader>> BlockCache::save_body(BlockFile& index, const Numbering& numbers) {
  CacheIndexHeader header = numbers.header;
  std::vector<std::byte> piece;
  for (size_t i = 0; i < sessions_.size(); ++i) {
    if (numbers.sessions[i] != kNone) append(piece, sessions_[i].salt);
  }
  uint64_t places = 0;
  {
    const MutexLock lock(mutex_);
    std::vector<ObjectId> ids(header.objects);
    for (size_t i = 0; i < objects_.size(); ++i) {
      if (numbers.objects[i] != kNone) ids[numbers.objects[i]] = objects_[i].id;
    }
    for (const ObjectId& id : ids) append(piece, id);
    places = entries_.size();
  }
  uint64_t at = kCacheHeaderBytes;
  uint64_t place = 0;
  do {
    place = append_entries(place, numbers, piece);
    header.body_crc = crc32c(piece, header.body_crc);
    if (!piece.empty()) USBD_CO_TRY_VOID(co_await index.write(at, piece, WriteFlags{}));
    at += piece.size();
    piece.clear();
  } while (place < places);
  co_return header;
}

Task<Result<void>> BlockCache::save(CacheStamp left) {
  // First the blocks: an index that a power cut leaves is one of blocks that it left too.
  USBD_CO_TRY_VOID(co_await file_->datasync());
  Numbering numbers = number_all();
  numbers.header.stamp = left;
  USBD_CO_TRY_VOID(co_await folder_.remove(kNewIndexFile));
  const Folder::OpenHow how{.create = CreatePolicy::kOnly};
  USBD_CO_TRY(const std::unique_ptr<BlockFile> index, co_await folder_.open(kNewIndexFile, how));
  const Result<CacheIndexHeader> header = co_await save_body(*index, numbers);
  Result<void> saved = header ? Result<void>() : Result<void>(header.error());
  if (saved) {
    const auto bytes = encode(*header);
    saved = co_await index->write(0, bytes, WriteFlags{});
  }
  if (saved) saved = co_await index->datasync();
  const Result<void> closed = co_await index->close();
  USBD_CO_TRY_VOID(saved);
  USBD_CO_TRY_VOID(closed);
  co_return co_await folder_.rename(kNewIndexFile, kIndexFile);
}

}  // namespace usbd::objstore

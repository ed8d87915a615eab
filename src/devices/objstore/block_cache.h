// SPDX-License-Identifier: Apache-2.0
//
// BlockCache: blocks of data objects on the local disk. The unit is the block of 4 KiB, decoded,
// sealed again under keys that only the cache has, and found by the object it is of: what an object
// holds never changes, so nothing here is ever out of date. Who reads a block opens its seal, which
// names volume, object and position: what rotted, was torn, or is another block, is a miss.
//
// The file is an array of places. A place is used again for another block under a new number, and
// no number seals twice; each opening begins a session of its own, with a fresh salt. What the file
// cannot take or give costs cache and nothing else: the cache shrinks, or is switched off, and says
// so once. docs/formats/cache.md has the formats.

#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "async/folder.h"
#include "async/scope.h"
#include "async/worker_pool.h"
#include "base/aligned_buffer.h"
#include "base/limits.h"
#include "base/mutex.h"
#include "base/random.h"
#include "devices/objstore/cache_index.h"
#include "devices/objstore/data_object.h"

namespace usbd::objstore {

struct CacheStats {
  /// Units: blocks asked for that were there, and that were not.
  uint64_t hits = 0;
  uint64_t misses = 0;
  /// Blocks that were not what had been put there, or could not be read.
  uint64_t damaged = 0;
  /// Units: blocks that it has, and may have.
  uint64_t blocks = 0;
  uint64_t blocks_max = 0;
  bool on = false;
};

/// Threads: read(), try_read(), missing() and stats(): any loop's, at the same time; the rest: the
///          loop's that opened it.
class BlockCache {
 public:
  struct Options {
    VolumeId volume{};
    /// Whether the volume is encrypted, and its key then. Lifetime: outlives the cache.
    bool sealed = false;
    Bytes key = {};
    uint64_t blocks_max = 0;
    /// Kept by close() for the next opening.
    bool persist = false;
    /// The head that was found: a kept cache counts only if its user left this one.
    CacheStamp found{};
    /// Where blocks are sealed; null: on the cache's loop. Lifetime: outlives the cache.
    WorkerPool* workers = nullptr;
    /// For tests: false: what comes from the disk is believed.
    bool proves = true;
  };
  /// Blocks of a request that are not there.
  struct Gap {
    uint64_t first = 0;
    uint64_t count = 0;
    friend bool operator==(const Gap&, const Gap&) = default;
  };

  /// Opens the cache of a folder, empty or as it was kept. Null, and the log says why: there is
  /// none.
  /// Lifetime: `folder` outlives the cache.
  static Task<std::unique_ptr<BlockCache>> open(Folder& folder, Rng& rng, Options options);
  ~BlockCache();

  /// Fills what it has of the blocks of `id` from `position` on, and returns what is missing, in
  /// order. Range: whole blocks.
  Task<std::vector<Gap>> read(ObjectId id, uint32_t position, MutableBytes out);
  /// The same if all of it is there and comes without waiting; else false, and `out` holds
  /// anything.
  [[nodiscard]] bool try_read(const ObjectId& id, uint32_t position, MutableBytes out);
  /// What of so many blocks it has not, and is not about to have.
  [[nodiscard]] std::vector<Gap> missing(const ObjectId& id, uint32_t position, uint64_t blocks);

  /// Puts blocks there, as far as there is room on the way to the disk. What is there already
  /// stays. Lifetime: `blocks` during the call, or, if they are part of `frame`, as long as that.
  void add(const ObjectId& id, uint32_t position, Bytes blocks, const FrameMemory& frame = {});
  /// Whether so many blocks that nobody asked for may be added now: a second has room for some, and
  /// more are not worth the time and the wear of the disk. Counts them.
  [[nodiscard]] bool takes_unasked(uint64_t blocks);
  /// For tests: waits for what is on its way to the disk.
  Task<void> settle();

  /// Gives the files up. `left`: the head as its user leaves it; empty: nothing may be kept.
  Task<void> close(std::optional<CacheStamp> left);

  [[nodiscard]] CacheStats stats();

 private:
  enum class State : uint8_t {
    kFree,
    kWriting,
    kHere,
    kBad,  ///< The disk cannot give it back.
  };
  struct Entry {
    /// Session and number of its seal.
    uint64_t seal = 0;
    CacheTag tag{};
    uint32_t object = 0;
    uint32_t position = 0;
    /// The next of the same bucket.
    uint32_t next = kNone;
    State state = State::kFree;
    bool used = false;
  };
  static constexpr uint32_t kNone = UINT32_MAX;
  /// Of an object of which there are blocks.
  struct Object {
    ObjectId id;
    uint32_t blocks = 0;
  };
  struct IdHash {
    size_t operator()(const ObjectId& id) const;
  };
  struct Hit {
    uint64_t block = 0;
    uint32_t place = 0;
    uint64_t seal = 0;
    CacheTag tag{};
  };
  struct Session {
    CacheSalt salt{};
    std::unique_ptr<const crypto::Sealer> sealer;
  };
  /// A block that gets a place: which of its object and which of those given, where to, and under
  /// which number; then with which tag.
  struct Taken {
    uint32_t position = 0;
    uint32_t source = 0;
    uint32_t place = 0;
    uint64_t seal = 0;
    CacheTag tag{};
  };
  /// Blocks of an object that wait to be written. Their numbers and places are theirs already.
  struct Batch {
    ObjectId id;
    std::vector<Taken> blocks = {};
    Bytes given = {};
    /// Has what is given.
    FrameMemory memory = {};
  };
  struct Group;
  struct Numbering;
  struct Request;

  BlockCache(Folder& folder, Options options);

  // block_cache.cc
  std::vector<Hit> find_all(Request& request);
  /// Fills `hits`; false: not all of it is there.
  [[nodiscard]] bool find_each(const ObjectId& id, uint32_t position, std::span<Hit> hits);
  Task<void> read_run(Request& request, std::span<const Hit> run);
  /// Opens what was read in place.
  [[nodiscard]] bool unseal(const ObjectId& id, uint32_t position, const Hit& hit,
                            MutableBytes block) const;
  [[nodiscard]] std::vector<Taken> take_places(const ObjectId& id, uint32_t position,
                                               uint32_t blocks);
  [[nodiscard]] Group take_group();
  void seal(Group& group) const;
  void lost(const Hit& hit, bool unreadable);
  Task<void> write_all();
  Task<void> write(const Group& group);
  void written(std::span<const Taken> run);
  void not_written(std::span<const Taken> run, const Error& error);
  void switch_off(const std::string& why);

  [[nodiscard]] uint32_t find(const ObjectId& id, uint32_t position) const USBD_REQUIRES(mutex_);
  [[nodiscard]] uint32_t object_number(const ObjectId& id) const USBD_REQUIRES(mutex_);
  /// Range: `object` may be kNone.
  [[nodiscard]] uint32_t find(uint32_t object, uint32_t position) const USBD_REQUIRES(mutex_);
  [[nodiscard]] size_t bucket(uint32_t object, uint32_t position) const USBD_REQUIRES(mutex_);
  uint32_t intern(const ObjectId& id) USBD_REQUIRES(mutex_);
  void link(uint32_t place) USBD_REQUIRES(mutex_);
  void unlink(uint32_t place, State state) USBD_REQUIRES(mutex_);
  void grow_buckets() USBD_REQUIRES(mutex_);
  uint32_t choose() USBD_REQUIRES(mutex_);
  void clear() USBD_REQUIRES(mutex_);

  // block_cache_files.cc
  Result<void> begin_session(const CacheSalt& salt);
  Task<Result<void>> start(Rng& rng);
  Task<Result<void>> load(uint64_t places);
  Task<Result<void>> load_from(BlockFile& index, uint64_t places);
  Result<void> adopt(const std::vector<ObjectId>& objects, const std::vector<CacheEntry>& entries);
  Task<void> forget_kept();
  Task<Result<void>> save(CacheStamp left);
  [[nodiscard]] Numbering number_all();
  Task<Result<CacheIndexHeader>> save_body(BlockFile& index, const Numbering& numbers);
  /// Appends entries from `place` on; returns where to go on.
  uint64_t append_entries(uint64_t place, const Numbering& numbers, std::vector<std::byte>& out);

  Folder& folder_;
  const Options options_;
  std::unique_ptr<BlockFile> file_;
  /// The last is this opening's. Fixed once it is open.
  std::vector<Session> sessions_;
  std::atomic<uint64_t> hits_{0};
  std::atomic<uint64_t> misses_{0};
  std::atomic<uint64_t> damaged_{0};
  uint64_t next_number_ = 0;
  uint64_t writing_bytes_ = 0;
  /// What no task has begun to write.
  std::deque<Batch> waiting_;
  unsigned writers_ = 0;
  /// Units: bytes that may be added unasked, as of then.
  uint64_t unasked_ = limits::kCacheUnaskedBytes;
  Nanos unasked_at_{0};
  Scope scope_;
  bool closed_ = false;

  Mutex mutex_;
  bool on_ USBD_GUARDED_BY(mutex_) = true;
  bool told_damage_ USBD_GUARDED_BY(mutex_) = false;
  uint64_t places_max_ USBD_GUARDED_BY(mutex_);
  /// One for each place that was ever used.
  std::deque<Entry> entries_ USBD_GUARDED_BY(mutex_);
  uint64_t here_ USBD_GUARDED_BY(mutex_) = 0;
  uint64_t linked_ USBD_GUARDED_BY(mutex_) = 0;
  unsigned bad_ USBD_GUARDED_BY(mutex_) = 0;
  /// Where the search for a place goes on.
  uint64_t hand_ USBD_GUARDED_BY(mutex_) = 0;
  /// The first entry of each bucket; as many as a power of two.
  std::vector<uint32_t> buckets_ USBD_GUARDED_BY(mutex_);
  std::vector<Object> objects_ USBD_GUARDED_BY(mutex_);
  std::vector<uint32_t> free_objects_ USBD_GUARDED_BY(mutex_);
  std::unordered_map<ObjectId, uint32_t, IdHash> object_numbers_ USBD_GUARDED_BY(mutex_);
};

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// Volume: the engine of the objstore device. A write gets a number, goes into the batch that is
// open and into the journal, and is acknowledged. A batch that is closed is read back from the
// journal, sealed, and put into the store as one data object; when all batches up to one are
// stored, the head is moved on to them, their places go into the map, and the journal forgets them.
//
// The order of these steps is the promise (docs/formats/README.md):
// - local flush: the journal is synced. Remote flush: the head names the object.
// - An object is whole in the store before the head names it; the head names it before the journal
//   may forget it.
// - The journal that belongs to an epoch is on disk, and says so, before the epoch is taken.
// - Whoever is not the owner any more acknowledges nothing once it has seen so.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/folder.h"
#include "async/scope.h"
#include "async/worker_pool.h"
#include "base/mutex.h"
#include "base/random.h"
#include "codec/codec.h"
#include "devices/objstore/block_cache.h"
#include "devices/objstore/block_map.h"
#include "devices/objstore/change_index.h"
#include "devices/objstore/data_object_reader.h"
#include "devices/objstore/head.h"
#include "devices/objstore/head_keeper.h"
#include "devices/objstore/object_pins.h"
#include "devices/objstore/object_reader.h"
#include "devices/objstore/read_streams.h"
#include "journal/journal.h"
#include "objects/object_store.h"
#include "usbd/device.h"

namespace usbd::objstore {

/// For tests: a rule that is not kept, so that the tests prove that they would see it.
enum class VolumeRule : uint8_t {
  kJournalsBeforeItFlushes,
  kStoresBeforeItPublishes,
  kPublishesBeforeItForgets,
  kChoosesItsOwnJournal,
  kFencesItself,
  kProvesWhatItKept,
};

enum class FlushMode : uint8_t { kLocal, kRemote };

struct VolumeOptions {
  /// The volume's prefix in its container.
  std::string name;
  CreatePolicy create = CreatePolicy::kAuto;
  /// Of a new volume; 0 for an existing one: whatever it has. Units: bytes.
  uint64_t size = 0;
  bool size_is_explicit = false;
  uint32_t logical_block_size = 4096;
  crypto::CipherMode cipher = crypto::CipherMode::kAesGcm;
  codec::Codec codec = {};
  FlushMode flush_mode = FlushMode::kLocal;
  /// Payload of a batch. Units: bytes.
  uint64_t object_bytes = 64U << 20;
  /// The oldest that an open batch gets; zero: any age.
  Nanos flush_every{10'000'000'000};
  /// The oldest that an unpublished write gets before new ones wait.
  Nanos dirty_age_max{300'000'000'000};
  uint64_t journal_bytes = 64U << 20;
  unsigned uploads_max = 4;
  /// How long a remote flush, and a read, waits for the store; zero: for ever.
  Nanos timeout{0};
  bool takeover = false;
  bool fencing = true;
  bool read_only = false;
  /// Of blocks of objects that the local disk keeps; 0: none. Units: bytes.
  uint64_t cache_bytes = 0;
  /// They are kept over a proper close.
  bool keeps_cache = false;
  uint32_t journal_payload_max = journal::kPayloadBlocksMax;
  std::optional<VolumeRule> broken_rule = {};
  std::optional<journal::Rule> broken_journal_rule = {};
};

/// What a volume is opened with. Lifetime: all outlive the volume.
struct VolumeParts {
  objects::ObjectStore& store;
  /// For journal and cache. Null only if read-only.
  Folder* folder = nullptr;
  Rng& rng;
  /// The volume's key; empty for the cipher kIdentity.
  Bytes key = {};
  /// How a session of the journal is sealed; empty: not.
  journal::SealerSource journal_sealer = {};
  /// Where what is read is opened; null: on the volume's loop.
  WorkerPool* workers = nullptr;
};

struct VolumeState {
  Head head;
  uint64_t last_number = 0;
  uint64_t unpublished_bytes = 0;
  Nanos unpublished_age{0};
  uint64_t objects = 0;
  uint64_t journal_bytes_used = 0;
  bool fenced = false;
  std::string journal_failure;
  FetchStats fetched;
  CacheStats cache;
};

/// Threads: write(), trim(), read(), flush() and state(): any loop's, at the same time. open() and
///          close(): one loop, which does the background work.
class Volume {
 public:
  /// Opens the volume, or makes it.
  /// Errors: kNotFound, kExists (CreatePolicy); kBusy: it belongs to another journal and was not
  ///         stopped (takeover), or another process took it at this moment; kAccess: another key;
  ///         kInvalid: another size or block size than asked for; kIo: damage, of bucket or
  ///         journal.
  static Task<Result<std::unique_ptr<Volume>>> open(VolumeParts parts, VolumeOptions options);
  ~Volume();

  [[nodiscard]] uint64_t size() const { return keeper_.head().size; }
  [[nodiscard]] const Head& head() const { return keeper_.head(); }
  [[nodiscard]] uint64_t blocks() const { return map_->blocks(); }
  /// A new volume was made by open().
  [[nodiscard]] bool created() const { return created_; }

  /// Writes whole blocks. Returns the number of the last change that it was made into.
  /// Durable: after a later flush(). Order: by number.
  /// Errors:  kPerm: taken over; kShutdown.
  Task<Result<uint64_t>> write(uint64_t first_block, Bytes data);
  /// Unmaps blocks: they read as zeros. Range: `kind` is not kData.
  Task<Result<uint64_t>> clear(BlockRange blocks, ExtentKind kind);
  /// Makes durable, as the flush mode means it, every change that was numbered before.
  /// Errors: kIo (the journal has failed), kPerm (taken over), kTimedOut (remote mode).
  Task<Result<void>> flush();
  /// Reads whole blocks. Errors: kIo: for these blocks there is no proven data; kPerm: taken over.
  Task<Result<void>> read(uint64_t first_block, MutableBytes data);
  /// Whether the blocks hold data, in runs.
  [[nodiscard]] std::vector<std::pair<BlockRange, bool>> data_runs(BlockRange range);

  /// Publishes what is left, says in the head that all is there, and gives journal and head up.
  /// With `stop` requested it leaves in the journal what is not published yet.
  /// Errors: kAgain: unpublished data is kept in the journal; kPerm: taken over.
  Task<Result<void>> close(std::stop_token stop);

  /// Gives up at once: calls that wait, and later ones, fail with kShutdown, uploads end. What is
  /// not published stays in the journal. close() is still to be called. Threads: the volume's loop.
  void abandon();

  [[nodiscard]] VolumeState state();
  /// Whether a read has taken from the map that data is in this object, and is not done with it.
  /// Threads: any.
  [[nodiscard]] bool reading(const ObjectId& id) const { return pins_.reading(id); }
  /// Tests: publishes all that is numbered.
  Task<Result<void>> publish_all() { return wait_published(last_number()); }

 private:
  struct Slot {
    ObjectId id;
    uint64_t bytes = 0;
    /// Until add_object(), which leaves it to the reader.
    std::shared_ptr<const Directory> directory;
  };
  struct Waiter;
  struct WriterTurn;
  struct FlushTurn;
  /// A part of a read: from the journal, from an object, or zeros.
  struct Segment {
    explicit Segment(BlockRange range) : blocks(range) {}
    BlockRange blocks;
    std::optional<journal::Journal::Held> held;
    Location location;
    /// Of what is in an object.
    ObjectId id;
    ObjectPins::Pin pin;
    /// Of what is read.
    MutableBytes out;
  };

  Volume(VolumeParts parts, VolumeOptions options);
  [[nodiscard]] bool keeps(VolumeRule rule) const { return options_.broken_rule != rule; }
  [[nodiscard]] VolumeSeal seal() const;
  [[nodiscard]] uint64_t last_number();

  // volume_open.cc
  Task<Result<void>> start();
  Task<Result<HeadKeeper::Found>> find_or_create();
  Task<Result<HeadKeeper::Found>> create();
  Result<void> check_geometry(const Head& head) const;
  Task<Result<void>> choose_journal(const Head& head);
  Task<Result<std::unique_ptr<journal::Journal>>> open_journal(const std::string& name);
  Task<Result<void>> make_journal(uint64_t epoch);
  Task<Result<void>> put_aside(const std::string& name);
  Task<Result<void>> take(const HeadKeeper::Found& found);
  Task<Result<void>> load_map();
  Task<void> load_directory(uint64_t seq, std::vector<std::optional<Slot>>& slots,
                            std::optional<Error>& failed);
  Result<void> add_object(Slot slot, const std::vector<Extent>& extents) USBD_REQUIRES(mutex_);
  Result<void> adopt_replayed();
  void make_reader();
  Task<void> open_cache(const Head& found);
  Task<void> close_reading();
  [[nodiscard]] journal::Options journal_options() const;

  // volume_write.cc
  Task<Result<uint64_t>> change(BlockRange blocks, ExtentKind kind, Bytes data);
  /// Empty: it has to wait.
  std::optional<Result<uint64_t>> try_change(BlockRange blocks, ExtentKind kind, Bytes data)
      USBD_REQUIRES(mutex_);
  [[nodiscard]] bool may_number(uint32_t payload_blocks) USBD_REQUIRES(mutex_);
  void add_change(const Change& change) USBD_REQUIRES(mutex_);
  void close_batch() USBD_REQUIRES(mutex_);
  void wake_writers();

  // volume_publish.cc
  Task<void> background();
  void start_contact();
  Task<void> make_contact();
  void wake_background() USBD_REQUIRES(mutex_);
  [[nodiscard]] Nanos next_deadline() USBD_REQUIRES(mutex_);
  [[nodiscard]] bool journal_is_half_full();
  void close_batch_if_due() USBD_REQUIRES(mutex_);
  void start_uploads();
  Task<void> upload(std::shared_ptr<Batch> batch);
  Task<Result<std::vector<std::byte>>> seal_batch(const Batch& batch, const ObjectId& id);
  Task<void> read_change(Change change, journal::Journal::Held held, MutableBytes out,
                         std::optional<Error>& failed);
  void finish_upload(Batch& batch, const ObjectId& id, Bytes bytes);
  /// How many batches, from the oldest on, can be published together.
  [[nodiscard]] size_t publishable() USBD_REQUIRES(mutex_);
  [[nodiscard]] bool publish_is_due() USBD_REQUIRES(mutex_);
  void start_publishing();
  Task<void> publish();
  void published(size_t count);
  Task<Result<void>> wait_published(uint64_t number);
  void answer_flushers(uint64_t number, const std::optional<Error>& error);
  void expire_flushers();
  void end(const Error& error);
  void fence(const Error& error);

  // volume_read.cc
  std::vector<Segment> resolve(BlockRange range);
  std::vector<Segment> resolve_into(BlockRange range, MutableBytes data);
  Task<void> read_local(Segment& segment, std::vector<ReadPiece>& missing,
                        std::optional<Error>& failed);
  Task<Result<std::vector<ReadPiece>>> read_all_local(std::vector<Segment>& segments);
  Task<void> read_objects(std::span<ReadPiece> pieces, ObjectReader::Effort effort);
  Task<Result<void>> read_again(const ReadPiece& piece);
  Task<void> read_ahead(BlockRange ahead);
  void admit(const ReadPiece& piece, uint32_t frame, Bytes plain);
  Task<Result<Slot>> fetch_slot(ObjectId id);

  VolumeParts parts_;
  const VolumeOptions options_;
  Loop& home_;
  HeadKeeper keeper_;
  std::unique_ptr<journal::Journal> journal_;
  Nonce journal_id_{};
  bool created_ = false;
  std::vector<std::pair<journal::Entry, journal::Place>> replayed_;

  mutable ObjectPins pins_;
  /// Set once, while opening; no cache: null.
  std::unique_ptr<ObjectReader> reader_;
  std::unique_ptr<BlockCache> cache_;

  Scope scope_;
  std::stop_source stop_;
  unsigned uploads_ = 0;
  bool publishing_ = false;
  bool contacting_ = false;
  Nanos last_publish_{0};

  Mutex mutex_;
  /// The pointer is set once, while opening.
  std::unique_ptr<BlockMap> map_;
  /// By slot; the first is not used.
  std::vector<Slot> slots_ USBD_GUARDED_BY(mutex_);
  ReadStreams streams_ USBD_GUARDED_BY(mutex_);
  uint64_t next_number_ USBD_GUARDED_BY(mutex_) = 1;
  /// In order; the last may be open. Those that are published are not here.
  std::deque<std::shared_ptr<Batch>> batches_ USBD_GUARDED_BY(mutex_);
  uint64_t next_seq_ USBD_GUARDED_BY(mutex_) = 1;
  uint64_t published_number_ USBD_GUARDED_BY(mutex_) = 0;
  /// Somebody waits for the publication of writes up to this number.
  uint64_t wanted_number_ USBD_GUARDED_BY(mutex_) = 0;
  std::optional<Error> ended_ USBD_GUARDED_BY(mutex_);
  bool closing_ USBD_GUARDED_BY(mutex_) = false;
  /// Ends a sleep of background(); made anew for each.
  std::stop_source nap_ USBD_GUARDED_BY(mutex_);
  Waiter* writers_ USBD_GUARDED_BY(mutex_) = nullptr;
  Waiter* writers_end_ USBD_GUARDED_BY(mutex_) = nullptr;
  Waiter* flushers_ USBD_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// Volume: the engine of the objstore device. A write gets a number, goes into the batch that is
// open and into the journal, and is acknowledged. A batch that is closed is sealed, from memory or
// read back from the journal, and put into the store as one data object; when all batches up to one
// are stored, the head is moved on to them, their places go into the map, and the journal forgets
// them.
//
// The order of these steps is the promise (docs/formats/README.md):
// - local flush: the journal is synced. Remote flush: the head names the object.
// - An object is whole in the store before the head names it; the head names it before the journal
//   may forget it.
// - The journal that belongs to an epoch is on disk, and says so, before the epoch is taken.
// - Whoever is not the owner any more acknowledges nothing once it has seen so.
// - What a checkpoint says is the head's only once all of it is stored; what it does without is
//   removed only after that. When a data object may go, live_map.h says.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "async/folder.h"
#include "async/scope.h"
#include "async/worker_pool.h"
#include "base/limits.h"
#include "base/mutex.h"
#include "base/random.h"
#include "codec/codec.h"
#include "devices/objstore/block_cache.h"
#include "devices/objstore/block_map.h"
#include "devices/objstore/change_index.h"
#include "devices/objstore/checkpoint.h"
#include "devices/objstore/data_object_reader.h"
#include "devices/objstore/head.h"
#include "devices/objstore/head_keeper.h"
#include "devices/objstore/live_map.h"
#include "devices/objstore/map_pager.h"
#include "devices/objstore/object_reader.h"
#include "devices/objstore/read_streams.h"
#include "devices/objstore/seen_head.h"
#include "devices/objstore/snapshots.h"
#include "devices/objstore/victims.h"
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
  /// A checkpoint covers the objects up to its moment, not up to when the head names it.
  kCoversItsMoment,
  /// What earlier checkpoints need is removed after the head names the new one.
  kNamesBeforeItRemoves,
  /// A data object is deleted after two checkpoints say that it is not needed.
  kListsBeforeItDeletes,
  /// A data object is deleted after the reads that may want it have ended.
  kWaitsForReaders,
  /// Blocks that were moved are mapped to their new place only if nothing was written since.
  kAppliesWhereSourceStill,
  /// What the head says is on the local disk, too, before anybody is answered who relies on it.
  kRemembersBeforeItAnswers,
  /// A data object that a snapshot needs is not deleted.
  kKeepsForSnapshots,
  /// What a snapshot needs of checkpoints is not removed with the next one.
  kHoldsForSnapshots,
  /// Nor is it taken for what dead processes have left behind.
  kSweepsAroundSnapshots,
  /// Nor when a snapshot beside it is deleted.
  kFreesWhatNoneNeeds,
  /// A snapshot is there when the head names the root that lists it.
  kNamesBeforeItTakes,
};

/// When the volume makes checkpoints, and how it cleans up. Tests make all of it smaller.
struct SpaceRules {
  uint64_t replay_objects = limits::kReplayObjects;
  uint64_t replay_directory_bytes = limits::kReplayDirectoryBytes;
  uint64_t checkpoint_data_bytes = limits::kCheckpointDataBytes;
  CleanRules clean = {};
  /// How long what nobody needs any more is kept.
  Nanos delete_after = limits::kDeleteAfter;
  /// Objects of dead processes that belong to nothing are looked for after opening.
  bool sweeps = true;
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
  /// Memory of what is not stored yet: payload that the journal has too, and sealed objects on
  /// their way. One object is let through whatever it takes. Units: bytes.
  uint64_t memory_bytes = 0;
  /// How long a remote flush, and a read, waits for the store; zero: for ever.
  Nanos timeout{0};
  bool takeover = false;
  bool fencing = true;
  bool read_only = false;
  /// Of blocks of objects that the local disk keeps; 0: none. Units: bytes.
  uint64_t cache_bytes = 0;
  /// They are kept over a proper close.
  bool keeps_cache = false;
  /// Memory of the map, which goes to a local file beyond that. Units: bytes.
  uint64_t map_bytes = limits::kMapMemory;
  SpaceRules space = {};
  uint32_t journal_payload_max = journal::kPayloadBlocksMax;
  std::optional<VolumeRule> broken_rule = {};
  std::optional<journal::Rule> broken_journal_rule = {};
};

/// What a volume is opened with. Lifetime: all outlive the volume.
struct VolumeParts {
  objects::ObjectStore& store;
  /// For journal, cache and map. Read-only: only for the map; null: it takes what memory it needs.
  Folder* folder = nullptr;
  Rng& rng;
  /// The volume's key; empty for the cipher kIdentity.
  Bytes key = {};
  /// How a session of the journal is sealed; empty: not.
  journal::SealerSource journal_sealer = {};
  /// Where what is read is opened and what is written is sealed; null: on the volume's loop.
  WorkerPool* workers = nullptr;
};

struct VolumeState {
  Head head;
  uint64_t last_number = 0;
  uint64_t unpublished_bytes = 0;
  Nanos unpublished_age{0};
  /// Data objects that hold something, and their bytes: all, and those of live blocks.
  uint64_t objects = 0;
  uint64_t stored_bytes = 0;
  uint64_t live_bytes = 0;
  /// Objects that hold nothing any more and wait to be deleted; and those kept for snapshots.
  uint64_t objects_to_delete = 0;
  uint64_t objects_held = 0;
  uint64_t snapshots = 0;
  /// The last checkpoint that the head names; 0: none. Its age counts from the opening at most.
  uint64_t checkpoint = 0;
  Nanos checkpoint_age{0};
  /// What was done since the volume was opened.
  uint64_t checkpoints_made = 0;
  uint64_t objects_cleaned = 0;
  uint64_t bytes_moved = 0;
  uint64_t objects_deleted = 0;
  uint64_t journal_bytes_used = 0;
  bool fenced = false;
  std::string journal_failure;
  FetchStats fetched;
  CacheStats cache;
  MapUsage map;
};

/// Threads: write(), trim(), read(), flush() and state(): any loop's, at the same time. open() and
///          close(): one loop, which does the background work.
class Volume {
 public:
  /// Opens the volume, or makes it.
  /// Errors: kNotFound, kExists (CreatePolicy); kBusy: it belongs to another journal and was not
  ///         stopped (takeover), or another process took it at this moment; kAccess: another key;
  ///         kInvalid: another size or block size than asked for; kDamaged: of the bucket; kIo: of
  ///         the journal.
  static Task<Result<std::unique_ptr<Volume>>> open(VolumeParts parts, VolumeOptions options);
  ~Volume();

  [[nodiscard]] uint64_t size() const { return size_; }
  /// Threads: the volume's loop.
  [[nodiscard]] const Head& head() const { return keeper_.head(); }
  [[nodiscard]] uint64_t blocks() const { return (size_ + kBlockBytes - 1) / kBlockBytes; }
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
  /// Read-only: what the volume's owner has deleted meanwhile is looked for in a later image.
  Task<Result<void>> read(uint64_t first_block, MutableBytes data);
  /// The same as read() if it can be done without waiting; empty: ask read().
  std::optional<Result<void>> try_read(uint64_t first_block, MutableBytes data);
  /// Whether the blocks hold data, in runs. Errors: kIo: nobody knows (map_pager.h).
  Task<Result<std::vector<std::pair<BlockRange, bool>>>> data_runs(BlockRange range);

  /// Publishes what is left, says in the head that all is there, and gives journal and head up.
  /// With `stop` requested it leaves in the journal what is not published yet.
  /// Errors: kAgain: unpublished data is kept in the journal; kPerm: taken over.
  Task<Result<void>> close(std::stop_token stop);

  /// Gives up at once: calls that wait, and later ones, fail with kShutdown, uploads end. What is
  /// not published stays in the journal. close() is still to be called. Threads: the volume's loop.
  void abandon();

  /// Keeps the volume as it is at a moment of this call, with every change numbered before it.
  /// Whoever has the head can read it (snapshots.h), until it is deleted.
  /// Durable: once it returns. After an error it may be there all the same: snapshots() says.
  /// Lifetime: the volume is closed only after this has returned; a close() meanwhile ends it.
  /// Errors:  kInvalid, kExists (the name); kNoSpace (limits::kSnapshotsMax); kPerm (read-only, or
  ///          taken over); kTimedOut: as flush(); kShutdown.
  Task<Result<SnapshotRef>> snapshot(SnapshotLabel label);
  /// Lets what it alone needs go, as all that is deleted: in a while.
  /// Durable, Lifetime: as snapshot(). Errors: kNotFound; kPerm; kShutdown; those of the store.
  Task<Result<void>> delete_snapshot(uint64_t number);
  /// Those that the head leads to, in order. Threads: any.
  [[nodiscard]] std::vector<SnapshotRef> snapshots();

  [[nodiscard]] VolumeState state();
  /// Tests: publishes all that is numbered.
  Task<Result<void>> publish_all() { return wait_published(last_number()); }

 private:
  struct Slot {
    uint64_t bytes = 0;
    std::shared_ptr<const Directory> directory;
  };
  struct ReadPin;
  /// What has changed since the moment of the last checkpoint.
  struct Since {
    uint64_t objects = 0;
    uint64_t directory_bytes = 0;
    uint64_t data_bytes = 0;
    /// Of any kind.
    uint64_t changes = 0;
  };
  /// A checkpoint that is stored, and that the head does not name yet.
  struct ReadyRoot {
    uint64_t number = 0;
    RootPointer root;
    std::vector<std::string> garbage;
  };
  /// An object of checkpoints that nobody needs from then on.
  struct Garbage {
    std::string name;
    Nanos not_before{0};
  };
  /// What a round of garbage collection moves.
  struct CleanJob;
  struct LiveRun;
  struct SnapshotOrder;
  struct SealStep;
  struct Waiter;
  /// Has `count` count who takes log objects in.
  struct TakingIn {
    explicit TakingIn(unsigned& of) : count(of) { ++count; }
    TakingIn(const TakingIn&) = delete;
    TakingIn& operator=(const TakingIn&) = delete;
    ~TakingIn() { --count; }

    unsigned& count;
  };
  struct WriterTurn;
  struct FlushTurn;
  /// A part of a read: from the journal, from an object, or zeros.
  struct Segment {
    explicit Segment(BlockRange range) : blocks(range) {}
    BlockRange blocks;
    std::optional<journal::Journal::Held> held;
    Location location;
    /// Of what is in an object: a slot may change its meaning.
    ObjectId id;
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
  Task<Result<void>> refuse_over_a_journal();
  Task<Result<HeadKeeper::Found>> create();
  Result<void> check_geometry(const Head& head) const;
  Task<Result<void>> choose_journal(const Head& head);
  [[nodiscard]] Error older_journal(const std::string& name, uint64_t epoch, uint64_t taken) const;
  Task<Result<std::unique_ptr<journal::Journal>>> open_journal(const std::string& name);
  Task<Result<void>> make_journal(uint64_t epoch);
  Task<Result<void>> put_aside(const std::string& name);
  Task<Result<void>> take(const HeadKeeper::Found& found);
  /// Notes on the local disk that the store has this head.
  Task<void> remember_head();
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
  void add_change(Change change) USBD_REQUIRES(mutex_);
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
  /// Lets the journal keep what the objects on their way leave of the memory.
  void share_memory();
  void finish_upload(Batch& batch, const ObjectId& id, Bytes bytes);

  // volume_seal.cc
  Task<Result<std::vector<std::byte>>> seal_batch(const Batch& batch, const ObjectId& id);
  /// Takes along what it can of `changes`, and takes that away from them.
  Task<Result<void>> load_step(std::span<const Change>& changes, SealStep& step);
  Task<void> read_part(journal::Journal::Held& held, uint64_t number, MutableBytes out,
                       std::optional<Error>& failed);
  /// Calls `function`, which takes a while, on a worker; without workers here, and lets others have
  /// their turn after it.
  template <typename F>
  Task<void> aside(F& function) {
    if (parts_.workers != nullptr) {
      co_await parts_.workers->run(function);
    } else {
      function();
      co_await home_.schedule();
    }
  }

  /// How many batches, from the oldest on, can be published together.
  [[nodiscard]] size_t publishable() USBD_REQUIRES(mutex_);
  [[nodiscard]] bool publish_is_due() USBD_REQUIRES(mutex_);
  void start_publishing();
  Task<void> publish();
  Task<void> published(size_t count);
  /// Lets state() know.
  void show_head();
  Task<Result<void>> wait_published(uint64_t number);
  void answer_flushers(uint64_t number, const std::optional<Error>& error);
  void expire_flushers();
  void end(const Error& error);
  void fence(const Error& error);

  // volume_checkpoint.cc
  Task<Result<void>> load_map(LiveMap& live, std::shared_ptr<MapPager> pager);
  Task<Result<void>> load_checkpoint(LiveMap& live, MapPager& pager);
  Task<void> load_directory(uint64_t seq, std::optional<Slot>& slot, std::optional<Error>& failed);
  Task<Result<void>> add_object(LiveMap& live, MapPager& pager, Slot slot);
  /// Read-only: the image as the head says it is now. What was found before may be deleted by now.
  Task<Result<void>> look_again();
  [[nodiscard]] bool checkpoint_is_due() USBD_REQUIRES(mutex_);
  [[nodiscard]] bool checkpoint_is_cheap() USBD_REQUIRES(mutex_);
  void start_checkpoint();
  Task<void> checkpoint();
  void name_root(const ReadyRoot& ready, Head& head) const;
  void root_named();
  /// Whether there may be something to do here later, without anything else happening.
  [[nodiscard]] bool has_upkeep() USBD_REQUIRES(mutex_);

  // volume_map.cc
  std::shared_ptr<MapPager> make_pager(LiveMap& live);
  Task<Result<std::vector<std::byte>>> recover_leaf(uint64_t leaf);
  /// Brings the leaves of `range` back for who reads the map, of any loop: if they are not here
  /// afterwards there is another map, and they are to be asked for again.
  Task<Result<MapHold>> page_in(BlockRange range);
  /// Takes an object in, on the home loop. Returns how many blocks moved. Errors: as LiveMap::add()
  /// and MapPager::hold(); in the second case it is taken in in part.
  Task<Result<uint64_t>> take_in(LiveMap& live, MapPager& pager, const Slot& slot,
                                 std::optional<LiveMap::Moves> moves);
  [[nodiscard]] bool has_many_copies();
  /// LiveMap::is_used(). Lifetime: the directory until the task has finished.
  Task<Result<bool>> is_used(const Directory& directory, uint32_t slot);

  // volume_clean.cc
  [[nodiscard]] bool cleaning_is_due() USBD_REQUIRES(mutex_);
  void start_cleaning();
  Task<void> clean();
  Task<Result<bool>> clean_once();
  [[nodiscard]] uint64_t last_published_seq();
  Task<std::vector<Victim>> choose_victims();
  Task<Result<std::vector<std::byte>>> seal_moved(CleanJob& job);
  Task<Result<void>> store_moved(const CleanJob& job, Bytes bytes);
  Task<Result<void>> apply_moved(const CleanJob& job, Bytes bytes);
  [[nodiscard]] bool cleaning_is_over();

  // volume_clean_read.cc
  Task<Result<void>> collect(CleanJob& job);
  Task<Result<void>> collect_from(CleanJob& job, Victim victim);
  Task<Result<void>> fetch_live(CleanJob& job);
  Task<Result<size_t>> fetch_part(CleanJob& job, std::shared_ptr<const Directory> directory,
                                  std::span<const LiveRun> runs);

  // volume_delete.cc
  [[nodiscard]] LiveMap::Named named_checkpoints();
  void start_deleting();
  Task<void> delete_unneeded();
  Task<bool> delete_some();
  Task<void> delete_object(LiveMap::Emptied emptied, bool& failed);
  void add_garbage(std::string name);
  Task<void> remove_garbage(Garbage garbage, bool& failed);
  [[nodiscard]] bool deleting_is_over();

  // volume_snapshot.cc
  Task<Result<SnapshotRef>> take_snapshot(SnapshotLabel label);
  Task<Result<void>> drop_snapshot(uint64_t number);
  Task<Result<void>> place(SnapshotOrder order);
  Result<void> may_take(const SnapshotLabel& label);
  Task<Result<void>> carry_out();
  [[nodiscard]] bool order_is_due() const;
  [[nodiscard]] std::vector<SnapshotRef> snapshots_at(uint64_t number) USBD_REQUIRES(mutex_);
  void pin(LiveMap& live, SnapshotPins pins, uint64_t released) const;
  void order_stored(uint64_t number, const PiecePointer& root);
  void order_named(uint64_t number);
  Task<Result<std::set<MapObjectId>>> needed_by(SnapshotRef snapshot);
  Task<Result<void>> find_freed(uint64_t number);

  // volume_sweep.cc
  struct Needed;
  Task<void> sweep();
  Task<bool> add_snapshots(Needed& needed);
  Task<void> sweep_kind(const Needed& needed, std::string prefix);
  [[nodiscard]] bool is_needed(const Needed& needed, std::string_view name);
  Task<bool> is_ours(std::string name);

  // volume_read.cc
  /// None: leaves of the map are away, and page_in() comes first.
  std::optional<std::vector<Segment>> resolve(BlockRange range);
  [[nodiscard]] std::optional<Segment> find_quickly(BlockRange range);
  Task<Result<void>> read_once(uint64_t first_block, MutableBytes data);
  std::optional<std::vector<Segment>> resolve_into(BlockRange range, MutableBytes data);
  Task<void> read_local(Segment& segment, std::vector<ReadPiece>& missing,
                        std::optional<Error>& failed);
  Task<Result<std::vector<ReadPiece>>> read_all_local(std::vector<Segment>& segments);
  Task<void> read_objects(std::span<ReadPiece> pieces, ObjectReader::Effort effort);
  Task<Result<void>> read_again(const ReadPiece& piece);
  Task<void> read_ahead(BlockRange ahead);
  void admit(const ReadPiece& piece, uint32_t frame, const FrameMemory& plain);
  /// Errors: kNotFound; as ObjectReader::fetch_directory().
  Task<Result<Slot>> fetch_slot(ObjectId id);
  /// That an object is not there is damage of the volume, and not that there is no volume.
  static Result<void> damage_if_gone(Result<void> result);

  VolumeParts parts_;
  const VolumeOptions options_;
  Loop& home_;
  HeadKeeper keeper_;
  /// Null: read-only.
  std::unique_ptr<SeenHead> seen_;
  bool seen_failed_ = false;
  std::unique_ptr<journal::Journal> journal_;
  Nonce journal_id_{};
  bool created_ = false;
  std::vector<std::pair<journal::Entry, journal::Place>> replayed_;

  /// Set once, while opening; no cache: null.
  std::unique_ptr<ObjectReader> reader_;
  std::unique_ptr<BlockCache> cache_;

  Scope scope_;
  std::stop_source stop_;
  unsigned uploads_ = 0;
  /// Those of them that are not sealed yet.
  unsigned sealing_ = 0;
  /// Of objects on their way: what they are expected to take, and once they are sealed, what they
  /// do.
  uint64_t sealed_bytes_ = 0;
  bool publishing_ = false;
  bool contacting_ = false;
  /// close() makes the last change of the head.
  bool head_is_final_ = false;
  Nanos last_publish_{0};
  uint64_t size_ = 0;
  /// Read-only: somebody is in look_again(), and how often it has been done.
  bool looking_ = false;
  uint64_t looks_ = 0;

  // Checkpoints and cleaning up; the home loop's.
  std::unique_ptr<CheckpointWriter> checkpoints_;
  /// Keeps the map of live_ within its memory.
  std::shared_ptr<MapPager> pager_;
  /// Before there is checkpoints_: the checkpoint that the map is read from.
  std::optional<CheckpointRoot> read_root_;
  /// Log objects that are being taken in: no moment for a checkpoint.
  unsigned taking_in_ = 0;
  bool checkpointing_ = false;
  /// The last one that is tried before the volume closes has been.
  bool checkpointed_at_close_ = false;
  Nanos checkpoint_not_before_{0};
  Nanos checkpoint_pause_ = limits::kCheckpointRetryMin;
  std::optional<ReadyRoot> ready_root_;
  /// Checkpoints that the head names since less than delete_after, and since when.
  std::deque<std::pair<uint64_t, Nanos>> recently_named_;
  LiveMap::Named named_;
  Nanos named_at_{0};
  std::deque<Garbage> garbage_;
  bool deleting_ = false;
  Nanos delete_not_before_{0};
  bool cleaning_ = false;
  Nanos clean_not_before_{0};
  uint64_t next_moved_id_ = 1;
  /// The last one that was taken into the map.
  uint64_t last_moved_id_ = 0;
  std::unique_ptr<SnapshotOrder> order_;
  /// Log objects since victims were last looked for.
  uint64_t objects_since_choice_ = 0;
  /// Objects that could not be read: not tried again.
  std::set<ObjectId> shunned_;

  Mutex mutex_;
  /// What it points at is changed by the home loop only, and only under the lock: so the home loop
  /// reads without it, others with it. The pointer is set while opening; read-only, each time that
  /// the head is looked at again.
  std::unique_ptr<LiveMap> live_;
  Since since_ USBD_GUARDED_BY(mutex_);
  /// What state() says of head and of the work done; the age of the checkpoint is its time here.
  VolumeState counted_ USBD_GUARDED_BY(mutex_);
  /// Those of the root that the head names.
  std::vector<SnapshotRef> snapshots_ USBD_GUARDED_BY(mutex_);
  ReadStreams streams_ USBD_GUARDED_BY(mutex_);
  uint64_t next_number_ USBD_GUARDED_BY(mutex_) = 1;
  /// In order; the last may be open. Those that are published are not here.
  std::deque<std::shared_ptr<Batch>> batches_ USBD_GUARDED_BY(mutex_);
  uint64_t next_seq_ USBD_GUARDED_BY(mutex_) = 1;
  uint64_t published_number_ USBD_GUARDED_BY(mutex_) = 0;
  /// The last log object that the map knows of.
  uint64_t published_seq_ USBD_GUARDED_BY(mutex_) = 0;
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

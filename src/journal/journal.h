// SPDX-License-Identifier: Apache-2.0
//
// Journal: an ordered log of changes on a local file, for devices whose real place for data is far
// or slow. An entry is at home in memory when append() returns, in the ring soon after, and on
// stable storage when a later sync() succeeds; release() gives space back once the owner has the
// data elsewhere. Several entries go to the disk as one record.
//
// What it promises (docs/formats/journal.md says how; tests/sim attacks each):
// - After a crash, replay() gives the entries in order, without a gap, up to some entry at or after
//   the last one that a successful sync() covered.
// - If what a sync() covered cannot be read any more, that is damage and is said, as long as a
// later
//   record or superblock knows of that sync; a record that never was durable ends the log quietly.
// - Space is used again only when a superblock that no longer names it is on stable storage.
// - After one failed write or sync nothing is promised any more: sync() fails for ever. Entries
// that
//   are not in the ring stay readable in memory until they are released, which makes room for more.
// - Nothing here runs out of disk: all of the ring is reserved when it is made.
//
// It knows nothing of object stores, epochs or maps: numbers, kinds and the epoch are the owner's.

#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "async/block_file.h"
#include "async/scope.h"
#include "base/limits.h"
#include "base/mutex.h"
#include "base/random.h"
#include "journal/format.h"
#include "journal/record.h"
#include "journal/sealer.h"

namespace usbd::journal {

/// For tests: a rule that is not kept, so that the tests prove that they would see it.
enum class Rule : uint8_t {
  kSyncsBeforeItSaysSo,
  kFreesBeforeItReuses,
  kFollowsChain,
  kChecksPayload,
  kRemembersFailure,
  kTellsRotFromTornTail,
  kKnowsWhereItsSessionBegan,
};

struct Identity {
  Id volume{};
  Id journal{};
};

struct Options {
  /// Empty: the payload is not encrypted.
  SealerSource sealer;
  /// Most payload of one record. Range: 1 to kPayloadBlocksMax, and four records fit in the ring.
  uint32_t payload_blocks_max = kPayloadBlocksMax;
  /// Payload in memory that is not in the ring yet. Units: bytes.
  uint64_t staged_bytes_max = limits::kJournalStagedBytesMax;
  /// Memory of what is in the ring already; see keep_at_most(). Units: bytes.
  uint64_t kept_bytes_max = 0;
  std::optional<Rule> broken_rule;
};

/// What replay() found.
struct Replayed {
  uint64_t records = 0;
  uint64_t entries = 0;
  /// Whether something stood behind the last good record: a write that the crash interrupted.
  bool torn_tail = false;
  /// Not empty: entries that were durable cannot be read, and why that is known. The entries given
  /// are all before them. begin() then refuses.
  std::string damage;
};

/// Threads: append(), read(), sync(), has_room() and release(): any loop's. All else: the loop that
///          opened it, which also does its background work.
class Journal {
 public:
  /// See hold(). Lifetime: the journal outlives it. Threads: as the journal.
  class Held {
   public:
    Held(Held&& other) noexcept
        : journal_(std::exchange(other.journal_, nullptr)),
          place_(std::move(other.place_)),
          plain_(std::move(other.plain_)) {}
    Held& operator=(Held&& other) noexcept {
      std::swap(journal_, other.journal_);
      std::swap(place_, other.place_);
      std::swap(plain_, other.plain_);
      return *this;
    }
    ~Held();

    /// The payload from the place on; empty: it is only in the ring, and read() gets it.
    /// Range: `size` as of read(). Lifetime: of the Held.
    [[nodiscard]] Bytes in_memory(size_t size) const;

   private:
    friend class Journal;
    Held(Journal& journal, Place place, std::shared_ptr<RecordBuffer> plain)
        : journal_(&journal), place_(std::move(place)), plain_(std::move(plain)) {}

    Journal* journal_;
    Place place_;
    /// Null: it is in the ring.
    std::shared_ptr<RecordBuffer> plain_;
  };
  using Visitor = std::function<void(const Entry& entry, const Place& place)>;

  /// Makes an empty journal in `file`, whose old contents no longer count.
  /// Range:   ring_bytes is a multiple of kBlock, at least kRingBytesMin.
  /// Durable: on success. Errors: kNoSpace, kIo.
  static Task<Result<void>> format(BlockFile& file, Identity identity, uint64_t ring_bytes,
                                   uint64_t epoch);

  /// Opens a journal and reads nothing but its superblocks.
  /// Lifetime: `rng` outlives the journal.
  /// Errors:   kNotFound: no journal in it; kNotSupported: a later version; kInvalid: the file is
  ///           shorter than its ring; kIo. The file is closed then.
  static Task<Result<std::unique_ptr<Journal>>> open(std::unique_ptr<BlockFile> file, Rng& rng,
                                                     Options options);

  ~Journal();

  [[nodiscard]] const Superblock& superblock() const { return superblock_; }

  /// Reads every record from the tail on and gives their entries, in order, to `visitor`.
  /// Range:  once, before begin(). Errors: kIo: the file cannot be read.
  Task<Result<Replayed>> replay(Visitor visitor);

  /// Starts a session: from now on entries can be appended.
  /// Range:   after replay(). `next_number`: of the next entry.
  /// Durable: epoch and session, and all that replay() gave, on success.
  /// Errors:  kIo; also if replay() found damage.
  Task<Result<void>> begin(uint64_t epoch, uint64_t next_number);

  /// Whether an entry with so much payload may be appended now. Otherwise on_change() tells when to
  /// ask again.
  [[nodiscard]] bool has_room(uint32_t payload_blocks);

  /// Takes an entry and copies its payload; never waits.
  /// Range:   has_room() said so under the same lock of the owner's that orders appends; numbers
  ///          rise by one; payload is entry.blocks blocks or, without has_payload, empty; at most
  ///          payload_blocks_max blocks.
  /// Durable: after a later sync() has succeeded.
  Place append(const Entry& entry, Bytes payload);

  /// Keeps what is at `place` readable until the Held is gone, also when it is released meanwhile.
  /// Range: the entry there has not been released.
  [[nodiscard]] Held hold(const Place& place);

  /// Reads `out.size()` bytes of payload from where `held` begins.
  /// Range:  a multiple of kBlock, within the entry that was appended or replayed there.
  /// Errors: kIo: what is in the ring is not what was written, or cannot be read.
  Task<Result<void>> read(const Held& held, MutableBytes out);

  /// Makes durable every entry that was appended before this call. Range: before close().
  /// Errors: kIo, and for ever, once a write or a sync has failed.
  Task<Result<void>> sync();

  /// Says that entries up to `number` are safe elsewhere.
  void release(uint64_t number);

  /// Sets how much memory may hold payload that is in the ring and not released, so that read()
  /// need not fetch it. What comes when that is full is not kept; if less is allowed than there is,
  /// the youngest goes. Besides there is what waits to be written, and what is held.
  /// Units: bytes, of whole buffers.
  void keep_at_most(uint64_t bytes);

  /// Says that entries of these numbers will hardly be read again: they need not be kept.
  void unkeep(uint64_t first, uint64_t last);

  /// Units: bytes, as of keep_at_most().
  [[nodiscard]] uint64_t bytes_kept();

  /// Called on the journal's loop when room has grown, and when the journal has failed.
  void on_change(std::function<void()> function) { changed_ = std::move(function); }

  [[nodiscard]] std::optional<Error> failure();
  /// Of the ring, that hold entries which are not released, or are waiting to be freed.
  [[nodiscard]] uint64_t bytes_used();

  /// Syncs, notes how far the owner has released, and gives the file up. No other call is
  /// outstanding.
  /// Errors: as sync().
  Task<Result<void>> close();

 private:
  struct SyncWaiter;
  struct SyncTurn;
  class Window;
  /// Buffers to be given back without the lock: it costs time.
  using Dropped = std::vector<std::shared_ptr<RecordBuffer>>;
  /// A superblock, and how far its tail is counted from the first lap.
  struct Freeing {
    Superblock superblock;
    uint64_t tail = 0;
  };
  struct PumpWork final : Work {
    explicit PumpWork(Journal& owner);
    Journal& journal;
  };

  Journal(std::unique_ptr<BlockFile> file, Rng& rng, Options options, Superblock superblock);

  // journal_replay.cc
  Task<Result<void>> replay_records(const Visitor& visitor, Replayed& found);
  Task<Result<bool>> replay_one(Window& window, const Visitor& visitor, Replayed& found);
  Task<Result<void>> look_for_later_records(Replayed& found);
  [[nodiscard]] bool follows(const Header& header) const;
  [[nodiscard]] bool fits_sessions(const Header& header) const;
  [[nodiscard]] bool header_is_authentic(const Header& header, Bytes bytes, const Sealer& sealer);
  std::shared_ptr<const Sealer> sealer_of(const Salt& salt);
  void take_replayed(const Header& header, const Visitor& visitor, Replayed& found);

  // journal_write.cc
  void wake() USBD_REQUIRES(mutex_);
  void pump();
  void send_records();
  [[nodiscard]] std::shared_ptr<Record> next_to_send();
  [[nodiscard]] bool send_open() const USBD_REQUIRES(mutex_);
  [[nodiscard]] bool is_idle();
  [[nodiscard]] bool pump_is_posted();
  void place_in_ring(const std::shared_ptr<Record>& record);
  void send_without_entries(RecordKind kind);
  void send(const std::shared_ptr<Record>& record, RecordKind kind);
  /// The record as it goes to the disk, in `memory`; that may be the record's own.
  MutableBytes encode_record(Record& record, RecordKind kind, const RecordBuffer& memory);
  Task<void> write_record(std::shared_ptr<Record> record, std::shared_ptr<RecordBuffer> memory,
                          Bytes bytes);
  void record_written(Record& record);
  void keep_or_forget(Record& record, Dropped& dropped) USBD_REQUIRES(mutex_);
  void start_syncs();
  Task<void> run_syncs();
  Task<Result<void>> sync_once(std::optional<Freeing> freeing);
  bool sync_is_due();
  void free_released(Dropped& dropped) USBD_REQUIRES(mutex_);
  void forget_plain(Record& record, Dropped& dropped) USBD_REQUIRES(mutex_);
  void forget_staged(Record& record, Dropped& dropped) USBD_REQUIRES(mutex_);
  void trim_if_idle();
  /// What the superblock should say by now; empty: it need not be written.
  std::optional<Freeing> due_freeing();
  Task<Result<void>> write_superblock_block(Superblock next);
  Task<Result<void>> write_superblock(Superblock next);
  void consider_mark();
  Task<void> mark_when_idle();
  void fail(const Error& error);
  static void answer(SyncWaiter* waiters, const std::optional<Error>& error);
  SyncWaiter* take_waiters(uint64_t ordinal) USBD_REQUIRES(mutex_);
  void begin_record(uint32_t payload_blocks) USBD_REQUIRES(mutex_);
  /// Makes the open record's buffer larger if need be.
  void make_room_for(uint32_t blocks) USBD_REQUIRES(mutex_);
  Result<void> open_block(const Record& record, uint32_t block, MutableBytes bytes) const;
  [[nodiscard]] bool keeps(Rule rule) const { return options_.broken_rule != rule; }
  /// Of the ring, by what is in it. After a failure nothing goes there any more: only what waits in
  /// memory counts, of which the owner can get rid.
  [[nodiscard]] uint64_t ring_bytes_held() const USBD_REQUIRES(mutex_) {
    return failed_ ? 0 : head_ - tail_;
  }
  [[nodiscard]] uint64_t record_bytes_max() const {
    return (kHeaderBlocksMax + options_.payload_blocks_max) * kBlock;
  }

  const std::unique_ptr<BlockFile> file_;
  Rng& rng_;
  const Options options_;
  Loop& home_;
  Scope scope_;
  PumpWork pump_work_{*this};
  RecordMemory memory_{limits::kJournalFreeBuffersMax};
  std::function<void()> changed_ = [] {};

  // The loop's own:
  Superblock superblock_;
  /// Of this session.
  Salt salt_{};
  std::shared_ptr<const Sealer> sealer_;
  /// Of the record before the next.
  uint32_t previous_crc_ = 0;
  uint64_t next_jseq_ = 1;
  bool last_is_mark_ = false;
  /// Session of the last record that was replayed.
  uint64_t last_session_ = 0;
  Salt replay_salt_{};
  bool replayed_ = false;
  bool damaged_ = false;
  bool begun_ = false;
  bool syncing_ = false;
  unsigned in_flight_ = 0;
  uint64_t durable_jseq_ = 0;
  uint64_t sent_ordinal_ = 0;
  uint64_t sent_number_ = 0;
  /// Ends the wait for the next mark.
  std::stop_source closing_soon_;
  bool mark_waits_ = false;

  Mutex mutex_;
  bool pump_posted_ USBD_GUARDED_BY(mutex_) = false;
  bool closing_ USBD_GUARDED_BY(mutex_) = false;
  std::optional<Error> failed_ USBD_GUARDED_BY(mutex_);
  uint64_t next_number_ USBD_GUARDED_BY(mutex_) = 0;
  /// Where the next record goes, and what a durable superblock says of the tail, counted from the
  /// first lap: the place in the ring is the rest of a division.
  uint64_t head_ USBD_GUARDED_BY(mutex_) = 0;
  uint64_t tail_ USBD_GUARDED_BY(mutex_) = 0;
  /// What a superblock may say.
  uint64_t freed_ USBD_GUARDED_BY(mutex_) = 0;
  uint64_t freed_jseq_ USBD_GUARDED_BY(mutex_) = 1;
  uint64_t released_number_ USBD_GUARDED_BY(mutex_) = 0;
  bool room_wanted_ USBD_GUARDED_BY(mutex_) = false;
  /// After a failure: what waited in memory was released.
  bool room_grown_ USBD_GUARDED_BY(mutex_) = false;
  /// Takes entries; null: none yet.
  std::shared_ptr<Record> open_ USBD_GUARDED_BY(mutex_);
  /// Full ones, in order, not in the ring yet.
  std::deque<std::shared_ptr<Record>> staged_ USBD_GUARDED_BY(mutex_);
  /// Those that have a place in the ring, in order; and those of them after the last one up to
  /// which all have been written.
  std::deque<std::shared_ptr<Record>> live_ USBD_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Record>> unwritten_ USBD_GUARDED_BY(mutex_);
  uint64_t staged_bytes_ USBD_GUARDED_BY(mutex_) = 0;
  /// Of buffers that are kept, and the most that they may be.
  uint64_t kept_bytes_ USBD_GUARDED_BY(mutex_) = 0;
  uint64_t kept_bytes_max_ USBD_GUARDED_BY(mutex_) = 0;
  /// Nothing up to this number is worth keeping.
  uint64_t unkept_number_ USBD_GUARDED_BY(mutex_) = 0;
  /// What the last record took: the next will probably take as much.
  uint32_t payload_expected_ USBD_GUARDED_BY(mutex_) = 1;
  /// The most that the records not yet in the ring will take there.
  uint64_t staged_ring_bytes_ USBD_GUARDED_BY(mutex_) = 0;
  uint64_t last_ordinal_ USBD_GUARDED_BY(mutex_) = 0;
  uint64_t written_ordinal_ USBD_GUARDED_BY(mutex_) = 0;
  uint64_t written_jseq_ USBD_GUARDED_BY(mutex_) = 0;
  uint64_t durable_ordinal_ USBD_GUARDED_BY(mutex_) = 0;
  SyncWaiter* waiters_ USBD_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace usbd::journal

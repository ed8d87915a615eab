// SPDX-License-Identifier: Apache-2.0
//
// ObjectReader: everything that reads data objects for a volume's clients. It knows where frames
// are (directories, kept while there is room), fetches them by ranged GETs, several neighbours with
// one, and gives the same fetch to all who want the same frame. Nothing is given out that was not
// proven by its seal. How much is under way, and how much is kept, is bounded by limits.h.
//
// A frame that was fetched is kept for a while, decoded: clients read it in pieces, and what was
// fetched ahead of them is taken from there.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "async/scope.h"
#include "async/worker_pool.h"
#include "devices/objstore/block_map.h"
#include "devices/objstore/data_object_reader.h"
#include "devices/objstore/fetch_budget.h"
#include "objects/object_store.h"

namespace usbd::objstore {

/// Blocks that follow each other, in the volume and in one object.
struct ReadPiece {
  BlockRange blocks;
  /// Where they are; `slot` is only handed on.
  Location location;
  ObjectId id;
  /// Of blocks.count blocks; empty: they are only fetched.
  MutableBytes out = {};
  /// What came of it; empty: `out` holds what was proven.
  std::optional<Error> error = {};
  /// With an error: the object is gone, or holds something else than the map believes. The map may
  /// have been changed since; if not, one more look at the store itself is worth it.
  bool doubtful = false;
};

/// What was fetched. Units: bytes, calls, frames.
struct FetchStats {
  uint64_t gets = 0;
  uint64_t bytes = 0;
  uint64_t frames = 0;
  /// Frames that were wanted while they were on their way for somebody else, or kept.
  uint64_t shared = 0;
  /// Frames fetched before they were wanted.
  uint64_t ahead = 0;
};

/// Threads: the loop's that made it, but for stats().
class ObjectReader {
 public:
  /// Lifetime: all outlive the reader.
  struct Parts {
    objects::ObjectStore& store;
    /// The volume's prefix in its container.
    std::string volume;
    VolumeSeal seal;
    /// Where frames are opened; null: where they are fetched.
    WorkerPool* workers = nullptr;
    /// Ends what is under way.
    std::stop_token stop = {};
  };
  /// Told of each frame of a piece that was proven: `frame` is its number, `plain` all its blocks.
  using FrameHook =
      std::function<void(const ReadPiece& piece, uint32_t frame, const FrameMemory& plain)>;
  enum class Effort : uint8_t {
    kNormal,
    kAnew,  ///< Nothing that is kept or under way is believed: directory and frames are fetched.
  };
  struct FetchedDirectory {
    std::shared_ptr<const Directory> directory;
    uint64_t object_bytes = 0;
  };

  explicit ObjectReader(Parts parts);
  ~ObjectReader();

  void on_frame(FrameHook hook) { hook_ = std::move(hook); }

  /// From now on a read waits while the store is away, `longest` at most (zero: for ever), instead
  /// of failing. Away is a store of which the volume's head cannot be read either.
  void wait_for_store(Nanos longest) { patience_ = longest; }

  /// Reads all pieces, side by side; each says what came of it.
  /// Lifetime: `pieces` until the task has finished.
  /// Errors:   kNotFound (no such object) and kDamaged, kAccess (not what was sealed), both
  ///           doubtful; those of ObjectStore::get().
  Task<void> read(std::span<ReadPiece> pieces, Effort effort);

  /// Begins to fetch the frames of `pieces`, as far as what is fetched ahead has room; no error is
  /// told to anybody.
  void read_ahead(std::vector<ReadPiece> pieces);

  /// Fetches and proves the whole directory of an object. Errors: as read().
  Task<Result<FetchedDirectory>> fetch_directory(ObjectId id);
  /// Keeps for later reads what this directory says of frames.
  void remember(const Directory& directory);

  /// Waits for what is under way; only then may the reader go. No read comes later.
  Task<void> close();

  /// Threads: any.
  [[nodiscard]] FetchStats stats() const;
  /// Units: bytes.
  [[nodiscard]] uint64_t directory_bytes() const { return directory_bytes_; }
  [[nodiscard]] uint64_t kept_bytes() const { return kept_bytes_; }

 private:
  /// What of a directory reads need.
  struct Known {
    ObjectId id;
    std::vector<FrameInfo> frames;
    std::shared_ptr<const FrameOpener> opener;
    std::list<ObjectId>::iterator use = {};

    [[nodiscard]] uint64_t bytes() const;
  };
  using KnownRef = std::shared_ptr<Known>;
  struct FrameKey {
    ObjectId id;
    uint32_t frame = 0;
    friend auto operator<=>(const FrameKey&, const FrameKey&) = default;
  };
  class Latch;
  struct Taker;
  struct Frame;
  using FrameRef = std::shared_ptr<Frame>;
  struct DirectoryCall;

  Task<void> read_all(std::span<ReadPiece> pieces, Effort effort, bool ahead);
  Task<void> read_one_object(std::span<ReadPiece* const> pieces, Effort effort, bool ahead);
  Task<void> read_ahead_task(std::vector<ReadPiece> pieces);
  Task<Result<objects::Fetched>> get(std::string name, objects::Part part);
  Task<bool> is_away();
  Task<Result<KnownRef>> directory(ObjectId id, Effort effort);
  Task<void> fetch_known(std::shared_ptr<DirectoryCall> call);
  void keep(KnownRef known);
  void forget(const ObjectId& id);

  static Result<void> check(const Known& known, const ReadPiece& piece);
  [[nodiscard]] bool has_room_ahead(const FrameInfo& info) const;
  void take(Taker& taker, const Known& known, std::vector<FrameRef>& missing);
  void forget_frames(const std::vector<Taker>& takers);
  void start_fetches(const KnownRef& known, std::span<const FrameRef> missing, bool ahead);
  Task<void> fetch(KnownRef known, std::vector<FrameRef> frames, bool ahead);
  Task<Result<void>> fetch_bytes(const Known& known, std::span<const FrameRef> frames);
  void open_frames(const Known& known, std::span<const FrameRef> frames, uint64_t start,
                   Bytes stored) const;
  void finish(Frame& frame, const std::optional<Error>& error, bool doubtful);
  void deliver(const Taker& taker, const FrameMemory& plain);
  void keep(Frame& frame);
  void drop(const FrameKey& key);

  const Parts parts_;
  FrameHook hook_;
  std::optional<Nanos> patience_;
  FetchBudget budget_;
  uint64_t ahead_bytes_ = 0;

  std::map<ObjectId, KnownRef> known_;
  /// The least recently used first.
  std::list<ObjectId> known_uses_;
  uint64_t directory_bytes_ = 0;
  std::map<ObjectId, std::shared_ptr<DirectoryCall>> calls_;

  /// On their way, or kept.
  std::map<FrameKey, FrameRef> frames_;
  /// Of those that are kept; the least recently used first.
  std::list<FrameKey> kept_uses_;
  uint64_t kept_bytes_ = 0;

  std::atomic<uint64_t> gets_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> fetched_{0};
  std::atomic<uint64_t> shared_{0};
  std::atomic<uint64_t> ahead_{0};
  bool closed_ = false;
  Scope scope_;
};

}  // namespace usbd::objstore

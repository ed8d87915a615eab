// SPDX-License-Identifier: Apache-2.0
//
// CheckpointWriter stores the map and the object table of a volume as they are at one moment, and
// of that only what has changed since the last checkpoint; CheckpointReader brings them back. Two
// levels: pages, packed into immutable objects, and a root that says where they are
// (docs/formats/checkpoint.md).
//
// A checkpoint that failed has changed nothing: the last one is whole, and what was to be written
// counts as changed still. Nothing that an earlier root needs is overwritten or removed here; what
// the new one no longer needs is handed to the caller, who waits until head names the new one.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "codec/codec.h"
#include "devices/objstore/block_map.h"
#include "devices/objstore/checkpoint_root.h"
#include "devices/objstore/map_pager.h"
#include "devices/objstore/object_table.h"
#include "devices/objstore/sealed_pieces.h"
#include "objects/object_store.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::objstore {

/// Where a volume's checkpoints are. Lifetime: the store and the seal's key outlive who uses this.
struct CheckpointPlace {
  CheckpointPlace(objects::ObjectStore& object_store, std::string volume_name,
                  const VolumeSeal& volume_seal)
      : store(&object_store), volume(std::move(volume_name)), seal(volume_seal) {}

  objects::ObjectStore* store;
  /// The prefix of its names.
  std::string volume;
  VolumeSeal seal;
};

/// What a checkpoint says besides map and table.
struct CheckpointMoment {
  CheckpointMoment(uint64_t seq, uint64_t write, std::vector<std::byte> head_copy)
      : last_seq(seq), last_write(write), head(std::move(head_copy)) {}

  /// The last log object, and the last write in it, that map and table know of.
  uint64_t last_seq;
  uint64_t last_write;
  /// Range: at most limits::kHeadCopyMax bytes.
  std::vector<std::byte> head;
  /// None: those of the last checkpoint. Range: in order, all earlier checkpoints.
  std::optional<std::vector<SnapshotRef>> snapshots = std::nullopt;
};

/// A checkpoint that is stored.
struct Checkpoint {
  PiecePointer root = {};
  /// Names of objects that neither this checkpoint nor a later one nor a snapshot needs. An earlier
  /// one may: they may be removed once head names this root or a later one.
  std::vector<std::string> garbage = {};
  /// What was written.
  uint32_t pages = 0;
  uint32_t objects = 0;
  uint64_t bytes = 0;
};

/// Threads: one loop's; one write() at a time.
class CheckpointWriter {
 public:
  struct Options {
    /// The epoch that the caller owns. Nobody wrote map objects in it before.
    uint64_t epoch = 0;
    codec::Codec codec = {};
    /// What a new object's pages may add up to. Units: bytes.
    uint32_t object_bytes = limits::kMapObjectBytes;
    /// Tests: what snapshots need is not garbage.
    bool holds_for_snapshots = true;
    /// Runs what changes the map; for who reads it from other threads. It must run it at once.
    std::function<void(const std::function<void()>&)> exclusively =
        [](const std::function<void()>& change) { change(); };
    /// Brings leaves of the map back; null: none is ever away. Lifetime: outlives the writer.
    MapPager* pager = nullptr;
  };
  /// The checkpoint that map and table were read from.
  struct Previous {
    CheckpointRoot root = {};
    PiecePointer pointer = {};
  };

  /// `previous`: none for a volume without a checkpoint.
  /// Range:    the previous root is of an earlier epoch, asserted.
  /// Lifetime: `rng`, the system's entropy outside of tests, outlives this.
  CheckpointWriter(CheckpointPlace place, const Options& options, Rng& rng,
                   std::optional<Previous> previous);

  /// Stores map and table as they are when the task starts; they may change while it is under way.
  /// What is written counts as unchanged afterwards, unless it changed since.
  /// Range:    `moment` is that of the start; always the same map and table; nobody else watches
  /// the map; one at a time, asserted. Lifetime: map and table until the task has finished.
  /// Durable:  the checkpoint, once this returns it. It is the volume's only once head names it.
  /// Cancel:   by `stop`; the checkpoint has failed then.
  /// Errors:   those of ObjectStore::put and MapPager::hold; kOverflow (a root larger than can be);
  ///           kInvalid, kNotSupported: as crypto::make_sealer().
  Task<Result<Checkpoint>> write(BlockMap& map, ObjectTable& table, CheckpointMoment moment,
                                 std::stop_token stop);

  /// What the last checkpoint says; its number is 0 before the first.
  [[nodiscard]] const CheckpointRoot& root() const { return root_; }
  /// Units: bytes of memory that leaves take which changed before they were written.
  [[nodiscard]] uint64_t copied_bytes() const { return *copied_bytes_; }

 private:
  class Attempt;
  class Frozen;
  Task<Result<Checkpoint>> finish(Attempt& attempt);
  [[nodiscard]] bool held(const MapObjectId& id) const;

  const CheckpointPlace place_;
  const Options options_;
  Rng& rng_;
  CheckpointRoot root_;
  /// None: no checkpoint yet.
  std::optional<PiecePointer> pointer_;
  uint64_t next_id_ = 1;
  /// Objects of attempts that failed; some may exist.
  std::vector<MapObjectId> abandoned_;
  bool writing_ = false;
  std::shared_ptr<uint64_t> copied_bytes_ = std::make_shared<uint64_t>(0);
};

/// Threads: one loop's.
class CheckpointReader {
 public:
  CheckpointReader(CheckpointPlace place, std::stop_token stop)
      : place_(std::move(place)), stop_(std::move(stop)) {}

  /// Errors: kNotFound (there is no such object), kDamaged, kAccess (another key or cipher, or
  ///         changed on purpose), kInvalid, kNotSupported (of a later version), and those of
  ///         ObjectStore::get; the context names the object.
  Task<Result<CheckpointRoot>> read_root(PiecePointer pointer);

  /// Fills `map` and `table`, which hold nothing, and checks that they agree with each other. After
  /// an error they hold anything.
  /// With a `pager` the map is within its budget all the time, but for one leaf per GET.
  /// Lifetime: all of them until the task has finished.
  /// Errors:   as of read_root().
  Task<Result<void>> read_pages(const CheckpointRoot& root, BlockMap& map, ObjectTable& table,
                                MapPager* pager = nullptr);
  /// One leaf of the map, encoded. Lifetime: the root until the task first waits.
  /// Errors: as of read_root(); kNotFound also: nothing is mapped in its page.
  Task<Result<std::vector<std::byte>>> read_leaf(const CheckpointRoot& root, uint64_t leaf);

 private:
  struct Run;
  struct Loading;
  Task<void> load(Loading& loading);
  Task<Result<void>> load_run(Loading& loading, const Run& run);
  static Task<Result<void>> load_map_page(Loading& loading, uint32_t page, Bytes plain);
  Task<Result<std::vector<std::byte>>> fetch(MapObjectId object, ByteRange range);
  [[nodiscard]] Error at(const MapObjectId& object, const Error& error) const;
  static std::vector<Run> plan(const CheckpointRoot& root);
  CheckpointPlace place_;
  std::stop_token stop_;
};

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// LiveMap: the block map and the object table of a volume, changed together, so that each object's
// count of live blocks is always what the map says. It also keeps the line of objects that hold
// nothing any more, and says which of them may be deleted.
//
// An object is deleted only when nobody can need it, whatever ends when:
// - nothing in the map is in it, and nothing ever will be again: blocks are mapped to an object
//   only once, when the object is taken in;
// - the checkpoint that says so first is named by the head, and so is a later one: whoever opens
//   the volume from now on reads a map that knows nothing of the object;
// - the first of the two was named long ago: others who only read had time to notice;
// - every read that looked at the map while it was mapped has ended;
// - no snapshot has a map that points at it. When the last that did so is deleted, the rest is
//   counted from the checkpoint that does without that snapshot.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "devices/objstore/block_map.h"
#include "devices/objstore/data_object_reader.h"
#include "devices/objstore/object_table.h"
#include "devices/objstore/snapshot_pins.h"

namespace usbd::objstore {

/// Threads: one at a time.
class LiveMap {
 public:
  /// An object to be deleted.
  struct Emptied {
    uint32_t slot = 0;
    ObjectId id = {};
    /// The checkpoint that lists it as such for the first time.
    uint64_t since = 0;
    /// Reads of this generation, or one before, may still want it.
    uint64_t readers = 0;
  };
  /// Which checkpoints the head has named.
  struct Named {
    /// The last one that it named long enough ago, and the last.
    uint64_t settled = 0;
    uint64_t last = 0;
  };
  /// kEverywhere is wrong, and only for tests of the tests.
  enum class Moves : uint8_t { kWhereSourceStill, kEverywhere };

  explicit LiveMap(uint64_t blocks) : map_(blocks) {}

  [[nodiscard]] BlockMap& map() { return map_; }
  [[nodiscard]] const BlockMap& map() const { return map_; }
  [[nodiscard]] ObjectTable& table() { return table_; }
  [[nodiscard]] const ObjectTable& table() const { return table_; }

  /// What snapshots need, from now on. `released`: the first checkpoint that does without those
  /// snapshots that are not among them any more.
  void set_pins(SnapshotPins pins, uint64_t released);
  [[nodiscard]] bool is_pinned(const ObjectFacts& facts) const {
    return pins_.needs(facts.id, facts.pending_since);
  }
  /// Objects that hold nothing but are pinned.
  [[nodiscard]] size_t held() const { return held_.size(); }

  /// To be called once map and table were read from checkpoint number `named`; set_pins() before.
  void loaded(uint64_t named);
  /// A checkpoint of this number takes its moment: what is emptied from now on the next one lists.
  void moment_of(uint64_t number) { next_checkpoint_ = number + 1; }

  /// Takes a log object in: its extents in their order. `object_bytes`: its size in the store.
  /// Errors: kDamaged (it holds blocks that the volume has not, or cannot be), kExists, kNoSpace;
  ///         then nothing was changed.
  Result<void> add(const Directory& directory, uint64_t object_bytes);
  /// Takes an object of garbage collection in: its extents only where the map still points at what
  /// they were copied from. What was written since stays. Returns how many blocks moved.
  /// Errors: as add().
  Result<uint64_t> add_moved(const Directory& directory, uint64_t object_bytes,
                             Moves moves = Moves::kWhereSourceStill);

  /// An object that is taken in leaf by leaf: for a map whose leaves may be away. What the map
  /// shows meanwhile is part old and part new; table and map agree after each step.
  struct Intake {
    const Directory* directory = nullptr;
    uint32_t slot = 0;
    std::optional<Moves> moves = {};
    /// The extent that is next, and how many of its blocks are done.
    size_t extent = 0;
    uint64_t done = 0;
    uint64_t moved = 0;
  };
  /// Begins what add(), or with `moves` add_moved(), does at once. Lifetime: the directory until
  /// finish(). Errors: as add().
  Result<Intake> begin(const Directory& directory, uint64_t object_bytes,
                       std::optional<Moves> moves = {});
  /// The blocks that the next step is about, which are in one leaf; none: all is done.
  [[nodiscard]] std::optional<BlockRange> next(const Intake& intake) const;
  /// Takes the extents in next()'s leaf in, up to the first in another. Range: that leaf is here.
  void step(Intake& intake);
  /// Ends it, also before all is done. Returns how many blocks moved.
  uint64_t finish(const Intake& intake);
  /// Whether the object is being taken in: that little of it is live says nothing yet.
  [[nodiscard]] bool is_incoming(uint32_t slot) const;

  /// Whether any block is in the object, by its own directory: the counts may be wrong, the map is
  /// not.
  [[nodiscard]] bool is_used(const Directory& directory, uint32_t slot) const;
  /// The same of one extent of it. Range: its leaves are here, or it is beyond the volume.
  [[nodiscard]] bool is_used(const Extent& extent, uint32_t slot) const;

  /// Somebody looks at the map, and fetches what he finds there until end_read() of what this
  /// returns.
  [[nodiscard]] uint64_t begin_read();
  void end_read(uint64_t generation);

  /// Takes objects that may be deleted out of the line, at most `most`.
  [[nodiscard]] std::vector<Emptied> take_deletable(const Named& named, size_t most,
                                                    bool heeds_readers = true);
  /// Puts one back: it could not be deleted now.
  void give_back(const Emptied& emptied) { emptied_.push_front(emptied); }
  /// It is deleted. The slot is not given again before the table's reuse_removed().
  void deleted(const Emptied& emptied) { table_.remove(emptied.slot); }
  [[nodiscard]] size_t emptied() const { return emptied_.size(); }
  /// Whether an object waits for a checkpoint later than `named`.
  [[nodiscard]] bool waits_for_checkpoint(uint64_t named) const {
    return !emptied_.empty() && emptied_.back().since >= named;
  }

 private:
  [[nodiscard]] Result<ObjectFacts> facts_of(const Directory& directory,
                                             uint64_t object_bytes) const;
  void take(Intake& intake, const Extent& extent, BlockRange piece);
  void drop(uint32_t slot, uint32_t blocks);
  /// Lists the objects that hold nothing since the last call.
  void settle_touched();
  void list(uint32_t slot);
  /// Puts it into the line, or aside while a snapshot pins it.
  void line_up(const Emptied& emptied);

  BlockMap map_;
  ObjectTable table_;
  uint64_t next_checkpoint_ = 1;
  /// Slots of objects that are being taken in.
  std::vector<uint32_t> incoming_;
  /// Slots whose last live block went.
  std::vector<uint32_t> touched_;
  /// Nearly in the order of `since`.
  std::deque<Emptied> emptied_;
  std::vector<Emptied> held_;
  SnapshotPins pins_;
  uint64_t generation_ = 1;
  /// Reads under way, by generation.
  std::map<uint64_t, uint64_t> readers_;
};

}  // namespace usbd::objstore

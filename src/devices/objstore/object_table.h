// SPDX-License-Identifier: Apache-2.0
//
// ObjectTable: the data objects of a volume, by the short numbers (slots) that the map knows them
// by, with what garbage collection must know of each. Checkpoints keep it in pages of 1024 slots
// (docs/formats/checkpoint.md).
//
// A slot that was taken back is not given again before the caller says so: a checkpoint or a read
// under way may still mean the old object by it.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/limits.h"
#include "devices/objstore/names.h"
#include "devices/objstore/snapshot_pins.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::objstore {

inline constexpr uint32_t kTablePageSlots = 1024;

/// Stored in formats: numbers are never given anew.
enum class ObjectState : uint8_t {
  kFree = 0,     ///< The slot means no object.
  kInUse = 1,    ///< It may hold live blocks.
  kPending = 2,  ///< It holds none and is to be deleted.
};

struct ObjectFacts {
  ObjectId id = {};
  ObjectState state = ObjectState::kInUse;
  /// Of the object in the store, and of the frames in it. Units: bytes.
  uint64_t object_bytes = 0;
  uint64_t stored_bytes = 0;
  /// Blocks in it, and those that the map points at.
  uint32_t blocks = 0;
  uint32_t live = 0;
  /// Of a log object: the numbers of its first and last write; else 0.
  uint64_t first_write = 0;
  uint64_t last_write = 0;
  /// If pending: the number of the checkpoint that lists it as such for the first time; else 0.
  uint64_t pending_since = 0;

  /// Its frames' bytes by their share of live blocks.
  [[nodiscard]] uint64_t live_bytes() const {
    return blocks == 0 ? 0 : stored_bytes * live / blocks;
  }
  friend bool operator==(const ObjectFacts&, const ObjectFacts&) = default;
};

/// Sums over all objects of one state. Units: bytes, but for `objects`.
struct ObjectTotals {
  uint64_t objects = 0;
  uint64_t object_bytes = 0;
  uint64_t stored_bytes = 0;
  uint64_t live_bytes = 0;

  friend bool operator==(const ObjectTotals&, const ObjectTotals&) = default;
};

/// Threads: one at a time.
class ObjectTable {
 public:
  /// Range: `slots_max` is a multiple of kTablePageSlots, at most limits::kDataObjectsMax.
  explicit ObjectTable(uint32_t slots_max = limits::kDataObjectsMax);
  ~ObjectTable();
  ObjectTable(ObjectTable&&) noexcept;

  /// Gives the object the lowest slot that is free.
  /// Range:  facts that check() accepts, of state kInUse; asserted.
  /// Errors: kExists (the object has a slot), kNoSpace (no slot is left).
  Result<uint32_t> add(const ObjectFacts& facts);
  /// More or fewer of the object's blocks are live. Range: from 0 to all of them, in use; asserted.
  void add_live(uint32_t slot, uint32_t blocks);
  void drop_live(uint32_t slot, uint32_t blocks);
  /// The object is to be deleted. Range: in use, nothing of it is live, `since` > 0; asserted.
  void set_pending(uint32_t slot, uint64_t since);
  /// Takes the slot back. Range: nothing of the object is live, asserted.
  void remove(uint32_t slot);
  /// Slots that were taken back in generation `until` or before may be given again.
  void reuse_removed(uint32_t until = UINT32_MAX);

  /// nullptr: the slot means no object. Lifetime: until the next change of the table.
  [[nodiscard]] const ObjectFacts* facts(uint32_t slot) const;
  /// 0: there is no such object.
  [[nodiscard]] uint32_t find(const ObjectId& id) const;
  /// All slots that mean an object are below it.
  [[nodiscard]] uint32_t slots_end() const;
  void for_each(const std::function<void(uint32_t slot, const ObjectFacts&)>& visit) const;
  /// Range: kInUse or kPending, asserted.
  [[nodiscard]] const ObjectTotals& totals(ObjectState state) const;
  /// From now on those in use that `newest` covers are pinned by a snapshot.
  void set_pins(const PinLine& newest);
  /// Of those in use that no snapshot pins.
  [[nodiscard]] ObjectTotals unpinned() const;

  [[nodiscard]] uint32_t pages() const { return static_cast<uint32_t>(pages_.size()); }
  /// Whether page `index` has changed since clear_changed(index).
  [[nodiscard]] bool changed(uint32_t index) const;
  /// Ends a generation of changes and returns its number; later changes are of a later one.
  uint32_t end_generation() { return generation_++; }
  /// Forgets that page `index` changed, unless it did so after generation `until`.
  void clear_changed(uint32_t index, uint32_t until = UINT32_MAX);
  /// The page as checkpoints keep it; empty: none of its slots means an object.
  [[nodiscard]] std::vector<std::byte> encode_page(uint32_t index) const;
  /// The reverse, for a page that holds nothing; it counts as not changed.
  /// Range:  before the first add() and remove(), asserted.
  /// Errors: kInvalid: not what encode_page() makes, or an object has a slot elsewhere; the table
  ///         is as before.
  Result<void> decode_page(uint32_t index, Bytes encoded);

  /// What no object can be; empty: it can.
  [[nodiscard]] static std::string check(const ObjectFacts& facts);

 private:
  struct Page;
  struct HashOf {
    size_t operator()(const ObjectId& id) const;
  };
  struct Removed {
    uint32_t slot;
    uint32_t generation;
  };

  [[nodiscard]] ObjectFacts& at(uint32_t slot);
  uint32_t take_free_slot();
  void list_free();
  void count(const ObjectFacts& facts);
  void uncount(const ObjectFacts& facts);
  void touch(uint32_t slot);
  [[nodiscard]] bool is_pinned(const ObjectFacts& facts) const;

  const uint32_t slots_max_;
  /// nullptr: none of its slots means an object.
  std::vector<std::unique_ptr<Page>> pages_;
  std::unordered_map<ObjectId, uint32_t, HashOf> slots_;
  /// Of the pages below `listed_`: slots that mean no object and may be given.
  std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<>> free_;
  uint32_t listed_ = 0;
  std::vector<Removed> removed_;
  std::array<ObjectTotals, 3> totals_{};
  PinLine newest_pin_;
  ObjectTotals pinned_;
  uint32_t generation_ = 1;
};

}  // namespace usbd::objstore

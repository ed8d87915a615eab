// SPDX-License-Identifier: Apache-2.0
//
// BlockMap: where each 4 KiB block of a volume is in the store. A leaf covers 4 MiB; it is a list
// of extents while that is shorter, else an array of 8 bytes a block. What is not mapped reads as
// zeros.
//
// A leaf may be away: its contents are then kept by who sent it away (map_pager.h), and here is
// only what finds and proves them again. Whatever looks into a leaf or changes it needs it here.

#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "devices/objstore/data_object.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::objstore {

inline constexpr uint32_t kLeafBlocks = 1024;

/// A run of blocks of the volume.
struct BlockRange {
  constexpr BlockRange() = default;
  constexpr BlockRange(uint64_t first_block, uint64_t block_count)
      : first(first_block), count(block_count) {}
  [[nodiscard]] constexpr uint64_t end() const { return first + count; }
  friend bool operator==(const BlockRange&, const BlockRange&) = default;

  uint64_t first = 0;
  uint64_t count = 0;
};

/// Where a block is: an entry of the object table, and the place in that object.
struct Location {
  /// 0: nowhere; it reads as zeros.
  uint32_t slot = 0;
  /// Frame and block in the frame: frame << 4 | block. The next block of a run is the next number.
  uint32_t position = 0;

  friend bool operator==(const Location&, const Location&) = default;
};

/// A run of blocks that lie in one object, one behind the other, or nowhere.
struct MappedRun {
  BlockRange blocks;
  Location location;

  friend bool operator==(const MappedRun&, const MappedRun&) = default;
};

/// Threads: one at a time; find() and here() many at a time.
/// Range:   find, set, move and encode_leaf: the leaves are here, asserted.
class BlockMap {
 public:
  /// Told how many blocks of an object were replaced. Range: slot > 0.
  using Replaced = std::function<void(uint32_t slot, uint32_t blocks)>;

  /// Told of each leaf that is about to change, before it does; must not change the map.
  using BeforeChange = std::function<void(uint64_t leaf)>;

  explicit BlockMap(uint64_t blocks);
  ~BlockMap();
  BlockMap(BlockMap&&) noexcept;

  [[nodiscard]] uint64_t blocks() const { return blocks_; }

  /// The runs that make up `range`, in order; neighbours that continue each other within a leaf are
  /// one. Range: within the volume.
  [[nodiscard]] std::vector<MappedRun> find(BlockRange range) const;
  /// Maps `range` to `location` and what follows it; slot 0 unmaps.
  void set(BlockRange range, Location location, const Replaced& replaced);
  /// Maps those blocks of `range` to `to` that are now at `from` and what follows it: for data that
  /// garbage collection has moved. Returns how many.
  uint64_t move(BlockRange range, Location from, Location to, const Replaced& replaced);

  /// From now on tells `before`; empty: nobody. For who writes the map as it is now, bit by bit.
  void watch(BeforeChange before) { before_change_ = std::move(before); }

  /// Units: bytes of memory.
  [[nodiscard]] uint64_t memory() const { return memory_ + order_.size() * sizeof(order_.front()); }
  /// Units: bytes of all leaves as checkpoints keep them, here and away.
  [[nodiscard]] uint64_t encoded_bytes() const { return encoded_bytes_; }
  [[nodiscard]] uint64_t leaves() const { return leaves_; }
  /// How many leaves have changed since they were cleared.
  [[nodiscard]] uint64_t changed_leaves() const { return changed_leaves_; }
  /// Whether leaf `index` has changed since clear_changed(index).
  [[nodiscard]] bool changed(uint64_t index) const;
  /// Ends a generation of changes and returns its number; later changes are of a later one.
  uint32_t end_generation() { return generation_++; }
  /// Forgets that leaf `index` changed, unless it did so after generation `until`.
  void clear_changed(uint64_t index, uint32_t until = UINT32_MAX);
  /// The leaf as checkpoints keep it; empty: nothing is mapped.
  [[nodiscard]] std::vector<std::byte> encode_leaf(uint64_t index) const;
  /// The reverse; the leaf counts as not changed.
  /// Errors: kInvalid: not what encode_leaf() makes; the leaf is as before.
  Result<void> decode_leaf(uint64_t index, Bytes encoded);

  // --- leaves that go away

  /// What proves the contents of a leaf that is away.
  struct Proof {
    uint32_t bytes = 0;
    uint32_t crc = 0;
    friend bool operator==(const Proof&, const Proof&) = default;
  };

  /// From now on keeps the order that next_to_go() needs. Range: nothing is mapped yet.
  void keep_order() { keeps_order_ = true; }
  /// Whether the leaves of `range` are here. Range: within the volume.
  [[nodiscard]] bool here(BlockRange range) const;
  [[nodiscard]] bool is_away(uint64_t index) const;
  [[nodiscard]] uint64_t leaves_away() const { return leaves_away_; }
  /// A leaf with contents that is here and was not looked at lately; none: not among the `most`
  /// that were asked. The next call begins with the next one.
  std::optional<uint64_t> next_to_go(size_t most);
  [[nodiscard]] size_t in_order() const { return order_.size(); }
  /// Whether what end_copy() was told of is still what the leaf is.
  [[nodiscard]] bool has_copy(uint64_t index) const;
  /// What encode_leaf() gives now is being copied. False: it is already. Range: the leaf is here.
  [[nodiscard]] bool begin_copy(uint64_t index);
  /// The copy is made, or, without `proof`, is not. It counts if the leaf did not change since.
  void end_copy(uint64_t index, std::optional<Proof> proof);
  /// Takes the contents out of memory. Range: has_copy(), asserted.
  void send_away(uint64_t index);
  /// Of the copy. Range: it is away, asserted.
  [[nodiscard]] Proof proof(uint64_t index) const;
  /// The contents, proven, are here again. Errors: kInvalid: not what encode_leaf() makes; it stays
  /// away. Range: it is away, asserted.
  Result<void> bring_back(uint64_t index, Bytes encoded);

 private:
  struct Leaf;
  struct Entry;
  struct Chunk;

  /// nullptr: nothing was ever mapped near it.
  [[nodiscard]] Entry* entry(uint64_t index) const;
  Entry& make_entry(uint64_t index);
  /// nullptr: nothing is mapped in it.
  [[nodiscard]] const Leaf* leaf(uint64_t index) const;
  /// How many blocks leaf `index` covers: fewer at the end of the volume.
  [[nodiscard]] uint32_t leaf_blocks(uint64_t index) const;
  void set_in_leaf(BlockRange range, Location location, const Replaced& replaced);
  [[nodiscard]] Result<std::unique_ptr<Leaf>> decode(uint64_t index, Bytes encoded) const;
  void put(uint64_t index, Entry& entry, std::unique_ptr<Leaf> leaf);

  uint64_t blocks_;
  uint64_t leaves_;
  uint64_t memory_ = 0;
  uint64_t encoded_bytes_ = 0;
  uint64_t changed_leaves_ = 0;
  uint64_t leaves_away_ = 0;
  uint32_t generation_ = 1;
  bool keeps_order_ = false;
  BeforeChange before_change_;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  /// Leaves that are here, and some that were: as they came.
  std::deque<uint64_t> order_;
};

}  // namespace usbd::objstore

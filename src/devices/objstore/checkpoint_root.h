// SPDX-License-Identifier: Apache-2.0
//
// CheckpointRoot: what a checkpoint says but for its pages: which of the writes it covers, where
// each page of the map and of the object table is, and which objects hold them. And the pages of
// the map, of 32 leaves each. docs/formats/checkpoint.md is the format.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "devices/objstore/block_map.h"
#include "devices/objstore/sealed_pieces.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::objstore {

/// Leaves in a page of the map: 128 MiB of the volume.
inline constexpr uint32_t kPageLeaves = 32;

/// Where a page is.
struct PageRef {
  uint32_t page = 0;
  PiecePointer piece = {};

  friend bool operator==(const PageRef&, const PageRef&) = default;
};

/// An object that holds pages.
struct MapObject {
  MapObjectId id = {};
  ObjectSalt salt{};
  /// Pages written into it, and those of them that the root names.
  uint32_t pages = 0;
  uint32_t live = 0;

  friend bool operator==(const MapObject&, const MapObject&) = default;
};

/// A checkpoint that is kept. Numbers of a row of them rise together.
struct SnapshotRef {
  /// That of its checkpoint.
  uint64_t number = 0;
  PiecePointer root = {};
  /// The last log object, and the last write in it, that its map has.
  uint64_t last_seq = 0;
  uint64_t last_write = 0;
  /// The last object of garbage collection of the root's epoch that its map has.
  uint64_t last_moved = 0;
  /// When it was taken, as whoever asked for it says. Units: ns since 1970, UTC.
  uint64_t time = 0;
  /// As check_snapshot_name() accepts it; may be empty.
  std::string name = {};

  friend bool operator==(const SnapshotRef&, const SnapshotRef&) = default;
};

/// The volume that this one was cloned from.
struct ParentRef {
  VolumeId volume{};
  PiecePointer root = {};

  friend bool operator==(const ParentRef&, const ParentRef&) = default;
};

struct CheckpointRoot {
  /// Counts the volume's checkpoints; 0: there is none yet.
  uint64_t number = 0;
  /// Of the volume.
  uint64_t blocks = 0;
  /// The last log object, and the last write in it, that map and table know of.
  uint64_t last_seq = 0;
  uint64_t last_write = 0;
  /// In order, each once.
  std::vector<PageRef> map_pages = {};
  std::vector<PageRef> table_pages = {};
  std::vector<MapObject> objects = {};
  std::vector<SnapshotRef> snapshots = {};
  std::optional<ParentRef> parent = {};
  /// A copy of head as it was.
  std::vector<std::byte> head = {};

  friend bool operator==(const CheckpointRoot&, const CheckpointRoot&) = default;
};

inline constexpr size_t kSnapshotNameMax = 56;
/// What is wrong with the name of a snapshot; empty: nothing.
[[nodiscard]] std::string check_snapshot_name(std::string_view name);

/// Sets what is live in each object by the pages; those in which nothing is are taken out.
/// Returns them. Range: each page is in one of the objects, asserted.
std::vector<MapObjectId> recount(CheckpointRoot& root);

/// Errors: kOverflow: longer than a piece can be.
Result<std::vector<std::byte>> encode_root(const CheckpointRoot& root);
/// Errors: kInvalid, kNotSupported (of a later version).
Result<CheckpointRoot> decode_root(Bytes encoded);

[[nodiscard]] uint32_t map_pages(const BlockMap& map);
/// A page of the map, made leaf by leaf.
class MapPageBuilder {
 public:
  MapPageBuilder();
  /// The next leaf, as encode_leaf() gives it. Range: at most kPageLeaves of them.
  void add(Bytes leaf);
  /// The page as checkpoints keep it; empty: nothing is mapped.
  [[nodiscard]] std::vector<std::byte> finish();

 private:
  size_t leaves_ = 0;
  std::vector<std::byte> bytes_;
};
/// The leaves of a page of a map of so many leaves; empty: nothing is mapped in it. Lifetime: that
/// of `encoded`. Errors: kInvalid: it has not those leaves and nothing else.
Result<std::array<Bytes, kPageLeaves>> split_map_page(uint64_t leaves, uint32_t page,
                                                      Bytes encoded);
/// The page as checkpoints keep it; empty: nothing is mapped.
[[nodiscard]] std::vector<std::byte> encode_map_page(const BlockMap& map, uint32_t page);
/// The reverse. Range: `page` is one of the map, asserted.
/// Errors: kInvalid: not what encode_map_page() makes; leaves before the bad one are taken.
Result<void> decode_map_page(BlockMap& map, uint32_t page, Bytes encoded);

}  // namespace usbd::objstore

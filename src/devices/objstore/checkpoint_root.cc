// SPDX-License-Identifier: Apache-2.0
//
// Counts are checked against the bytes that are there before memory is taken for them.

#include "devices/objstore/checkpoint_root.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/endian.h"
#include "base/limits.h"
#include "devices/objstore/object_table.h"

namespace usbd::objstore {
namespace {

constexpr uint16_t kVersion = 1;
constexpr uint64_t kPageBlocks = uint64_t{kPageLeaves} * kLeafBlocks;
/// The first block that no volume has: 2^63 bytes.
constexpr uint64_t kBlockEnd = uint64_t{1} << 51U;

struct DiskRoot {
  Le16 version;
  Le16 page_leaves;
  Le32 leaf_blocks;
  Le32 block_bytes;
  Le32 table_page_slots;
  Le64 number;
  Le64 blocks;
  Le64 last_seq;
  Le64 last_write;
  Le32 map_pages;
  Le32 table_pages;
  Le32 objects;
  Le32 snapshots;
  Le32 parents;
  Le32 head_bytes;
};
static_assert(sizeof(DiskRoot) == 72);

struct DiskPageRef {
  Le32 page;
  Le32 object;  ///< Its place in the list of objects.
  Le32 offset;
  Le32 stored;
  Le32 logical;
  Le32 number;
};
static_assert(sizeof(DiskPageRef) == 24);

struct DiskObject {
  Le64 epoch;
  Le64 id;
  ObjectSalt salt;
  Le32 pages;
  Le32 live;
};
static_assert(sizeof(DiskObject) == 56);

struct DiskSnapshot {
  Le64 number;
  DiskPiecePointer root;
  Le64 last_seq;
  Le64 last_write;
  Le64 last_moved;
  Le64 time;
  std::array<char, kSnapshotNameMax> name;  ///< Zeros behind it.
};
static_assert(sizeof(DiskSnapshot) == 128);

struct DiskParent {
  VolumeId volume;
  DiskPiecePointer root;
};
static_assert(sizeof(DiskParent) == 48);

Error refused(const std::string& what) {
  return Error(Errc::kInvalid, "the root of the checkpoint " + what);
}

/// Takes structs from the front. Range: there are enough bytes, which callers have checked.
class Cursor {
 public:
  explicit Cursor(Bytes bytes) : rest_(bytes) {}
  template <WireStruct T>
  T take() {
    const T value = wire_read<T>(rest_);
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  [[nodiscard]] Bytes rest() const { return rest_; }

 private:
  Bytes rest_;
};

std::vector<MapObject>::iterator find_object(std::vector<MapObject>& objects,
                                             const MapObjectId& id) {
  const auto found = std::ranges::lower_bound(objects, id, {}, &MapObject::id);
  USBD_ASSERT(found != objects.end());
  USBD_ASSERT(found->id == id);
  return found;
}

void append_pages(std::vector<std::byte>& out, const std::vector<PageRef>& pages,
                  const std::vector<MapObject>& objects) {
  for (const PageRef& ref : pages) {
    const auto at = std::ranges::lower_bound(objects, ref.piece.object, {}, &MapObject::id);
    const DiskPageRef disk{.page = ref.page,
                           .object = static_cast<uint32_t>(at - objects.begin()),
                           .offset = ref.piece.offset,
                           .stored = ref.piece.stored,
                           .logical = ref.piece.logical,
                           .number = ref.piece.number};
    wire_append(out, disk);
  }
}

uint64_t size_of(const DiskRoot& disk) {
  return sizeof(DiskRoot) + uint64_t{disk.objects} * sizeof(DiskObject) +
         (uint64_t{disk.map_pages} + disk.table_pages) * sizeof(DiskPageRef) +
         uint64_t{disk.snapshots} * sizeof(DiskSnapshot) +
         uint64_t{disk.parents} * sizeof(DiskParent) + disk.head_bytes;
}

DiskRoot head_of(const CheckpointRoot& root) {
  return {.version = kVersion,
          .page_leaves = static_cast<uint16_t>(kPageLeaves),
          .leaf_blocks = kLeafBlocks,
          .block_bytes = static_cast<uint32_t>(kBlockBytes),
          .table_page_slots = kTablePageSlots,
          .number = root.number,
          .blocks = root.blocks,
          .last_seq = root.last_seq,
          .last_write = root.last_write,
          .map_pages = static_cast<uint32_t>(root.map_pages.size()),
          .table_pages = static_cast<uint32_t>(root.table_pages.size()),
          .objects = static_cast<uint32_t>(root.objects.size()),
          .snapshots = static_cast<uint32_t>(root.snapshots.size()),
          .parents = root.parent ? 1U : 0U,
          .head_bytes = static_cast<uint32_t>(root.head.size())};
}

Result<void> check_head(const DiskRoot& disk, size_t size) {
  if (disk.version != kVersion) {
    return Error(Errc::kNotSupported,
                 fmt::format("the root of the checkpoint has version {}; this version of usbd "
                             "reads {}",
                             uint16_t{disk.version}, kVersion));
  }
  if (disk.page_leaves != kPageLeaves || disk.leaf_blocks != kLeafBlocks ||
      disk.block_bytes != kBlockBytes || disk.table_page_slots != kTablePageSlots) {
    return Error(Errc::kNotSupported, "the root of the checkpoint counts in other units");
  }
  if (disk.number == 0 || disk.blocks == 0 || disk.blocks > kBlockEnd) {
    return refused(
        fmt::format("has number {} and {} blocks", uint64_t{disk.number}, uint64_t{disk.blocks}));
  }
  if (disk.snapshots > limits::kSnapshotsMax || disk.parents > 1 ||
      disk.head_bytes > limits::kHeadCopyMax || size_of(disk) != size) {
    return refused(fmt::format("has {} bytes, and lists what takes {}", size, size_of(disk)));
  }
  return {};
}

Result<void> take_objects(Cursor& from, uint32_t count, CheckpointRoot& root) {
  root.objects.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const auto disk = from.take<DiskObject>();
    const MapObject object{.id = {.epoch = disk.epoch, .id = disk.id},
                           .salt = disk.salt,
                           .pages = disk.pages,
                           .live = disk.live};
    if (!root.objects.empty() && object.id <= root.objects.back().id) {
      return refused(fmt::format("lists {} out of order", to_text(object.id)));
    }
    root.objects.push_back(object);
  }
  return {};
}

Result<void> take_pages(Cursor& from, uint32_t count, uint64_t page_end,
                        const std::vector<MapObject>& objects, std::vector<PageRef>& pages) {
  pages.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const auto disk = from.take<DiskPageRef>();
    const bool ordered = pages.empty() || disk.page > pages.back().page;
    if (!ordered || disk.page >= page_end || disk.object >= objects.size()) {
      return refused(fmt::format("lists page {} of {} out of order, or in object {} of {}",
                                 uint32_t{disk.page}, page_end, uint32_t{disk.object},
                                 objects.size()));
    }
    const PiecePointer piece{.object = objects[disk.object].id,
                             .offset = disk.offset,
                             .stored = disk.stored,
                             .logical = disk.logical,
                             .number = disk.number};
    if (const std::string wrong = check(piece); !wrong.empty()) {
      return refused(fmt::format("points at nothing for page {}: {}", uint32_t{disk.page}, wrong));
    }
    pages.push_back({disk.page, piece});
  }
  return {};
}

Result<void> check_counts(const CheckpointRoot& root) {
  CheckpointRoot counted{
      .map_pages = root.map_pages, .table_pages = root.table_pages, .objects = root.objects};
  static_cast<void>(recount(counted));
  if (counted.objects != root.objects) {
    return refused("counts other pages in its objects than it lists");
  }
  for (const MapObject& object : root.objects) {
    if (object.live <= object.pages) continue;
    return refused(fmt::format("counts {} live pages of {} in {}", object.live, object.pages,
                               to_text(object.id)));
  }
  return {};
}

DiskSnapshot to_disk(const SnapshotRef& snapshot) {
  DiskSnapshot disk{.number = snapshot.number,
                    .root = to_disk(snapshot.root),
                    .last_seq = snapshot.last_seq,
                    .last_write = snapshot.last_write,
                    .last_moved = snapshot.last_moved,
                    .time = snapshot.time,
                    .name = {}};
  USBD_ASSERT(check_snapshot_name(snapshot.name).empty());
  std::ranges::copy(snapshot.name, disk.name.begin());
  return disk;
}

Result<SnapshotRef> from_disk(const DiskSnapshot& disk) {
  USBD_TRY(const PiecePointer root, from_disk(disk.root));
  const std::string_view all(disk.name.data(), disk.name.size());
  const std::string_view name = all.substr(0, all.find('\0'));
  const bool zeros = all.find_first_not_of('\0', name.size()) == std::string_view::npos;
  const std::string wrong = zeros ? check_snapshot_name(name) : "has bytes behind its end";
  if (!wrong.empty()) {
    return refused(
        fmt::format("says that the name of snapshot {} {}", uint64_t{disk.number}, wrong));
  }
  return SnapshotRef{.number = disk.number,
                     .root = root,
                     .last_seq = disk.last_seq,
                     .last_write = disk.last_write,
                     .last_moved = disk.last_moved,
                     .time = disk.time,
                     .name = std::string(name)};
}

/// Whether a snapshot can be the next in a list, or come before the checkpoint `root`.
bool follows(const SnapshotRef& snapshot, const CheckpointRoot& root) {
  if (snapshot.number == 0 || snapshot.number >= root.number || snapshot.last_seq > root.last_seq ||
      snapshot.last_write > root.last_write) {
    return false;
  }
  if (root.snapshots.empty()) return true;
  const SnapshotRef& before = root.snapshots.back();
  return snapshot.number > before.number && before.root.object < snapshot.root.object &&
         snapshot.last_seq >= before.last_seq && snapshot.last_write >= before.last_write;
}

Result<void> take_relatives(Cursor& from, const DiskRoot& disk, CheckpointRoot& root) {
  for (uint32_t i = 0; i < disk.snapshots; ++i) {
    USBD_TRY(SnapshotRef snapshot, from_disk(from.take<DiskSnapshot>()));
    if (!follows(snapshot, root)) {
      return refused(fmt::format("lists snapshot {} out of order", snapshot.number));
    }
    root.snapshots.push_back(std::move(snapshot));
  }
  if (disk.parents == 0) return {};
  const auto parent = from.take<DiskParent>();
  USBD_TRY(PiecePointer piece, from_disk(parent.root));
  root.parent = ParentRef{.volume = parent.volume, .root = piece};
  return {};
}

Error page_refused(uint32_t page, const std::string& what) {
  return Error(Errc::kInvalid, fmt::format("map page {} {}", page, what));
}

/// The lengths of a page's leaves, before them.
using LeafLengths = std::array<Le16, kPageLeaves>;
static_assert(sizeof(LeafLengths) == 64);

}  // namespace

std::string check_snapshot_name(std::string_view name) {
  if (name.size() > kSnapshotNameMax) {
    return fmt::format("has {} bytes, of at most {}", name.size(), kSnapshotNameMax);
  }
  const auto is_control = [](char byte) {
    const auto value = static_cast<unsigned char>(byte);
    return value < 0x20 || value == 0x7f;
  };
  return std::ranges::any_of(name, is_control) ? "has control characters" : "";
}

std::vector<MapObjectId> recount(CheckpointRoot& root) {
  for (MapObject& object : root.objects) object.live = 0;
  for (const auto* pages : {&root.map_pages, &root.table_pages}) {
    for (const PageRef& ref : *pages) ++find_object(root.objects, ref.piece.object)->live;
  }
  std::vector<MapObjectId> dead;
  for (const MapObject& object : root.objects) {
    if (object.live == 0) dead.push_back(object.id);
  }
  std::erase_if(root.objects, [](const MapObject& object) { return object.live == 0; });
  return dead;
}

Result<std::vector<std::byte>> encode_root(const CheckpointRoot& root) {
  const DiskRoot head = head_of(root);
  if (size_of(head) > limits::kCodecPieceMax || root.head.size() > limits::kHeadCopyMax) {
    return Error(Errc::kOverflow,
                 fmt::format("the root of the checkpoint would have {} bytes, of at most {}: the "
                             "volume is too large, or has too many snapshots",
                             size_of(head), limits::kCodecPieceMax));
  }
  std::vector<std::byte> out;
  out.reserve(size_of(head));
  wire_append(out, head);
  for (const MapObject& object : root.objects) {
    const DiskObject disk{.epoch = object.id.epoch,
                          .id = object.id.id,
                          .salt = object.salt,
                          .pages = object.pages,
                          .live = object.live};
    wire_append(out, disk);
  }
  append_pages(out, root.map_pages, root.objects);
  append_pages(out, root.table_pages, root.objects);
  for (const SnapshotRef& snapshot : root.snapshots) {
    wire_append(out, to_disk(snapshot));
  }
  if (root.parent) {
    const DiskParent disk{.volume = root.parent->volume, .root = to_disk(root.parent->root)};
    wire_append(out, disk);
  }
  out.insert(out.end(), root.head.begin(), root.head.end());
  return out;
}

Result<CheckpointRoot> decode_root(Bytes encoded) {
  if (encoded.size() < sizeof(DiskRoot)) {
    return refused(fmt::format("has only {} bytes", encoded.size()));
  }
  Cursor from(encoded);
  const auto disk = from.take<DiskRoot>();
  USBD_TRY_VOID(check_head(disk, encoded.size()));
  CheckpointRoot root{.number = disk.number,
                      .blocks = disk.blocks,
                      .last_seq = disk.last_seq,
                      .last_write = disk.last_write};
  USBD_TRY_VOID(take_objects(from, disk.objects, root));
  const uint64_t page_end = (root.blocks + kPageBlocks - 1) / kPageBlocks;
  USBD_TRY_VOID(take_pages(from, disk.map_pages, page_end, root.objects, root.map_pages));
  constexpr uint64_t kTablePageEnd = limits::kDataObjectsMax / kTablePageSlots;
  USBD_TRY_VOID(take_pages(from, disk.table_pages, kTablePageEnd, root.objects, root.table_pages));
  USBD_TRY_VOID(check_counts(root));
  USBD_TRY_VOID(take_relatives(from, disk, root));
  root.head.assign(from.rest().begin(), from.rest().end());
  return root;
}

uint32_t map_pages(const BlockMap& map) {
  return static_cast<uint32_t>((map.leaves() + kPageLeaves - 1) / kPageLeaves);
}

MapPageBuilder::MapPageBuilder() : bytes_(sizeof(LeafLengths)) {}

void MapPageBuilder::add(Bytes leaf) {
  USBD_ASSERT(leaves_ < kPageLeaves);
  const Le16 length = static_cast<uint16_t>(leaf.size());
  std::ranges::copy(wire_bytes(length),
                    bytes_.begin() + static_cast<ptrdiff_t>(leaves_ * sizeof(length)));
  bytes_.insert(bytes_.end(), leaf.begin(), leaf.end());
  ++leaves_;
}

std::vector<std::byte> MapPageBuilder::finish() {
  if (bytes_.size() == sizeof(LeafLengths)) bytes_.clear();
  return std::move(bytes_);
}

std::vector<std::byte> encode_map_page(const BlockMap& map, uint32_t page) {
  const uint64_t first = uint64_t{page} * kPageLeaves;
  const uint64_t end = std::min(first + kPageLeaves, map.leaves());
  MapPageBuilder builder;
  for (uint64_t leaf = first; leaf < end; ++leaf) builder.add(map.encode_leaf(leaf));
  return builder.finish();
}

Result<std::array<Bytes, kPageLeaves>> split_map_page(uint64_t leaves, uint32_t page,
                                                      Bytes encoded) {
  if (encoded.size() <= sizeof(LeafLengths)) {
    return page_refused(page, fmt::format("has only {} bytes", encoded.size()));
  }
  const auto lengths = wire_read<LeafLengths>(encoded);
  std::array<Bytes, kPageLeaves> found;
  Bytes rest = encoded.subspan(sizeof(lengths));
  for (uint32_t i = 0; i < kPageLeaves; ++i) {
    const uint64_t leaf = uint64_t{page} * kPageLeaves + i;
    const size_t length = lengths[i];
    if (length > rest.size() || (leaf >= leaves && length > 0)) {
      return page_refused(page, fmt::format("says that leaf {} has {} bytes, of {} left", leaf,
                                            length, rest.size()));
    }
    found[i] = rest.first(length);
    rest = rest.subspan(length);
  }
  if (rest.empty()) return found;
  return page_refused(page, fmt::format("has {} bytes behind its leaves", rest.size()));
}

Result<void> decode_map_page(BlockMap& map, uint32_t page, Bytes encoded) {
  USBD_ASSERT(page < map_pages(map));
  USBD_TRY(const auto leaves, split_map_page(map.leaves(), page, encoded));
  const uint64_t first = uint64_t{page} * kPageLeaves;
  for (uint64_t i = 0; i < kPageLeaves && first + i < map.leaves(); ++i) {
    USBD_TRY_VOID(map.decode_leaf(first + i, leaves[i]));
  }
  return {};
}

}  // namespace usbd::objstore

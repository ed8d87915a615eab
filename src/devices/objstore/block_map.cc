// SPDX-License-Identifier: Apache-2.0
//
// A leaf's form follows from what it holds: the list while it takes fewer bytes than the array,
// else the array. So a leaf has one encoding, whose length alone tells the form: the longest list
// is shorter than the array. docs/formats/checkpoint.md describes both.
//
// An entry says of a leaf, in few bytes, what is known also when its contents are not here. Entries
// come in chunks, of which a volume that holds little needs few.

#include "devices/objstore/block_map.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/endian.h"

namespace usbd::objstore {
namespace {

/// A run of mapped blocks of a leaf, counted from its first block.
struct LeafExtent {
  uint16_t first = 0;
  uint16_t count = 0;
  Location location;

  [[nodiscard]] uint32_t end() const { return uint32_t{first} + count; }
};
static_assert(sizeof(LeafExtent) == 12);

struct DiskLocation {
  Le32 slot;
  Le32 position;
};
static_assert(sizeof(DiskLocation) == 8);

struct DiskExtent {
  Le16 first;
  Le16 count;
  DiskLocation location;
};
static_assert(sizeof(DiskExtent) == 12);

constexpr size_t kFlatBytes = kLeafBlocks * sizeof(DiskLocation);
constexpr size_t kListMax = (kFlatBytes - 1) / sizeof(DiskExtent);

using Flat = std::array<Location, kLeafBlocks>;

/// Blocks of a leaf, counted from its first one.
struct Span {
  uint32_t first = 0;
  uint32_t end = 0;
};

Location advanced(Location location, uint64_t blocks) {
  if (location.slot == 0) return {};
  return {location.slot, static_cast<uint32_t>(location.position + blocks)};
}

/// Whether `blocks` from `location` on have positions of 32 bits.
bool fits(Location location, uint64_t blocks) {
  return location.slot == 0 || blocks <= (uint64_t{1} << 32U) - location.position;
}

/// Whether `next` is what comes after the `blocks` at `location`. For what is nowhere: also
/// nowhere.
bool continues(Location location, uint64_t blocks, Location next) {
  if (location.slot != next.slot) return false;
  return next.slot == 0 || uint64_t{location.position} + blocks == next.position;
}

LeafExtent make_extent(uint32_t first, uint32_t end, Location location) {
  return {static_cast<uint16_t>(first), static_cast<uint16_t>(end - first), location};
}

/// At most five extents: a change in the middle of one, and its neighbours.
class FewExtents {
 public:
  void add(const LeafExtent& extent) {
    if (size_ > 0) {
      LeafExtent& last = extents_[size_ - 1];
      if (last.end() == extent.first && continues(last.location, last.count, extent.location)) {
        last.count = static_cast<uint16_t>(last.count + extent.count);
        return;
      }
    }
    extents_.at(size_++) = extent;
  }
  [[nodiscard]] const LeafExtent* begin() const { return extents_.data(); }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  std::array<LeafExtent, 5> extents_{};
  size_t size_ = 0;
};

/// Puts `fresh` in the place of the extents from `from` to `to`, and keeps little room unused.
void replace(std::vector<LeafExtent>& list, size_t from, size_t to, const FewExtents& fresh) {
  const size_t size = list.size() - (to - from) + fresh.size();
  if (size > list.capacity()) list.reserve(std::max(size, list.capacity() * 5 / 4));
  const auto at = list.begin() + static_cast<ptrdiff_t>(from);
  const size_t common = std::min(to - from, fresh.size());
  const auto behind = std::copy_n(fresh.begin(), common, at);
  if (fresh.size() > common) {
    list.insert(behind, fresh.begin() + common, fresh.begin() + fresh.size());
  } else {
    list.erase(behind, list.begin() + static_cast<ptrdiff_t>(to));
  }
  if (list.size() <= list.capacity() / 2) list.shrink_to_fit();
}

/// Tells of the blocks of `flat` in `span` that are mapped.
void report(const Flat& flat, Span span, const BlockMap::Replaced& replaced) {
  for (uint32_t i = span.first; i < span.end;) {
    const uint32_t slot = flat[i].slot;
    const uint32_t start = i;
    while (i < span.end && flat[i].slot == slot) ++i;
    if (slot != 0) replaced(slot, i - start);
  }
}

/// How many runs of mapped blocks begin in `span`.
uint32_t runs_begun(const Flat& flat, Span span) {
  uint32_t runs = 0;
  for (uint32_t i = span.first; i < span.end; ++i) {
    if (flat[i].slot != 0 && (i == 0 || !continues(flat[i - 1], 1, flat[i]))) ++runs;
  }
  return runs;
}

std::vector<LeafExtent> list_of(const Flat& flat, uint32_t runs) {
  std::vector<LeafExtent> list;
  list.reserve(runs);
  for (uint32_t i = 0; i < kLeafBlocks;) {
    const uint32_t start = i++;
    while (i < kLeafBlocks && continues(flat[start], i - start, flat[i])) ++i;
    if (flat[start].slot != 0) list.push_back(make_extent(start, i, flat[start]));
  }
  return list;
}

std::unique_ptr<Flat> flat_of(const std::vector<LeafExtent>& list) {
  auto flat = std::make_unique<Flat>();
  for (const LeafExtent& extent : list) {
    for (uint32_t i = 0; i < extent.count; ++i) {
      (*flat)[extent.first + i] = advanced(extent.location, i);
    }
  }
  return flat;
}

Error refused(uint64_t leaf, const std::string& what) {
  return Error(Errc::kInvalid, fmt::format("map leaf {} {}", leaf, what));
}

Result<std::vector<LeafExtent>> decode_list(uint64_t leaf, uint32_t blocks, Bytes encoded) {
  const size_t count = encoded.size() / sizeof(DiskExtent);
  if (encoded.size() % sizeof(DiskExtent) != 0 || count > kListMax) {
    return refused(leaf, fmt::format("has {} bytes, which no leaf has", encoded.size()));
  }
  std::vector<LeafExtent> list;
  list.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const auto disk = wire_read<DiskExtent>(encoded.subspan(i * sizeof(DiskExtent)));
    const LeafExtent extent{disk.first, disk.count, {disk.location.slot, disk.location.position}};
    const uint32_t before = list.empty() ? 0 : list.back().end();
    if (extent.count == 0 || extent.first < before || extent.end() > blocks) {
      return refused(leaf,
                     fmt::format("has an extent of {} blocks at {}, after {} and of {} blocks",
                                 extent.count, extent.first, before, blocks));
    }
    if (extent.location.slot == 0 || !fits(extent.location, extent.count)) {
      return refused(leaf,
                     fmt::format("maps block {} to position {} of slot {}, which is no place",
                                 extent.first, extent.location.position, extent.location.slot));
    }
    if (!list.empty() && extent.first == before &&
        continues(list.back().location, list.back().count, extent.location)) {
      return refused(leaf, fmt::format("has two extents for one run at block {}", extent.first));
    }
    list.push_back(extent);
  }
  return list;
}

Result<std::unique_ptr<Flat>> decode_flat(uint64_t leaf, uint32_t blocks, Bytes encoded) {
  auto flat = std::make_unique<Flat>();
  for (uint32_t i = 0; i < kLeafBlocks; ++i) {
    const auto disk = wire_read<DiskLocation>(encoded.subspan(i * sizeof(DiskLocation)));
    const Location location{disk.slot, disk.position};
    if (location.slot == 0 && location.position != 0) {
      return refused(leaf, fmt::format("gives block {} a position in no object", i));
    }
    if (location.slot != 0 && i >= blocks) {
      return refused(leaf, fmt::format("maps block {} of {}", i, blocks));
    }
    (*flat)[i] = location;
  }
  return flat;
}

/// Returns what is behind it.
template <typename T>
std::byte* put_next(std::byte* at, const T& disk) {
  std::memcpy(at, &disk, sizeof(disk));
  return at + sizeof(disk);
}

DiskLocation to_disk(Location location) {
  return {.slot = location.slot, .position = location.position};
}

}  // namespace

struct BlockMap::Leaf {
  /// In order, none continues another; unused if `flat` is set.
  std::vector<LeafExtent> list = {};
  std::unique_ptr<Flat> flat = nullptr;
  /// If `flat` is set: how long a list it would be.
  uint32_t runs = 0;

  [[nodiscard]] bool empty() const { return flat == nullptr && list.empty(); }
  [[nodiscard]] uint64_t memory() const {
    return sizeof(Leaf) + list.capacity() * sizeof(LeafExtent) + (flat ? sizeof(Flat) : 0);
  }
  [[nodiscard]] uint32_t encoded_bytes() const {
    return static_cast<uint32_t>(flat ? kFlatBytes : list.size() * sizeof(DiskExtent));
  }
  /// The first extent that ends after `block`.
  [[nodiscard]] size_t position_of(uint32_t block) const {
    const auto at = std::ranges::partition_point(
        list, [block](const LeafExtent& extent) { return extent.end() <= block; });
    return static_cast<size_t>(at - list.begin());
  }
  [[nodiscard]] bool anything_in(Span span) const {
    if (flat == nullptr) {
      const size_t at = position_of(span.first);
      return at < list.size() && list[at].first < span.end;
    }
    return std::any_of(flat->begin() + span.first, flat->begin() + span.end,
                       [](const Location& location) { return location.slot != 0; });
  }

  void set_in_list(Span span, Location location, const Replaced& replaced);
  void set_in_flat(Span span, Location location, const Replaced& replaced);
  void choose_form();
  void find_in_list(Span span, uint64_t start, std::vector<MappedRun>& out) const;
  void find_in_flat(Span span, uint64_t start, std::vector<MappedRun>& out) const;
};

void BlockMap::Leaf::set_in_list(Span span, Location location, const Replaced& replaced) {
  const size_t from = position_of(span.first);
  size_t to = from;
  for (; to < list.size() && list[to].first < span.end; ++to) {
    const LeafExtent& old = list[to];
    replaced(old.location.slot,
             std::min(old.end(), span.end) - std::max<uint32_t>(old.first, span.first));
  }
  FewExtents fresh;
  const size_t first = from > 0 ? from - 1 : from;
  if (first < from) fresh.add(list[first]);
  if (from < to && list[from].first < span.first) {
    fresh.add(make_extent(list[from].first, span.first, list[from].location));
  }
  if (location.slot != 0) fresh.add(make_extent(span.first, span.end, location));
  if (from < to && list[to - 1].end() > span.end) {
    const LeafExtent& old = list[to - 1];
    fresh.add(make_extent(span.end, old.end(), advanced(old.location, span.end - old.first)));
  }
  const size_t last = to < list.size() ? to + 1 : to;
  if (to < last) fresh.add(list[to]);
  replace(list, first, last, fresh);
}

void BlockMap::Leaf::set_in_flat(Span span, Location location, const Replaced& replaced) {
  const Span touched{span.first, std::min(span.end + 1, kLeafBlocks)};
  report(*flat, span, replaced);
  runs -= runs_begun(*flat, touched);
  for (uint32_t i = span.first; i < span.end; ++i) {
    (*flat)[i] = advanced(location, i - span.first);
  }
  runs += runs_begun(*flat, touched);
}

void BlockMap::Leaf::choose_form() {
  if (flat == nullptr && list.size() > kListMax) {
    runs = static_cast<uint32_t>(list.size());
    flat = flat_of(list);
    list = std::vector<LeafExtent>();
  } else if (flat != nullptr && runs <= kListMax) {
    list = list_of(*flat, runs);
    flat = nullptr;
  }
}

void BlockMap::Leaf::find_in_list(Span span, uint64_t start, std::vector<MappedRun>& out) const {
  uint32_t at = span.first;
  for (size_t i = position_of(at); at < span.end; ++i) {
    const uint32_t hole_end =
        i < list.size() ? std::min<uint32_t>(list[i].first, span.end) : span.end;
    if (at < hole_end) {
      out.push_back({{start + at, hole_end - at}, {}});
      at = hole_end;
    }
    if (at == span.end) return;
    const LeafExtent& extent = list[i];
    const uint32_t end = std::min(extent.end(), span.end);
    out.push_back({{start + at, end - at}, advanced(extent.location, at - extent.first)});
    at = end;
  }
}

void BlockMap::Leaf::find_in_flat(Span span, uint64_t start, std::vector<MappedRun>& out) const {
  for (uint32_t i = span.first; i < span.end;) {
    const uint32_t first = i++;
    while (i < span.end && continues((*flat)[first], i - first, (*flat)[i])) ++i;
    out.push_back({{start + first, i - first}, (*flat)[first]});
  }
}

struct BlockMap::Entry {
  /// Null: nothing is mapped, or it is away.
  std::unique_ptr<Leaf> leaf = nullptr;
  /// The generation of the last change; 0: none since clear_changed().
  uint32_t changed = 0;
  /// Of the copy.
  uint32_t crc = 0;
  uint16_t encoded_bytes = 0;
  bool away = false;
  bool copied = false;
  /// A copy is being made; and whether the leaf is still as it was when that began.
  bool copying = false;
  bool copy_is_good = false;
  bool in_order = false;
  /// Somebody has looked at it since next_to_go() passed by.
  std::atomic<bool> used = false;
};

struct BlockMap::Chunk {
  static constexpr uint64_t kLeaves = 256;
  std::array<Entry, kLeaves> entries;
};

BlockMap::BlockMap(uint64_t blocks)
    : blocks_(blocks),
      leaves_((blocks + kLeafBlocks - 1) / kLeafBlocks),
      chunks_((leaves_ + Chunk::kLeaves - 1) / Chunk::kLeaves) {
  static_assert(sizeof(Entry) <= 32);
  memory_ = chunks_.capacity() * sizeof(chunks_.front());
}
BlockMap::~BlockMap() = default;
BlockMap::BlockMap(BlockMap&&) noexcept = default;

BlockMap::Entry* BlockMap::entry(uint64_t index) const {
  USBD_ASSERT(index < leaves_);
  Chunk* const chunk = chunks_[index / Chunk::kLeaves].get();
  return chunk == nullptr ? nullptr : &chunk->entries[index % Chunk::kLeaves];
}

BlockMap::Entry& BlockMap::make_entry(uint64_t index) {
  USBD_ASSERT(index < leaves_);
  std::unique_ptr<Chunk>& chunk = chunks_[index / Chunk::kLeaves];
  if (chunk == nullptr) {
    chunk = std::make_unique<Chunk>();
    memory_ += sizeof(Chunk);
  }
  return chunk->entries[index % Chunk::kLeaves];
}

uint32_t BlockMap::leaf_blocks(uint64_t index) const {
  return static_cast<uint32_t>(std::min<uint64_t>(kLeafBlocks, blocks_ - index * kLeafBlocks));
}

const BlockMap::Leaf* BlockMap::leaf(uint64_t index) const {
  Entry* const found = entry(index);
  if (found == nullptr) return nullptr;
  USBD_ASSERT(!found->away);
  if (!found->used.load(std::memory_order_relaxed)) {
    found->used.store(true, std::memory_order_relaxed);
  }
  return found->leaf.get();
}

std::vector<MappedRun> BlockMap::find(BlockRange range) const {
  USBD_ASSERT(range.count <= blocks_ && range.first <= blocks_ - range.count);
  std::vector<MappedRun> out;
  for (uint64_t at = range.first; at < range.end();) {
    const uint64_t start = at - at % kLeafBlocks;
    const uint64_t end = std::min(range.end(), start + kLeafBlocks);
    const Span span{static_cast<uint32_t>(at - start), static_cast<uint32_t>(end - start)};
    const Leaf* found = leaf(at / kLeafBlocks);
    if (found == nullptr) {
      out.push_back({{at, end - at}, {}});
    } else if (found->flat != nullptr) {
      found->find_in_flat(span, start, out);
    } else {
      found->find_in_list(span, start, out);
    }
    at = end;
  }
  return out;
}

void BlockMap::set(BlockRange range, Location location, const Replaced& replaced) {
  USBD_ASSERT(range.count <= blocks_ && range.first <= blocks_ - range.count);
  USBD_ASSERT(fits(location, range.count));
  for (uint64_t at = range.first; at < range.end();) {
    const uint64_t end = std::min(range.end(), at - at % kLeafBlocks + kLeafBlocks);
    set_in_leaf({at, end - at}, advanced(location, at - range.first), replaced);
    at = end;
  }
}

void BlockMap::set_in_leaf(BlockRange range, Location location, const Replaced& replaced) {
  const uint64_t index = range.first / kLeafBlocks;
  const auto first = static_cast<uint32_t>(range.first % kLeafBlocks);
  const Span span{first, first + static_cast<uint32_t>(range.count)};
  if (location.slot == 0) {
    const Leaf* const found = leaf(index);
    if (found == nullptr || !found->anything_in(span)) return;
  }
  Entry& entry = make_entry(index);
  USBD_ASSERT(!entry.away);
  if (before_change_) before_change_(index);
  std::unique_ptr<Leaf> leaf = std::move(entry.leaf);
  if (leaf == nullptr) {
    leaf = std::make_unique<Leaf>();
  } else {
    memory_ -= leaf->memory();
  }
  if (leaf->flat != nullptr) {
    leaf->set_in_flat(span, location, replaced);
  } else {
    leaf->set_in_list(span, location, replaced);
  }
  leaf->choose_form();
  put(index, entry, std::move(leaf));
  if (entry.changed == 0) ++changed_leaves_;
  entry.changed = generation_;
}

/// Range: what was there is gone, and memory_ does not count it.
void BlockMap::put(uint64_t index, Entry& entry, std::unique_ptr<Leaf> leaf) {
  if (leaf != nullptr && leaf->empty()) leaf = nullptr;
  const uint32_t bytes = leaf == nullptr ? 0 : leaf->encoded_bytes();
  encoded_bytes_ = encoded_bytes_ - entry.encoded_bytes + bytes;
  entry.encoded_bytes = static_cast<uint16_t>(bytes);
  entry.copied = false;
  entry.copy_is_good = false;
  entry.used.store(true, std::memory_order_relaxed);
  if (leaf != nullptr) memory_ += leaf->memory();
  entry.leaf = std::move(leaf);
  if (!keeps_order_ || entry.in_order || entry.leaf == nullptr) return;
  entry.in_order = true;
  order_.push_back(index);
}

uint64_t BlockMap::move(BlockRange range, Location from, Location to, const Replaced& replaced) {
  USBD_ASSERT(from.slot != 0);
  USBD_ASSERT(fits(from, range.count));
  uint64_t moved = 0;
  for (uint64_t at = range.first; at < range.end();) {
    const uint64_t end = std::min(range.end(), at - at % kLeafBlocks + kLeafBlocks);
    for (const MappedRun& run : find({at, end - at})) {
      const uint64_t distance = run.blocks.first - range.first;
      if (run.location != advanced(from, distance)) continue;
      set(run.blocks, advanced(to, distance), replaced);
      moved += run.blocks.count;
    }
    at = end;
  }
  return moved;
}

bool BlockMap::changed(uint64_t index) const {
  const Entry* const found = entry(index);
  return found != nullptr && found->changed != 0;
}

void BlockMap::clear_changed(uint64_t index, uint32_t until) {
  Entry* const found = entry(index);
  if (found == nullptr || found->changed > until) return;
  if (found->changed != 0) --changed_leaves_;
  found->changed = 0;
}

std::vector<std::byte> BlockMap::encode_leaf(uint64_t index) const {
  const Leaf* found = leaf(index);
  if (found == nullptr) return {};
  std::vector<std::byte> out(found->encoded_bytes());
  std::byte* at = out.data();
  if (found->flat != nullptr) {
    for (const Location& location : *found->flat) at = put_next(at, to_disk(location));
    return out;
  }
  for (const LeafExtent& extent : found->list) {
    const DiskExtent disk{
        .first = extent.first, .count = extent.count, .location = to_disk(extent.location)};
    at = put_next(at, disk);
  }
  return out;
}

Result<std::unique_ptr<BlockMap::Leaf>> BlockMap::decode(uint64_t index, Bytes encoded) const {
  auto fresh = std::make_unique<Leaf>();
  if (encoded.size() == kFlatBytes) {
    USBD_TRY(fresh->flat, decode_flat(index, leaf_blocks(index), encoded));
    fresh->runs = runs_begun(*fresh->flat, {0, kLeafBlocks});
    if (fresh->runs <= kListMax) {
      return refused(index, fmt::format("is an array, although it has only {} runs", fresh->runs));
    }
  } else {
    USBD_TRY(fresh->list, decode_list(index, leaf_blocks(index), encoded));
  }
  return fresh;
}

Result<void> BlockMap::decode_leaf(uint64_t index, Bytes encoded) {
  USBD_ASSERT(index < leaves_);
  USBD_TRY(std::unique_ptr<Leaf> fresh, decode(index, encoded));
  if (fresh->empty() && entry(index) == nullptr) return {};
  Entry& entry = make_entry(index);
  if (entry.leaf != nullptr) memory_ -= entry.leaf->memory();
  if (entry.away) --leaves_away_;
  entry.away = false;
  put(index, entry, std::move(fresh));
  if (entry.changed != 0) --changed_leaves_;
  entry.changed = 0;
  return {};
}

// --- leaves that go away
// ----------------------------------------------------------------------------------

bool BlockMap::here(BlockRange range) const {
  if (leaves_away_ == 0 || range.count == 0) return true;
  for (uint64_t index = range.first / kLeafBlocks; index <= (range.end() - 1) / kLeafBlocks;
       ++index) {
    if (is_away(index)) return false;
  }
  return true;
}

bool BlockMap::is_away(uint64_t index) const {
  const Entry* const found = entry(index);
  return found != nullptr && found->away;
}

std::optional<uint64_t> BlockMap::next_to_go(size_t most) {
  for (; most > 0 && !order_.empty(); --most) {
    const uint64_t index = order_.front();
    order_.pop_front();
    Entry& found = *entry(index);
    if (found.leaf == nullptr) {  // it is empty now, or away
      found.in_order = false;
      continue;
    }
    order_.push_back(index);
    if (!found.used.load(std::memory_order_relaxed)) return index;
    found.used.store(false, std::memory_order_relaxed);
  }
  return std::nullopt;
}

bool BlockMap::has_copy(uint64_t index) const {
  const Entry* const found = entry(index);
  return found != nullptr && found->copied;
}

bool BlockMap::begin_copy(uint64_t index) {
  Entry& found = *entry(index);
  USBD_ASSERT(found.leaf != nullptr);
  if (found.copying) return false;
  found.copying = true;
  found.copy_is_good = true;
  return true;
}

void BlockMap::end_copy(uint64_t index, std::optional<Proof> proof) {
  Entry& found = *entry(index);
  USBD_ASSERT(found.copying);
  found.copying = false;
  found.copied = proof.has_value() && found.copy_is_good;
  if (found.copied) found.crc = proof->crc;
}

void BlockMap::send_away(uint64_t index) {
  Entry& found = *entry(index);
  USBD_ASSERT(found.copied && found.leaf != nullptr);
  memory_ -= found.leaf->memory();
  found.leaf = nullptr;
  found.away = true;
  ++leaves_away_;
}

BlockMap::Proof BlockMap::proof(uint64_t index) const {
  const Entry& found = *entry(index);
  USBD_ASSERT(found.away);
  return {.bytes = found.encoded_bytes, .crc = found.crc};
}

Result<void> BlockMap::bring_back(uint64_t index, Bytes encoded) {
  Entry& found = *entry(index);
  USBD_ASSERT(found.away);
  USBD_TRY(std::unique_ptr<Leaf> leaf, decode(index, encoded));
  USBD_ASSERT(!leaf->empty());
  found.away = false;
  --leaves_away_;
  put(index, found, std::move(leaf));
  found.copied = true;
  return {};
}

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// Directories are fetched several at once and applied in order. Objects of the checkpoint keep its
// slots, since the map means them by these; those behind it get the slots that follow.

#include "devices/objstore/volume_image.h"

#include <algorithm>

#include <fmt/format.h>

#include "async/scope.h"
#include "base/limits.h"
#include "devices/objstore/names.h"
#include "usbd/loop.h"

namespace usbd::objstore {
namespace {

/// What one root can name, at 24 bytes for each page of the map: 85 TiB.
constexpr uint64_t kImageBlocksMax = limits::kCodecPieceMax / 24 * kPageLeaves * kLeafBlocks;

/// Whether the error says something of what was asked for, rather than of the way there.
bool is_of_the_object(const Error& error) {
  return error.is(Errc::kNotFound) || error.is(Errc::kIo) || error.is(Errc::kDamaged) ||
         error.is(Errc::kAccess) || error.is(Errc::kInvalid) || error.is(Errc::kNotSupported) ||
         error.is(Errc::kOverflow);
}

PiecePointer pointer_of(const RootPointer& root) {
  // An offset that does not fit is refused by check(): nothing ends behind 4 GiB.
  const auto offset = static_cast<uint32_t>(std::min<uint64_t>(root.offset, UINT32_MAX));
  return {.object = {.epoch = root.epoch, .id = root.id},
          .offset = offset,
          .stored = root.stored,
          .logical = root.logical,
          .number = root.piece};
}

}  // namespace

// --- sets of blocks
// -------------------------------------------------------------------------------

void BlockSet::add(BlockRange range) {
  if (range.count == 0) return;
  uint64_t first = range.first;
  uint64_t end = range.end();
  auto next = ranges_.upper_bound(first);
  if (next != ranges_.begin() && std::prev(next)->second >= first) --next;
  while (next != ranges_.end() && next->first <= end) {
    first = std::min(first, next->first);
    end = std::max(end, next->second);
    next = ranges_.erase(next);
  }
  ranges_.emplace(first, end);
}

void BlockSet::remove(BlockRange range) {
  auto next = ranges_.upper_bound(range.first);
  if (next != ranges_.begin() && std::prev(next)->second > range.first) --next;
  while (next != ranges_.end() && next->first < range.end()) {
    const auto [first, end] = *next;
    // Too much in it is no error, too little would be.
    if (ranges_.size() >= limits::kUncertainRangesMax && first < range.first && end > range.end()) {
      return;
    }
    next = ranges_.erase(next);
    if (first < range.first) ranges_.emplace(first, range.first);
    if (end > range.end()) next = ranges_.emplace(range.end(), end).first;
  }
}

std::vector<BlockRange> BlockSet::within(BlockRange range) const {
  std::vector<BlockRange> found;
  auto next = ranges_.upper_bound(range.first);
  if (next != ranges_.begin() && std::prev(next)->second > range.first) --next;
  for (; next != ranges_.end() && next->first < range.end(); ++next) {
    const uint64_t first = std::max(next->first, range.first);
    found.emplace_back(first, std::min(next->second, range.end()) - first);
  }
  return found;
}

// --- the image
// ------------------------------------------------------------------------------------

Task<Result<FetchedDirectory>> fetch_directory(ImagePlace place, VolumeSeal seal, ObjectId id) {
  const std::string name = data_name(place.volume, id);
  objects::Part part = objects::Part::tail(limits::kObjectTailBytes);
  while (true) {
    USBD_CO_TRY(const objects::Fetched fetched,
                co_await place.store->get(name, part, place.limits));
    if (fetched.data.size() > fetched.object_size) {
      co_return Error(Errc::kIo, name + ": more bytes than the object has");
    }
    Result<Tail> tail = parse_tail(seal, id, fetched.data, fetched.object_size);
    if (!tail) co_return Error(tail.error().code(), name + ": " + tail.error().context());
    if (tail->directory) {
      co_return FetchedDirectory{.directory = *std::move(tail->directory),
                                 .object_bytes = fetched.object_size};
    }
    part = objects::Part::range(tail->missing.offset, tail->missing.length);
  }
}

VolumeImage::VolumeImage(ImagePlace place, Head head, OnLost on_lost)
    : place_(std::move(place)),
      head_(std::move(head)),
      on_lost_(std::move(on_lost)),
      map_(std::make_unique<BlockMap>((head_.size + kBlockBytes - 1) / kBlockBytes)),
      objects_(1) {
  objects_[0].facts.state = ObjectState::kFree;
}

Task<Result<std::unique_ptr<VolumeImage>>> VolumeImage::load(ImagePlace place, Head head,
                                                             OnLost on_lost) {
  if (head.size / kBlockBytes >= kImageBlocksMax) {
    co_return Error(Errc::kInvalid,
                    fmt::format("the head says that the volume has {} bytes; {} are the most that "
                                "can be looked at",
                                head.size, kImageBlocksMax * kBlockBytes));
  }
  std::unique_ptr<VolumeImage> image(
      new VolumeImage(std::move(place), std::move(head), std::move(on_lost)));
  USBD_CO_TRY_VOID(co_await image->read_checkpoint());
  USBD_CO_TRY_VOID(co_await image->read_directories());
  co_await image->count_live();
  co_return image;
}

const ImageObject* VolumeImage::object(uint32_t slot) const {
  if (slot >= objects_.size() || objects_[slot].facts.state == ObjectState::kFree) return nullptr;
  return &objects_[slot];
}

uint32_t VolumeImage::find(const ObjectId& id) const {
  const auto found = slots_.find(id);
  return found == slots_.end() ? 0 : found->second;
}

Result<void> VolumeImage::lose(LostPart part) {
  if (!on_lost_ || !is_of_the_object(part.error)) return part.error;
  uncertain_.add(part.blocks);
  on_lost_(part);
  return {};
}

// --- the checkpoint
// -------------------------------------------------------------------------------

Task<Result<void>> VolumeImage::read_checkpoint() {
  if (head_.root.stored == 0) co_return Result<void>();
  const CheckpointPlace where(*place_.store, place_.volume, seal());
  CheckpointReader reader(where, place_.limits.stop);
  const std::string name = map_name(place_.volume, head_.root.epoch, head_.root.id);
  Result<CheckpointRoot> root = co_await reader.read_root(pointer_of(head_.root));
  if (root && (root->blocks != map_->blocks() || root->last_seq != head_.root.covers_seq)) {
    root = Error(
        Errc::kInvalid,
        fmt::format("{}: the checkpoint covers objects up to {} of a volume of {} blocks, "
                    "and the head says {} and {}",
                    name, root->last_seq, root->blocks, head_.root.covers_seq, map_->blocks()));
  }
  if (!root) {
    co_return lose({.object = name, .error = root.error(), .blocks = all_blocks()});
  }
  root_ = *std::move(root);
  ObjectTable table;
  const Result<void> read = co_await reader.read_pages(*root_, *map_, table);
  if (read) {
    adopt(table);
    co_return Result<void>();
  }
  if (!on_lost_ || !is_of_the_object(read.error())) co_return read;
  co_return co_await read_pages_one_by_one();
}

/// After something in the pages was wrong: all that can be read of them, and what cannot.
Task<Result<void>> VolumeImage::read_pages_one_by_one() {
  map_ = std::make_unique<BlockMap>(map_->blocks());
  ObjectTable table;
  bool lost = false;
  for (const PageRef& ref : root_->map_pages) {
    const Result<void> read = co_await read_map_page(ref, *map_);
    if (read) continue;
    lost = true;
    const uint64_t page_blocks = uint64_t{kPageLeaves} * kLeafBlocks;
    const BlockRange blocks(ref.page * page_blocks, page_blocks);
    USBD_CO_TRY_VOID(
        lose({.object = map_name(place_.volume, ref.piece.object.epoch, ref.piece.object.id),
              .error = read.error(),
              .blocks = {blocks.first, std::min(blocks.end(), map_->blocks()) -
                                           std::min(blocks.first, map_->blocks())}}));
  }
  for (const PageRef& ref : root_->table_pages) {
    const Result<void> read = co_await read_table_page(ref, table);
    if (read) continue;
    lost = true;
    // Which blocks are in its objects, the map says.
    USBD_CO_TRY_VOID(
        lose({.object = map_name(place_.volume, ref.piece.object.epoch, ref.piece.object.id),
              .error = read.error(),
              .blocks = {}}));
  }
  adopt(table);
  if (lost) co_return Result<void>();
  co_return lose({.object = map_name(place_.volume, head_.root.epoch, head_.root.id),
                  .error = Error(Errc::kInvalid, "the checkpoint's map and object table disagree"),
                  .blocks = all_blocks()});
}

Task<Result<std::vector<std::byte>>> VolumeImage::read_page(PageRef ref, PieceKind kind) {
  const MapObjectId id = ref.piece.object;
  const std::string name = map_name(place_.volume, id.epoch, id.id);
  const auto object = std::ranges::lower_bound(root_->objects, id, {}, &MapObject::id);
  if (object == root_->objects.end() || object->id != id) {
    co_return Error(Errc::kInvalid, name + ": the root does not list this object");
  }
  const ByteRange range = ref.piece.range();
  const objects::Part part = objects::Part::range(range.offset, range.length);
  USBD_CO_TRY(const objects::Fetched fetched,
              co_await place_.store->get(name, part, place_.limits));
  USBD_CO_TRY(const PieceReader pieces, PieceReader::create(seal(), id, object->salt));
  const PieceLabel label{.kind = kind, .page = ref.page};
  Result<std::vector<std::byte>> plain = pieces.open(label, ref.piece, fetched.data);
  if (plain) co_return plain;
  co_return Error(plain.error().code(), name + ": " + plain.error().context());
}

Task<Result<void>> VolumeImage::read_map_page(PageRef ref, BlockMap& map) {
  USBD_CO_TRY(const std::vector<std::byte> plain, co_await read_page(ref, PieceKind::kMapPage));
  if (ref.page >= map_pages(map)) {
    co_return Error(Errc::kInvalid,
                    fmt::format("page {} of the map is beyond the volume", ref.page));
  }
  co_return decode_map_page(map, ref.page, plain);
}

Task<Result<void>> VolumeImage::read_table_page(PageRef ref, ObjectTable& table) {
  USBD_CO_TRY(const std::vector<std::byte> plain, co_await read_page(ref, PieceKind::kTablePage));
  co_return table.decode_page(ref.page, plain);
}

void VolumeImage::adopt(const ObjectTable& table) {
  uint32_t end = std::max(table.slots_end(), 1U);
  // Slots of pages that were lost mean objects all the same.
  for (const PageRef& ref : root_->table_pages) {
    end = std::max(end, std::min<uint32_t>(ref.page, limits::kDataObjectsMax / kTablePageSlots) *
                                kTablePageSlots +
                            kTablePageSlots);
  }
  ImageObject none;
  none.facts.state = ObjectState::kFree;
  objects_.assign(end, none);
  table.for_each([this](uint32_t slot, const ObjectFacts& facts) {
    objects_[slot] = {.facts = facts, .live = 0, .extents = {}, .lost = false};
    slots_.emplace(facts.id, slot);
  });
  first_later_ = end;
}

// --- what came later
// ------------------------------------------------------------------------------

Task<void> VolumeImage::read_directory(uint64_t seq, std::optional<Result<FetchedDirectory>>& out) {
  const ObjectId id{.epoch = head_.epoch_of(seq), .seq = seq, .kind = ObjectKind::kData};
  out.emplace(co_await fetch_directory(place_, seal(), id));
}

Task<Result<void>> VolumeImage::read_directories() {
  const uint64_t last = head_.last_seq;
  uint64_t next = head_.root.covers_seq + 1;
  if (last >= next && last - next >= limits::kDataObjectsMax - objects_.size()) {
    co_return Error(Errc::kInvalid,
                    fmt::format("the head names {} data objects behind its checkpoint, which are "
                                "more than a volume has",
                                last - next + 1));
  }
  while (next <= last) {
    const uint64_t first = next;
    const auto count = std::min<uint64_t>(last + 1 - first, limits::kCheckFetchesMax);
    std::vector<std::optional<Result<FetchedDirectory>>> found(count);
    Scope some;
    for (; next < first + count; ++next) some.spawn(read_directory(next, found[next - first]));
    co_await some.close();
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t seq = first + i;
      const ObjectId id{.epoch = head_.epoch_of(seq), .seq = seq, .kind = ObjectKind::kData};
      USBD_CO_TRY_VOID(take(id, *found[i]));
    }
  }
  co_return Result<void>();
}

Result<void> VolumeImage::take(const ObjectId& id, const Result<FetchedDirectory>& fetched) {
  const auto slot = static_cast<uint32_t>(objects_.size());
  ImageObject& object = objects_.emplace_back();
  object.facts.id = id;
  slots_.emplace(id, slot);
  std::optional<Error> wrong;
  if (!fetched) {
    wrong = fetched.error();
  } else {
    for (const Extent& extent : fetched->directory.extents()) {
      const BlockRange blocks(extent.block, extent.blocks);
      if (blocks.end() <= map_->blocks()) continue;
      wrong = Error(Errc::kDamaged,
                    fmt::format("{}: it holds block {}, but the volume has {}",
                                data_name(place_.volume, id), blocks.end() - 1, map_->blocks()));
    }
  }
  if (wrong) {
    object.lost = true;
    return lose({.object = data_name(place_.volume, id), .error = *wrong, .blocks = all_blocks()});
  }
  const Directory& directory = fetched->directory;
  object.facts.object_bytes = fetched->object_bytes;
  for (const FrameInfo& frame : directory.frames()) object.facts.stored_bytes += frame.stored;
  object.facts.blocks = static_cast<uint32_t>(directory.header().data_blocks);
  object.facts.first_write = directory.first_write();
  object.facts.last_write = directory.last_write();
  object.extents = directory.header().extents;
  const BlockMap::Replaced nothing = [](uint32_t, uint32_t) {};
  for (const Extent& extent : directory.extents()) {
    const BlockRange blocks(extent.block, extent.blocks);
    const bool data = extent.kind == ExtentKind::kData;
    map_->set(blocks, data ? Location{.slot = slot, .position = extent.position.value} : Location{},
              nothing);
    if (!uncertain_.empty()) uncertain_.remove(blocks);
  }
  return {};
}

Task<void> VolumeImage::count_live() {
  for (uint64_t leaf = 0; leaf < map_->leaves(); ++leaf) {
    const uint64_t first = leaf * kLeafBlocks;
    const BlockRange blocks(first, std::min<uint64_t>(kLeafBlocks, map_->blocks() - first));
    for (const MappedRun& run : map_->find(blocks)) {
      const uint32_t slot = run.location.slot;
      if (slot > 0 && slot < objects_.size()) objects_[slot].live += run.blocks.count;
    }
    if (leaf % kPageLeaves == kPageLeaves - 1) co_await Loop::current().schedule();
  }
}

}  // namespace usbd::objstore

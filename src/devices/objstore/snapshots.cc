// SPDX-License-Identifier: Apache-2.0
//
// The image of a snapshot is read as that of a volume is: its head is the volume's, but ends where
// the snapshot does.

#include "devices/objstore/snapshots.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "devices/objstore/checkpoint.h"
#include "devices/objstore/names.h"

namespace usbd::objstore {

Result<PiecePointer> to_piece(const RootPointer& root) {
  const PiecePointer pointer{.object = {.epoch = root.epoch, .id = root.id},
                             .offset = static_cast<uint32_t>(root.offset),
                             .stored = root.stored,
                             .logical = root.logical,
                             .number = root.piece};
  std::string wrong = check(pointer);
  if (root.offset > UINT32_MAX) wrong = fmt::format("{} is beyond its object", root.offset);
  if (wrong.empty()) return pointer;
  return Error(Errc::kDamaged, "the head does not say where the checkpoint is: " + wrong);
}

RootPointer to_pointer(const PiecePointer& root, uint64_t covers_seq) {
  return {.epoch = root.object.epoch,
          .id = root.object.id,
          .offset = root.offset,
          .stored = root.stored,
          .logical = root.logical,
          .piece = root.number,
          .covers_seq = covers_seq};
}

Head head_of_snapshot(const Head& head, const SnapshotRef& snapshot) {
  Head then = head;
  then.root = to_pointer(snapshot.root, snapshot.last_seq);
  then.last_seq = snapshot.last_seq;
  then.published_number = snapshot.last_write;
  then.epochs.clear();
  return then;
}

Task<Result<std::vector<SnapshotRef>>> read_snapshots(ImagePlace place, Head head) {
  if (head.root.stored == 0) co_return std::vector<SnapshotRef>();
  USBD_CO_TRY(const PiecePointer pointer, to_piece(head.root));
  const VolumeSeal seal{.volume = head.volume, .cipher = head.cipher, .key = place.key};
  const CheckpointPlace where(*place.store, place.volume, seal);
  CheckpointReader reader(where, place.limits.stop);
  USBD_CO_TRY(CheckpointRoot root, co_await reader.read_root(pointer));
  co_return std::move(root.snapshots);
}

Task<Result<std::unique_ptr<VolumeImage>>> load_snapshot(ImagePlace place, Head head,
                                                         uint64_t number,
                                                         VolumeImage::OnLost on_lost) {
  USBD_CO_TRY(const std::vector<SnapshotRef> all, co_await read_snapshots(place, head));
  const auto found = std::ranges::find(all, number, &SnapshotRef::number);
  if (found == all.end()) {
    co_return Error(Errc::kNotFound,
                    fmt::format("{}: there is no snapshot {}", place.volume, number));
  }
  Head then = head_of_snapshot(head, *found);
  const std::string name = map_name(place.volume, then.root.epoch, then.root.id);
  USBD_CO_TRY(std::unique_ptr<VolumeImage> image,
              co_await VolumeImage::load(std::move(place), std::move(then), std::move(on_lost)));
  const std::optional<CheckpointRoot>& root = image->root();
  if (root && (root->number != number || root->last_write != found->last_write)) {
    co_return Error(Errc::kInvalid,
                    fmt::format("{}: it is checkpoint {} up to write {}, and is to be snapshot {} "
                                "up to write {}",
                                name, root->number, root->last_write, number, found->last_write));
  }
  co_return std::move(image);
}

std::set<MapObjectId> map_objects_of(const CheckpointRoot& root, const MapObjectId& its_own) {
  std::set<MapObjectId> ids{its_own};
  for (const MapObject& object : root.objects) ids.insert(object.id);
  return ids;
}

// --- blocks
// ---------------------------------------------------------------------------------------

ImageReader::ImageReader(const ImagePlace& place, const VolumeImage& image, std::stop_token stop)
    : image_(image),
      reader_({.store = *place.store,
               .volume = place.volume,
               .seal = image.seal(),
               .workers = nullptr,
               .stop = std::move(stop)}) {}

Task<Result<void>> ImageReader::read(uint64_t first_block, MutableBytes data) {
  USBD_ASSERT(data.size() % kBlockBytes == 0);
  const BlockRange range(first_block, data.size() / kBlockBytes);
  USBD_ASSERT(range.end() <= image_.map().blocks());
  if (!image_.uncertain().within(range).empty()) {
    co_return Error(Errc::kIo, fmt::format("blocks {} to {}: it is not known where they are",
                                           range.first, range.end() - 1));
  }
  std::vector<ReadPiece> pieces;
  for (const MappedRun& run : image_.map().find(range)) {
    const MutableBytes out = data.subspan((run.blocks.first - range.first) * kBlockBytes,
                                          run.blocks.count * kBlockBytes);
    if (run.location.slot == 0) {
      std::memset(out.data(), 0, out.size());
      continue;
    }
    const ImageObject* const object = image_.object(run.location.slot);
    if (object == nullptr) {
      co_return Error(Errc::kIo,
                      fmt::format("block {}: its object is not known", run.blocks.first));
    }
    pieces.push_back({.blocks = run.blocks, .location = run.location, .id = object->facts.id});
    pieces.back().out = out;
  }
  co_await reader_.read(pieces, ObjectReader::Effort::kNormal);
  for (const ReadPiece& piece : pieces) {
    if (piece.error) co_return *piece.error;
  }
  co_return Result<void>();
}

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// Snapshots of a volume, looked at from outside: which there are, what the volume was then, and its
// blocks. A snapshot is a checkpoint that is kept (docs/formats/checkpoint.md); Volume makes and
// deletes them (volume_snapshot.cc).

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "devices/objstore/checkpoint_root.h"
#include "devices/objstore/object_reader.h"
#include "devices/objstore/volume_image.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::objstore {

/// What whoever takes a snapshot says of it.
struct SnapshotLabel {
  /// No other snapshot of the volume has it; may be empty. Range: check_snapshot_name().
  std::string name = {};
  /// Units: ns since 1970, UTC.
  uint64_t time = 0;
};

/// The root that the head points at, as a pointer to a piece.
/// Errors: kDamaged: there cannot be one.
Result<PiecePointer> to_piece(const RootPointer& root);
[[nodiscard]] RootPointer to_pointer(const PiecePointer& root, uint64_t covers_seq);

/// The head as it would be if the snapshot were all that was ever published.
[[nodiscard]] Head head_of_snapshot(const Head& head, const SnapshotRef& snapshot);

/// The snapshots that the head leads to, in order of their numbers. Lifetime: `place` outlives it.
/// Errors: those of CheckpointReader::read_root().
Task<Result<std::vector<SnapshotRef>>> read_snapshots(ImagePlace place, Head head);

/// Opens the image of a snapshot.
/// Lifetime: as VolumeImage::load(). Errors: kNotFound: there is no such snapshot; kInvalid: its
/// root is that of another checkpoint; as VolumeImage::load() and read_snapshots().
Task<Result<std::unique_ptr<VolumeImage>>> load_snapshot(ImagePlace place, Head head,
                                                         uint64_t number,
                                                         VolumeImage::OnLost on_lost);

/// The objects of checkpoints that a root needs, its own included.
[[nodiscard]] std::set<MapObjectId> map_objects_of(const CheckpointRoot& root,
                                                   const MapObjectId& its_own);

/// Reads blocks of an image. Threads: one loop's.
class ImageReader {
 public:
  /// Lifetime: place and image outlive it.
  ImageReader(const ImagePlace& place, const VolumeImage& image, std::stop_token stop = {});

  /// Reads whole blocks. Range: inside the volume, asserted. Lifetime: `data` until it has
  /// finished. Errors: kNotFound: an object is gone; kIo, kAccess: what is there is not what was
  /// stored, or
  ///         it is not known where the blocks are; those of ObjectStore::get().
  Task<Result<void>> read(uint64_t first_block, MutableBytes data);
  /// To be called last.
  Task<void> close() { return reader_.close(); }

 private:
  const VolumeImage& image_;
  ObjectReader reader_;
};

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// SnapshotPins: which data objects the snapshots of a volume need. It is not kept anywhere: it
// follows from what a root says of each snapshot, and from the object table.
//
// Blocks are mapped to an object when it is taken in, and never again. So the checkpoints whose map
// points at an object are an unbroken row: from the first after it was taken in, to the last before
// it was empty. A snapshot is one of the checkpoints. Which objects were there at its moment is
// said by three numbers; which of them were empty, by the table
// (docs/adr/0011-snapshots-are-rows.md).

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "devices/objstore/checkpoint_root.h"
#include "devices/objstore/data_object.h"

namespace usbd::objstore {

/// The moment of a snapshot: which objects had been taken in by then.
struct PinLine {
  /// The checkpoint that it is; 0: there is no snapshot.
  uint64_t number = 0;
  uint64_t last_seq = 0;
  /// The epoch of its process, and the last object of garbage collection that was taken in.
  uint64_t epoch = 0;
  uint64_t last_moved = 0;

  [[nodiscard]] bool covers(const ObjectId& id) const {
    if (id.kind == ObjectKind::kData) return id.seq <= last_seq;
    return id.epoch < epoch || (id.epoch == epoch && id.seq <= last_moved);
  }
  friend bool operator==(const PinLine&, const PinLine&) = default;
};

/// Threads: one at a time.
class SnapshotPins {
 public:
  SnapshotPins() = default;
  /// Pins what any of both needs: the lists of two roots. Range: each is in order of numbers.
  explicit SnapshotPins(std::span<const SnapshotRef> one, std::span<const SnapshotRef> other = {});

  /// `pending_since`: the first checkpoint that lists it as holding nothing; 0: it is in use.
  [[nodiscard]] bool needs(const ObjectId& id, uint64_t pending_since) const;
  /// By which an object that is in use is pinned; covers nothing if there is no snapshot.
  [[nodiscard]] PinLine newest() const { return lines_.empty() ? PinLine() : lines_.back(); }

  friend bool operator==(const SnapshotPins&, const SnapshotPins&) = default;

 private:
  /// In order; what one covers the next covers, too.
  std::vector<PinLine> lines_;
};

}  // namespace usbd::objstore

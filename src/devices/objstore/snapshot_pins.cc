// SPDX-License-Identifier: Apache-2.0
//
// Only the last snapshot before an object was empty has to be asked: what an earlier one covers,
// that one covers.

#include "devices/objstore/snapshot_pins.h"

#include <algorithm>

namespace usbd::objstore {

SnapshotPins::SnapshotPins(std::span<const SnapshotRef> one, std::span<const SnapshotRef> other) {
  lines_.reserve(one.size() + other.size());
  for (const std::span<const SnapshotRef>& list : {one, other}) {
    for (const SnapshotRef& ref : list) {
      lines_.push_back({.number = ref.number,
                        .last_seq = ref.last_seq,
                        .epoch = ref.root.object.epoch,
                        .last_moved = ref.last_moved});
    }
  }
  std::ranges::sort(lines_, {}, &PinLine::number);
  lines_.erase(std::ranges::unique(lines_, {}, &PinLine::number).begin(), lines_.end());
}

bool SnapshotPins::needs(const ObjectId& id, uint64_t pending_since) const {
  auto end = lines_.end();
  if (pending_since > 0) {
    end = std::ranges::lower_bound(lines_, pending_since, {}, &PinLine::number);
  }
  return end != lines_.begin() && std::prev(end)->covers(id);
}

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// What the next checkpoints of a Volume are to do for somebody who takes or deletes a snapshot
// (volume_snapshot.cc). There is one at a time.

#pragma once

#include <cstdint>
#include <vector>

#include "devices/objstore/volume.h"

namespace usbd::objstore {

struct Volume::SnapshotOrder {
  enum class Step : uint8_t {
    kWaits,  ///< Nothing is to be done yet.
    kTakes,  ///< The next checkpoint is the snapshot.
    kLists,  ///< The next root lists it, or does not any more.
    kDone,   ///< The head names that root.
  };

  Step step = Step::kWaits;
  SnapshotLabel label = {};
  /// Whole from kLists on.
  SnapshotRef taken = {};
  /// The snapshot to be deleted; 0: one is taken.
  uint64_t drops = 0;
  std::vector<MapObjectId> freed = {};
  /// The checkpoint that was begun last for this step; 0: none.
  uint64_t attempt = 0;
};

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// What one round of a Volume's garbage collection moves, and where its bytes are meanwhile.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "devices/objstore/volume.h"

namespace usbd::objstore {

/// Blocks that follow each other in the volume and in their object.
struct Volume::LiveRun {
  BlockRange blocks;
  ObjectId id = {};
  Position position = {};
  /// Where the bytes are in the round's memory.
  size_t at = 0;

  [[nodiscard]] Position position_of(uint64_t block) const {
    return {position.value + static_cast<uint32_t>(block)};
  }
  [[nodiscard]] uint32_t first_frame() const { return position.frame(); }
  [[nodiscard]] uint32_t last_frame() const { return position_of(blocks.count - 1).frame(); }
};

struct Volume::CleanJob {
  std::vector<Victim> victims;
  /// The object that is made.
  ObjectId id;
  /// In the order of the volume.
  std::vector<LiveRun> runs;
  uint64_t blocks = 0;
  std::vector<std::byte> data;
};

}  // namespace usbd::objstore

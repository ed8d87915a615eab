// SPDX-License-Identifier: Apache-2.0
//
// Which reads follow each other. A few streams are followed at once; each read either goes on where
// one of them stands or begins a new one in place of the one that was quiet the longest. Only a
// stream that has gone on a few times is read ahead of, so that random reads never cause any.

#pragma once

#include <array>
#include <cstdint>

#include "base/limits.h"
#include "devices/objstore/block_map.h"

namespace usbd::objstore {

/// Threads: one at a time.
class ReadStreams {
 public:
  /// Takes note of a read, and returns what to fetch ahead of those that will come: mostly nothing,
  /// then a window, which grows while the stream goes on. May reach beyond the volume's end.
  [[nodiscard]] BlockRange note(BlockRange read);

 private:
  struct Stream {
    uint64_t next = UINT64_MAX;
    uint64_t ahead_until = 0;
    uint64_t window = limits::kReadAheadBlocksMin;
    unsigned steps = 0;
    uint64_t used = 0;
  };

  BlockRange go_on(Stream& stream, BlockRange read);

  std::array<Stream, limits::kReadStreams> streams_;
  uint64_t uses_ = 0;
};

}  // namespace usbd::objstore

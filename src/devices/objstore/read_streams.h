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
  /// then a window, which grows with what the stream has read. May reach beyond the volume's end.
  [[nodiscard]] BlockRange note(BlockRange read);
  /// Takes note of a read of which note() would return nothing to fetch ahead. Else it returns
  /// false, and note() is still to be called.
  [[nodiscard]] bool note_if_quiet(BlockRange read);

 private:
  struct Stream {
    uint64_t first = UINT64_MAX;
    uint64_t next = UINT64_MAX;
    uint64_t ahead_until = 0;
    unsigned steps = 0;
    uint64_t used = 0;
  };

  /// The stream that a read belongs to, and whether it goes on there rather than comes late.
  struct Found {
    Stream* stream = nullptr;
    bool goes_on = false;
  };
  [[nodiscard]] Found find(BlockRange read);
  [[nodiscard]] static BlockRange window_after(const Stream& stream, BlockRange read);
  BlockRange take(const Found& found, BlockRange read);

  std::array<Stream, limits::kReadStreams> streams_;
  uint64_t uses_ = 0;
};

}  // namespace usbd::objstore

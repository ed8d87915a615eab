// SPDX-License-Identifier: Apache-2.0
//
// SparseImage: the bytes of a volume, of which most may never have been touched; those are zeros
// and take no memory. What the model compares a device with.

#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "usbd/buffer.h"

namespace usbd::testing {

/// Threads: one at a time. Range: no offset is checked.
class SparseImage {
 public:
  static constexpr uint64_t kChunkBytes = 64U << 10;

  void write(uint64_t offset, Bytes data);
  void zero(ByteRange range);
  void read(uint64_t offset, MutableBytes data) const;
  [[nodiscard]] std::byte at(uint64_t offset) const;
  /// Makes `range` what it is in `other`.
  void copy_from(const SparseImage& other, ByteRange range);

  /// The index in `data` of the first byte that differs from the image; data.size() if none does.
  [[nodiscard]] size_t first_difference(uint64_t offset, Bytes data) const;
  /// The first offset of `range` that is not zero; range.end() if there is none.
  [[nodiscard]] uint64_t first_nonzero(ByteRange range) const;

 private:
  using Chunk = std::vector<std::byte>;
  /// A part of a range that lies in one chunk.
  struct Piece {
    uint64_t chunk;
    size_t in_chunk;
    size_t length;
    /// Where the piece begins, from the start of the range.
    size_t in_range;
  };

  [[nodiscard]] static Piece piece_at(ByteRange range, uint64_t done);
  [[nodiscard]] const Chunk* find(uint64_t chunk) const;
  Chunk& make(uint64_t chunk);

  std::unordered_map<uint64_t, Chunk> chunks_;
};

}  // namespace usbd::testing

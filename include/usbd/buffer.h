// SPDX-License-Identifier: Apache-2.0
//
// The words for bytes: views of memory, and ranges of a device. All offsets and lengths are bytes.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace usbd {

/// Memory that may be written. Never owns.
using MutableBytes = std::span<std::byte>;
/// Memory that is only read. Never owns.
using Bytes = std::span<const std::byte>;

/// A part of a device. Units: bytes. `offset + length` never wraps: whoever makes one checks.
struct ByteRange {
  constexpr ByteRange() = default;
  constexpr ByteRange(uint64_t range_offset, uint64_t range_length)
      : offset(range_offset), length(range_length) {}

  [[nodiscard]] constexpr uint64_t end() const { return offset + length; }
  [[nodiscard]] constexpr bool empty() const { return length == 0; }
  [[nodiscard]] constexpr bool overlaps(const ByteRange& other) const {
    return offset < other.end() && other.offset < end();
  }
  [[nodiscard]] constexpr bool contains(const ByteRange& other) const {
    return offset <= other.offset && other.end() <= end();
  }
  friend constexpr bool operator==(const ByteRange&, const ByteRange&) = default;

  uint64_t offset = 0;
  uint64_t length = 0;
};

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// Whether bytes are all zero: reserved fields of formats, the rest of a block behind its contents,
// memory that was wiped.

#pragma once

#include <algorithm>
#include <cstddef>

#include "usbd/buffer.h"

namespace usbd {

/// Whether every byte of `bytes` is zero; true if there are none. Of a format's field:
/// all_zero(wire_bytes(disk.reserved)). Not for secrets: it ends at the first that is not.
[[nodiscard]] inline bool all_zero(Bytes bytes) {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte(0); });
}

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// CRC-32C (Castagnoli), the checksum of everything usbd stores: it finds rot and torn writes, not
// somebody's intent. With the processor's own instruction where it has one, else with tables; both
// give the same.

#pragma once

#include <cstdint>

#include "usbd/buffer.h"

namespace usbd {

/// The checksum of `data`; of all of "ab", if `before` is that of "a" and `data` is "b".
/// Threads: any.
/// Ref:     RFC 3720, 12.1 and B.4; polynomial 0x1EDC6F41, reflected.
[[nodiscard]] uint32_t crc32c(Bytes data, uint32_t before = 0);

/// For tests: each of the ways to compute it.
namespace detail {

[[nodiscard]] uint32_t crc32c_portable(Bytes data, uint32_t before);
/// Whether this processor has the instruction and the build can use it.
[[nodiscard]] bool has_crc32c_instruction();
/// Range: only if has_crc32c_instruction(); asserted.
[[nodiscard]] uint32_t crc32c_hardware(Bytes data, uint32_t before);

}  // namespace detail
}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// Be<T> and Le<T>: an unsigned integer stored in big-endian order, as network protocols send it,
// or in little-endian order, as usbd's own formats keep it. The byte order is in the type, so that
// a struct of them can be filled and read without a conversion being forgotten. Alignment is 1:
// such structs have no padding and may lie anywhere in a buffer.
//
// wire_bytes() and wire_read() are the two ways between such a struct and a buffer.

#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "usbd/buffer.h"

namespace usbd {

template <std::unsigned_integral T, std::endian kOrder>
class Ordered {
 public:
  constexpr Ordered() = default;
  /// Implicit on purpose: a field is assigned and compared like the integer it stands for.
  constexpr Ordered(T value) : bytes_(std::bit_cast<Storage>(swapped(value))) {}
  constexpr operator T() const { return swapped(std::bit_cast<T>(bytes_)); }

 private:
  using Storage = std::array<std::byte, sizeof(T)>;

  static constexpr T swapped(T value) {
    if constexpr (std::endian::native != kOrder && sizeof(T) > 1) {
      return std::byteswap(value);
    } else {
      return value;
    }
  }

  Storage bytes_{};
};

template <std::unsigned_integral T>
using Be = Ordered<T, std::endian::big>;
template <std::unsigned_integral T>
using Le = Ordered<T, std::endian::little>;

using Be16 = Be<uint16_t>;
using Be32 = Be<uint32_t>;
using Be64 = Be<uint64_t>;
using Le16 = Le<uint16_t>;
using Le32 = Le<uint32_t>;
using Le64 = Le<uint64_t>;

static_assert(sizeof(Be64) == 8 && alignof(Be64) == 1 && std::is_trivially_copyable_v<Be64>);

/// A struct that may be copied to and from a wire as it lies in memory.
template <typename T>
concept WireStruct =
    std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> && alignof(T) == 1;

/// The bytes of `value` as they are sent. Lifetime: those of `value`.
template <WireStruct T>
[[nodiscard]] Bytes wire_bytes(const T& value) {
  return std::as_bytes(std::span<const T, 1>(&value, 1));
}

/// Puts the bytes of `value` behind those of `to`.
template <WireStruct T>
void wire_append(std::vector<std::byte>& to, const T& value) {
  const Bytes bytes = wire_bytes(value);
  to.insert(to.end(), bytes.begin(), bytes.end());
}

/// The struct at the start of `from`. Range: caller guarantees from.size() >= sizeof(T).
template <WireStruct T>
[[nodiscard]] T wire_read(Bytes from) {
  T value;
  std::memcpy(&value, from.data(), sizeof(T));
  return value;
}

}  // namespace usbd

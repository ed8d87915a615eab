// SPDX-License-Identifier: Apache-2.0
//
// Objects that say of themselves what they must be: a number, from which size and contents follow.
// Whoever reads one sees whether it is whole, and how old it is.

#pragma once

#include <cstring>
#include <optional>
#include <vector>

#include "base/random.h"
#include "usbd/buffer.h"

namespace usbd::objects::testing {

inline constexpr uint64_t kNumberedBytesMax = 200'000;

/// The contents of number `number`.
inline std::vector<std::byte> numbered(uint64_t number) {
  SeededRng rng(number);
  std::vector<std::byte> data(sizeof(number) + rng.below(kNumberedBytesMax));
  rng.fill(data);
  std::memcpy(data.data(), &number, sizeof(number));
  return data;
}

/// The number of which `data` is the contents; empty: of none.
inline std::optional<uint64_t> number_of(Bytes data) {
  uint64_t number = 0;
  if (data.size() < sizeof(number)) return std::nullopt;
  std::memcpy(&number, data.data(), sizeof(number));
  const std::vector<std::byte> wanted = numbered(number);
  if (data.size() != wanted.size() || std::memcmp(data.data(), wanted.data(), data.size()) != 0) {
    return std::nullopt;
  }
  return number;
}

}  // namespace usbd::objects::testing

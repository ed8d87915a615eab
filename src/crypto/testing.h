// SPDX-License-Identifier: Apache-2.0
//
// For tests: bytes as people publish them, in hex.

#pragma once

#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/assert.h"
#include "usbd/buffer.h"

namespace usbd::crypto {

using ByteVector = std::vector<std::byte>;

/// Range: pairs of hex digits, asserted.
inline ByteVector from_hex(std::string_view text) {
  USBD_ASSERT(text.size() % 2 == 0);
  ByteVector bytes;
  for (size_t i = 0; i < text.size(); i += 2) {
    unsigned char value = 0;
    const auto [end, error] = std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
    USBD_ASSERT(error == std::errc() && end == text.data() + i + 2);
    bytes.push_back(static_cast<std::byte>(value));
  }
  return bytes;
}

inline std::string to_hex(Bytes bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

inline ByteVector from_text(std::string_view text) {
  const Bytes bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

}  // namespace usbd::crypto

// SPDX-License-Identifier: Apache-2.0
//
// Decoders of our own: those of libraries put the key into memory that nobody wipes.

#include "crypto/key_text.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <fmt/format.h>

namespace usbd::crypto {
namespace {

constexpr std::array<size_t, 6> kLengths = {16, 24, 32, 44, 48, 64};
constexpr std::byte kLineFeed{'\n'};
constexpr std::byte kCarriageReturn{'\r'};
constexpr std::byte kPadding{'='};

bool is_length(size_t size) {
  return std::ranges::find(kLengths, size) != kLengths.end();
}
bool is_key_size(size_t size) {
  return size == 16 || size == 24 || size == 32;
}

Bytes without_line_end(Bytes content) {
  const size_t size = content.size();
  if (size < 2 || is_length(size) || content[size - 1] != kLineFeed) return content;
  if (is_length(size - 1)) return content.first(size - 1);
  const bool both = is_length(size - 2) && content[size - 2] == kCarriageReturn;
  return both ? content.first(size - 2) : content;
}

/// -1: no such digit.
int hex_value(std::byte digit) {
  const int c = std::to_integer<int>(digit);
  if (c >= '0' && c <= '9') return c - '0';
  const int lower = c | 0x20;
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

int base64_value(std::byte digit) {
  const int c = std::to_integer<int>(digit);
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  return c == '/' ? 63 : -1;
}

std::optional<Secret> from_hex(Bytes text) {
  if (text.size() % 2 != 0 || !is_key_size(text.size() / 2)) return std::nullopt;
  Secret key(text.size() / 2);
  for (size_t i = 0; i < key.size(); ++i) {
    const int high = hex_value(text[2 * i]);
    const int low = hex_value(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    key.writable()[i] = static_cast<std::byte>(high * 16 + low);
  }
  return key;
}

/// What four digits hold, the last `padded` of them being padding; false unless the bits that no
/// byte takes are zero.
bool decode_four(Bytes digits, size_t padded, MutableBytes bytes) {
  unsigned bits = 0;
  for (size_t i = 0; i < 4; ++i) {
    const bool padding = i >= 4 - padded;
    const int value = padding ? 0 : base64_value(digits[i]);
    if (value < 0 || (padding && digits[i] != kPadding)) return false;
    bits = bits << 6U | static_cast<unsigned>(value);
  }
  for (size_t i = 0; i < 3 - padded; ++i) {
    bytes[i] = static_cast<std::byte>(bits >> (16 - 8 * i));
  }
  return (bits & ((1U << (8 * padded)) - 1)) == 0;
}

std::optional<Secret> from_base64(Bytes text) {
  if (text.size() < 4 || text.size() % 4 != 0) return std::nullopt;
  const Bytes last_two = text.last(2);
  const auto padded = static_cast<size_t>(std::ranges::count(last_two, kPadding));
  const size_t size = text.size() / 4 * 3 - padded;
  if (!is_key_size(size)) return std::nullopt;
  Secret key(size);
  for (size_t at = 0; at < text.size(); at += 4) {
    const size_t missing = at + 4 == text.size() ? padded : 0;
    const MutableBytes three = key.writable().subspan(at / 4 * 3, 3 - missing);
    if (!decode_four(text.subspan(at, 4), missing, three)) return std::nullopt;
  }
  return key;
}

}  // namespace

Result<Secret> decode_key(Bytes content) {
  const Bytes text = without_line_end(content);
  if (std::optional<Secret> key = from_hex(text)) return std::move(*key);
  if (std::optional<Secret> key = from_base64(text)) return std::move(*key);
  if (is_key_size(text.size())) return Secret(text);
  return Error(
      Errc::kInvalid,
      fmt::format("these {} bytes are no key: a key is 16, 24 or 32 bytes, or these as 32, "
                  "48 or 64 hex digits, or as 24, 32 or 44 characters of base64",
                  content.size()));
}

}  // namespace usbd::crypto

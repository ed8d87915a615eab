// SPDX-License-Identifier: Apache-2.0
//
// UTF-8 checking after the table of well-formed byte sequences in the Unicode standard (3.9, D92).

#include "frontends/nbd/text.h"

#include <cstddef>

#include <fmt/format.h>

namespace usbd::nbd {
namespace {

constexpr size_t kQuotedMax = 128;

unsigned byte_at(std::string_view text, size_t index) {
  return static_cast<unsigned char>(text[index]);
}

/// The second byte's allowed range, which for some first bytes is narrower than 0x80 to 0xbf.
bool second_byte_fits(unsigned first, unsigned second) {
  const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  return second >= low && second <= high;
}

/// The length of the well-formed character at the start of `text`; 0: there is none.
size_t character_length(std::string_view text) {
  const unsigned first = byte_at(text, 0);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (text.size() < length || !second_byte_fits(first, byte_at(text, 1))) return 0;
  for (size_t i = 2; i < length; ++i) {
    if ((byte_at(text, i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

bool is_control(unsigned byte) {
  return byte < 0x20 || byte == 0x7f;
}

}  // namespace

bool is_valid_text(std::string_view text) {
  while (!text.empty()) {
    const size_t length = character_length(text);
    if (length == 0 || text[0] == '\0') return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string readable(std::string_view text) {
  const bool shortened = text.size() > kQuotedMax;
  std::string out = "\"";
  for (size_t i = 0; i < text.size() && i < kQuotedMax;) {
    const size_t length = character_length(text.substr(i));
    if (length == 0 || is_control(byte_at(text, i))) {
      out += fmt::format("\\x{:02x}", byte_at(text, i));
      ++i;
    } else {
      if (text[i] == '"' || text[i] == '\\') out += '\\';
      out += text.substr(i, length);
      i += length;
    }
  }
  out += shortened ? "\"..." : "\"";
  return out;
}

}  // namespace usbd::nbd

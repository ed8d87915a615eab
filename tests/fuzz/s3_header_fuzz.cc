// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the values of headers (Content-Range, lengths, tags) and percent-encoding.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "fuzz/input.h"
#include "objects/s3/encoding.h"
#include "objects/s3/s3_answers.h"

using usbd::fuzz::promise;
namespace s3 = usbd::objects::s3;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto range = s3::parse_content_range(text)) {
    promise(range->first <= range->last && range->last < range->total, "a range is one");
    const std::string again = "bytes " + std::to_string(range->first) + "-" +
                              std::to_string(range->last) + "/" + std::to_string(range->total);
    const auto same = s3::parse_content_range(again);
    promise(same && same->first == range->first && same->last == range->last &&
                same->total == range->total,
            "a range reads as it was written");
  }
  if (const auto number = s3::parse_number(text)) {
    promise(s3::parse_number(std::to_string(*number)) == number, "a number reads as written");
  }
  promise(s3::bare_tag(text).size() <= size, "a tag loses only its quotes");
  promise(s3::printable(text).size() <= 200, "what people see is short");
  const std::string encoded = s3::percent_encode(text, s3::KeepSlash::kNo);
  promise(s3::percent_decode(encoded) == std::string(text), "what is encoded is decoded");
  if (const auto decoded = s3::percent_decode(text)) {
    promise(decoded->size() <= size, "decoding makes nothing longer");
  }
  s3::to_hex(std::as_bytes(std::span(text)));
  s3::to_lower(text);
  return 0;
}

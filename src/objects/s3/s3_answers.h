// SPDX-License-Identifier: Apache-2.0
//
// What S3 servers answer, read with suspicion: pages of listings and error documents (XML without
// document types or entities of its own), Content-Range, tags and lengths. All of these come from
// the network, and are fuzzed (tests/fuzz/s3_*_fuzz.cc).

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "objects/object_store.h"
#include "usbd/result.h"

namespace usbd::objects::s3 {

struct ListAnswer {
  /// As the server sent them; names decoded.
  std::vector<ObjectInfo> objects;
  bool truncated = false;
  std::string next_token;
};

/// Reads the answer to ListObjectsV2. Errors: kIo, saying what is wrong with it.
Result<ListAnswer> parse_list(std::string_view xml);

struct ErrorAnswer {
  std::string code;
  std::string message;
  /// The region that the bucket is in, if the error says so.
  std::string region;
};

/// Reads an error document; all empty if it is none. What it holds is printable and short.
ErrorAnswer parse_error(std::string_view xml);

struct ContentRange {
  uint64_t first = 0;
  /// The last byte itself.
  uint64_t last = 0;
  uint64_t total = 0;
};

/// Reads `bytes 0-9/100`. None: anything else, a range of unknown total among it, or one that
/// contradicts itself. Ref: RFC 9110, 14.4.
std::optional<ContentRange> parse_content_range(std::string_view value);

/// A whole number in decimal digits and nothing else.
std::optional<uint64_t> parse_number(std::string_view text);

/// An ETag without its quotes and its mark of weakness.
std::string bare_tag(std::string_view value);

/// Text of a server for people: one line, at most 200 bytes, no control characters.
std::string printable(std::string_view text);

}  // namespace usbd::objects::s3

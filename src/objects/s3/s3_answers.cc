// SPDX-License-Identifier: Apache-2.0
//
// The parsers. pugixml reads no document types, so no document can make it expand anything; one
// that tries is refused as a whole.

#include "objects/s3/s3_answers.h"

#include <charconv>
#include <cstring>

#include <pugixml.hpp>

#include "objects/s3/encoding.h"

namespace usbd::objects::s3 {
namespace {

constexpr size_t kPrintableMax = 200;

bool load(pugi::xml_document& document, std::string_view xml) {
  if (xml.find("<!DOCTYPE") != std::string_view::npos) return false;
  return static_cast<bool>(
      document.load_buffer(xml.data(), xml.size(), pugi::parse_default, pugi::encoding_utf8));
}

Error bad_list(const char* what) {
  return Error(Errc::kIo, std::string("a listing ") + what);
}

Result<ObjectInfo> parse_object(const pugi::xml_node& node, bool encoded) {
  const char* const key = node.child_value("Key");
  if (*key == '\0') return bad_list("with an object that has no name");
  std::optional<std::string> name = encoded ? percent_decode(key) : std::string(key);
  if (!name.has_value()) return bad_list("with a name that is not encoded as it says");
  const std::optional<uint64_t> size = parse_number(node.child_value("Size"));
  if (!size.has_value()) return bad_list("with an object whose size is no number");
  return ObjectInfo{*std::move(name), *size, bare_tag(node.child_value("ETag"))};
}

}  // namespace

Result<ListAnswer> parse_list(std::string_view xml) {
  pugi::xml_document document;
  if (!load(document, xml)) return bad_list("that is not XML");
  const pugi::xml_node root = document.child("ListBucketResult");
  if (!root) return bad_list("that holds something else");
  const bool encoded = std::strcmp(root.child_value("EncodingType"), "url") == 0;
  ListAnswer answer;
  for (const pugi::xml_node node : root.children("Contents")) {
    if (answer.objects.size() == kListPageMax) return bad_list("of more than was asked for");
    USBD_TRY(ObjectInfo object, parse_object(node, encoded));
    answer.objects.push_back(std::move(object));
  }
  const std::string_view truncated = root.child_value("IsTruncated");
  if (truncated != "true" && truncated != "false") {
    return bad_list("that does not say whether it is complete");
  }
  answer.truncated = truncated == "true";
  answer.next_token = root.child_value("NextContinuationToken");
  return answer;
}

ErrorAnswer parse_error(std::string_view xml) {
  pugi::xml_document document;
  if (!load(document, xml)) return {};
  const pugi::xml_node root = document.child("Error");
  return {.code = printable(root.child_value("Code")),
          .message = printable(root.child_value("Message")),
          .region = printable(root.child_value("Region"))};
}

std::optional<ContentRange> parse_content_range(std::string_view value) {
  constexpr std::string_view kUnit = "bytes ";
  if (!value.starts_with(kUnit)) return std::nullopt;
  value.remove_prefix(kUnit.size());
  const size_t dash = value.find('-');
  const size_t slash = value.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || slash < dash) {
    return std::nullopt;
  }
  const auto first = parse_number(value.substr(0, dash));
  const auto last = parse_number(value.substr(dash + 1, slash - dash - 1));
  const auto total = parse_number(value.substr(slash + 1));
  if (!first || !last || !total || *first > *last || *last >= *total) return std::nullopt;
  return ContentRange{*first, *last, *total};
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc() || stop != end) return std::nullopt;
  return value;
}

std::string bare_tag(std::string_view value) {
  value = trim(value);
  if (value.starts_with("W/")) value.remove_prefix(2);
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
    value = value.substr(1, value.size() - 2);
  }
  return std::string(value);
}

std::string printable(std::string_view text) {
  std::string line(trim(text).substr(0, kPrintableMax));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return line;
}

}  // namespace usbd::objects::s3

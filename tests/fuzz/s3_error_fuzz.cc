// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes error answers of S3 servers: the first line holds the status, the method and, behind
// blanks, a region and a date; the rest is the document.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "fuzz/input.h"
#include "objects/s3/s3_errors.h"

using usbd::fuzz::promise;

namespace {

bool is_printable(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F; });
}

std::string take_word(std::string_view& line) {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string word(line.substr(0, end));
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string_view line = text.substr(0, text.find('\n'));
  const std::string_view body = text.substr(std::min(line.size() + 1, text.size()));
  usbd::objects::HttpResponse response;
  const auto status = usbd::objects::s3::parse_number(take_word(line));
  response.status = static_cast<int>(status.value_or(403) % 1000);
  const std::string method = take_word(line);
  response.headers.emplace_back("x-amz-bucket-region", take_word(line));
  response.headers.emplace_back("date", std::string(line));
  const auto bytes = std::as_bytes(std::span(body));
  response.body.assign(bytes.begin(), bytes.end());

  const usbd::Error error = usbd::objects::s3::error_of(response, "GET s3://b/o");
  promise(error.context().starts_with("GET s3://b/o: "), "an error says what was asked");
  promise(error.context().size() < 1000, "an error is short");
  promise(is_printable(error.context()), "an error is one printable line");
  const bool gone = usbd::objects::s3::says_no_object(response);
  promise(!gone || response.status == 404, "only 404 is no object");
  usbd::objects::s3::says_expired(response, method);
  return 0;
}

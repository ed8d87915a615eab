// SPDX-License-Identifier: Apache-2.0
//
// A cursor over an option's data, and the options whose data has a form.

#include "frontends/nbd/option_data.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>

#include "frontends/nbd/text.h"

namespace usbd::nbd {
namespace {

Error invalid(std::string message) {
  return Error(Errc::kInvalid, std::move(message));
}

std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Result<std::string_view> checked_text(Bytes bytes, std::string_view what) {
  const std::string_view text = as_text(bytes);
  if (text.size() > kStringMax) {
    return invalid(
        fmt::format("the {} has {} bytes, at most {} are allowed", what, text.size(), kStringMax));
  }
  if (!is_valid_text(text)) {
    return invalid(fmt::format("the {} {} is not UTF-8 without NUL", what, readable(text)));
  }
  return text;
}

/// Takes fields from front to back; no take reaches beyond the end.
class Cursor {
 public:
  explicit Cursor(Bytes data) : rest_(data) {}

  template <typename T>
  Result<T> number(std::string_view what) {
    if (rest_.size() < sizeof(T)) {
      return invalid(fmt::format("the option's data ends before the {}", what));
    }
    const T value = wire_read<Be<T>>(rest_);
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }

  /// A 32-bit length and as many bytes of text.
  Result<std::string_view> text(std::string_view what) {
    USBD_TRY(const uint32_t length, number<uint32_t>(what));
    if (length > rest_.size()) {
      return invalid(
          fmt::format("the {} is said to have {} bytes, {} are left", what, length, rest_.size()));
    }
    const Bytes bytes = rest_.first(length);
    rest_ = rest_.subspan(length);
    return checked_text(bytes, what);
  }

  [[nodiscard]] Result<void> end() const {
    if (rest_.empty()) return {};
    return invalid(fmt::format("{} bytes follow the end of the option's data", rest_.size()));
  }

 private:
  Bytes rest_;
};

Result<void> check_count(uint32_t count, uint32_t count_max, std::string_view what) {
  if (count <= count_max) return {};
  return Error(Errc::kOverflow,
               fmt::format("{} {} in one option, at most {} are allowed", count, what, count_max));
}

}  // namespace

bool ExportRequest::wants(Info info) const {
  return std::ranges::find(wanted, info) != wanted.end();
}

Result<ExportRequest> parse_export_request(Bytes data, uint32_t info_requests_max) {
  Cursor cursor(data);
  ExportRequest request;
  USBD_TRY(request.name, cursor.text("export name"));
  USBD_TRY(const uint16_t count, cursor.number<uint16_t>("number of information requests"));
  USBD_TRY_VOID(check_count(count, info_requests_max, "information requests"));
  for (unsigned i = 0; i < count; ++i) {
    USBD_TRY(const uint16_t info, cursor.number<uint16_t>("last information request"));
    request.wanted.push_back(static_cast<Info>(info));
  }
  USBD_TRY_VOID(cursor.end());
  return request;
}

Result<MetaContextRequest> parse_meta_context_request(Bytes data, uint32_t queries_max) {
  Cursor cursor(data);
  MetaContextRequest request;
  USBD_TRY(request.name, cursor.text("export name"));
  USBD_TRY(const uint32_t count, cursor.number<uint32_t>("number of queries"));
  USBD_TRY_VOID(check_count(count, queries_max, "queries"));
  for (uint32_t i = 0; i < count; ++i) {
    USBD_TRY(const std::string_view query, cursor.text("query"));
    if (query.find(':') == std::string_view::npos) {
      return invalid(fmt::format("the query {} has no namespace and colon", readable(query)));
    }
    request.queries.push_back(query);
  }
  USBD_TRY_VOID(cursor.end());
  return request;
}

Result<std::string_view> parse_export_name(Bytes data) {
  return checked_text(data, "export name");
}

}  // namespace usbd::nbd

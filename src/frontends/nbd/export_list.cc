// SPDX-License-Identifier: Apache-2.0
//
// From what core says of an export to what NBD clients are told.

#include "frontends/nbd/export_list.h"

#include <fmt/format.h>

#include "frontends/nbd/text.h"

namespace usbd::nbd {
namespace {

Result<void> check_text(std::string_view what, std::string_view text) {
  if (text.size() <= kStringMax && is_valid_text(text)) return {};
  return Error(Errc::kInvalid,
               fmt::format("the {} {} cannot be told to NBD clients: it must be UTF-8 without NUL, "
                           "of at most {} bytes",
                           what, readable(text), kStringMax));
}

}  // namespace

uint16_t transmission_flags(const ExportInfo& info) {
  unsigned flags = kTransmitHasFlags;
  if (info.can_flush) flags |= kTransmitFlush;
  if (info.can_fua) flags |= kTransmitFua;
  if (info.can_multi_connection) flags |= kTransmitMultiConn;
  if (info.can_cache) flags |= kTransmitCache;
  if (info.read_only) {
    flags |= kTransmitReadOnly;
  } else {
    if (info.can_trim) flags |= kTransmitTrim;
    if (info.can_write_zeroes) flags |= kTransmitWriteZeroes;
    if (info.can_write_zeroes && info.can_fast_zero) flags |= kTransmitFastZero;
  }
  return static_cast<uint16_t>(flags);
}

Result<ExportList> ExportList::create(std::vector<Export*> exports) {
  ExportList list(std::move(exports));
  for (size_t i = 0; i < list.count(); ++i) {
    const ExportInfo& info = list.at(i).info();
    USBD_TRY_VOID(check_text("export name", info.name));
    USBD_TRY_VOID(check_text("export description", info.description));
    for (size_t before = 0; before < i; ++before) {
      if (list.at(before).info().name != info.name) continue;
      return Error(Errc::kInvalid, fmt::format("two exports are called {}", readable(info.name)));
    }
  }
  return list;
}

ExportDescription ExportList::describe(size_t index) const {
  const ExportInfo& info = exports_[index]->info();
  return {.name = info.name,
          .description = info.description,
          .size = info.size,
          .transmission_flags = transmission_flags(info),
          .block_size_min = info.block_size_min,
          .block_size_preferred = info.block_size_preferred,
          .payload_max = info.payload_max};
}

std::optional<size_t> ExportList::find(std::string_view name) const {
  if (name.empty() && !exports_.empty()) return 0;
  for (size_t i = 0; i < exports_.size(); ++i) {
    if (exports_[i]->info().name == name) return i;
  }
  return std::nullopt;
}

}  // namespace usbd::nbd

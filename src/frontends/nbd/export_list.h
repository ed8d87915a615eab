// SPDX-License-Identifier: Apache-2.0
//
// ExportList: the exports of a server, found by name. The empty name is the first one.

#pragma once

#include <string>
#include <vector>

#include "core/export.h"
#include "frontends/nbd/session.h"

namespace usbd::nbd {

/// The kTransmit* bits for an export, without kTransmitDf.
[[nodiscard]] uint16_t transmission_flags(const ExportInfo& info);

class ExportList final : public ExportTable {
 public:
  /// Lifetime: `exports` outlive the list.
  /// Errors:   kInvalid: a name or description that cannot be sent, or a name given twice.
  [[nodiscard]] static Result<ExportList> create(std::vector<Export*> exports);

  [[nodiscard]] size_t count() const override { return exports_.size(); }
  [[nodiscard]] ExportDescription describe(size_t index) const override;
  [[nodiscard]] std::optional<size_t> find(std::string_view name) const override;
  [[nodiscard]] Export& at(size_t index) const override { return *exports_[index]; }

 private:
  explicit ExportList(std::vector<Export*> exports) : exports_(std::move(exports)) {}

  std::vector<Export*> exports_;
};

}  // namespace usbd::nbd

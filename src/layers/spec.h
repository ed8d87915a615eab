// SPDX-License-Identifier: Apache-2.0
//
// How a layer is written on a command line: `name` or `name:key=value,key=value`. Sizes and
// durations are those of all flags (base/units.h), but without commas; other numbers are plain.

#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/stats.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd {

/// A parsed spec. The getters return empty for a key that is not there; their errors are kInvalid
/// and name the layer, the key, what was given and what is allowed.
class LayerSpec {
 public:
  /// Errors: kInvalid (no name, a part without `=`, a key twice).
  static Result<LayerSpec> parse(std::string_view text);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool has(std::string_view key) const { return values_.contains(key); }
  /// Errors: kInvalid if there is a key that is not in `known`.
  [[nodiscard]] Result<void> check_keys(const std::vector<std::string>& known) const;

  [[nodiscard]] std::optional<std::string> text(std::string_view key) const;
  [[nodiscard]] Result<std::optional<uint64_t>> number(std::string_view key) const;
  [[nodiscard]] Result<std::optional<std::chrono::nanoseconds>> duration(
      std::string_view key) const;
  /// Range: 0 to 1.
  [[nodiscard]] Result<std::optional<double>> share(std::string_view key) const;
  /// `OFFSET+LENGTH`, two sizes.
  [[nodiscard]] Result<std::optional<ByteRange>> range(std::string_view key) const;
  /// Kinds of operations joined by `+`, or `all`; one bool for each Op.
  [[nodiscard]] Result<std::optional<std::vector<bool>>> ops(std::string_view key) const;

  /// The error for a bad value of `key`.
  [[nodiscard]] Error bad_value(std::string_view key, std::string_view allowed) const;

 private:
  std::string name_;
  std::map<std::string, std::string, std::less<>> values_;
};

/// The names of all kinds of operations, in the order of Op.
const std::vector<std::string>& layer_op_names();

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// The parser of layer specs. Every value is checked to its last character.

#include "layers/spec.h"

#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/units.h"

namespace usbd {
namespace {

using std::chrono::nanoseconds;

/// A whole number, to its last character.
std::optional<uint64_t> whole_number(std::string_view text) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

}  // namespace

const std::vector<std::string>& layer_op_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> made;
    for (size_t i = 0; i < kOps; ++i) made.emplace_back(op_name(static_cast<Op>(i)));
    return made;
  }();
  return kNames;
}

Result<LayerSpec> LayerSpec::parse(std::string_view text) {
  LayerSpec spec;
  const size_t colon = text.find(':');
  spec.name_ = text.substr(0, colon);
  if (spec.name_.empty()) {
    return Error(Errc::kInvalid, fmt::format("layer \"{}\" has no name", text));
  }
  if (colon == std::string_view::npos) return spec;
  std::string_view rest = text.substr(colon + 1);
  for (bool more = true; more;) {
    const size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    more = comma != std::string_view::npos;
    if (more) rest.remove_prefix(comma + 1);
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return Error(Errc::kInvalid,
                   fmt::format("layer {}: \"{}\" is not of the form key=value", spec.name_, part));
    }
    const std::string key(part.substr(0, equals));
    if (!spec.values_.emplace(key, part.substr(equals + 1)).second) {
      return Error(Errc::kInvalid, fmt::format("layer {}: {} is given twice", spec.name_, key));
    }
  }
  return spec;
}

Result<void> LayerSpec::check_keys(const std::vector<std::string>& known) const {
  for (const auto& [key, value] : values_) {
    bool found = false;
    for (const std::string& name : known) found = found || name == key;
    if (found) continue;
    const std::string allowed =
        known.empty() ? "it has none" : fmt::format("it has {}", fmt::join(known, ", "));
    return Error(Errc::kInvalid, fmt::format("layer {} has no key {}: {}", name_, key, allowed));
  }
  return {};
}

Error LayerSpec::bad_value(std::string_view key, std::string_view allowed) const {
  return Error(Errc::kInvalid, fmt::format("layer {}: {}={}: must be {}", name_, key,
                                           text(key).value_or(""), allowed));
}

std::optional<std::string> LayerSpec::text(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

Result<std::optional<uint64_t>> LayerSpec::number(std::string_view key) const {
  const std::optional<std::string> given = text(key);
  if (!given) return std::optional<uint64_t>();
  const std::optional<uint64_t> value = whole_number(*given);
  if (!value) return bad_value(key, "a whole number");
  return value;
}

Result<std::optional<nanoseconds>> LayerSpec::duration(std::string_view key) const {
  const std::optional<std::string> given = text(key);
  if (!given) return std::optional<nanoseconds>();
  const Result<nanoseconds> value = parse_duration(*given);
  if (!value) return bad_value(key, "a duration such as 500ms or 1m30s");
  return std::optional<nanoseconds>(*value);
}

Result<std::optional<double>> LayerSpec::share(std::string_view key) const {
  const std::optional<std::string> given = text(key);
  if (!given) return std::optional<double>();
  double value = -1;
  const char* const end = given->data() + given->size();
  const auto [stop, error] = std::from_chars(given->data(), end, value);
  const bool good = error == std::errc() && stop == end && value >= 0 && value <= 1;
  if (!good) return bad_value(key, "a share from 0 to 1, such as 0.01");
  return std::optional<double>(value);
}

Result<std::optional<ByteRange>> LayerSpec::range(std::string_view key) const {
  const std::optional<std::string> given = text(key);
  if (!given) return std::optional<ByteRange>();
  const std::string_view both = *given;
  const size_t plus = both.find('+');
  const Result<uint64_t> offset = parse_size(both.substr(0, plus));
  // What is missing is no size either.
  const Result<uint64_t> length =
      parse_size(plus == std::string_view::npos ? std::string_view() : both.substr(plus + 1));
  // Both are below 2^63, so their sum does not wrap.
  if (!offset || !length || *length == 0) {
    return bad_value(key, "OFFSET+LENGTH, such as 1MiB+64KiB");
  }
  return std::optional<ByteRange>(ByteRange(*offset, *length));
}

Result<std::optional<std::vector<bool>>> LayerSpec::ops(std::string_view key) const {
  const std::optional<std::string> given = text(key);
  if (!given) return std::optional<std::vector<bool>>();
  if (*given == "all") return std::optional<std::vector<bool>>(std::vector<bool>(kOps, true));
  std::vector<bool> chosen(kOps, false);
  const std::vector<std::string>& names = layer_op_names();
  std::string_view rest = *given;
  for (bool more = true; more;) {
    const size_t plus = rest.find('+');
    const std::string_view name = rest.substr(0, plus);
    more = plus != std::string_view::npos;
    if (more) rest.remove_prefix(plus + 1);
    size_t op = 0;
    while (op < names.size() && names[op] != name) ++op;
    if (op == names.size()) {
      return bad_value(key, fmt::format("all, or some of {} joined by +", fmt::join(names, ", ")));
    }
    chosen[op] = true;
  }
  return std::optional<std::vector<bool>>(std::move(chosen));
}

}  // namespace usbd

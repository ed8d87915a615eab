// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes `-layer`: what each layer takes, and the values that layers are made of, asked for under
// every key of the input.

#include <cstdint>
#include <string>
#include <string_view>

#include "fuzz/input.h"
#include "layers/layers.h"
#include "layers/spec.h"

using usbd::fuzz::promise;

namespace {

/// The value, if `read` is one; an error must name its key.
template <typename T>
const T* value_of(const usbd::Result<std::optional<T>>& read, const std::string& key) {
  if (read) return read->has_value() ? &**read : nullptr;
  promise(read.error().context().find(key) != std::string::npos, "an error names the key");
  return nullptr;
}

void check_values(const usbd::LayerSpec& spec, const std::string& key) {
  promise(spec.has(key) == spec.text(key).has_value(), "a key that is there has a value");
  const auto number = spec.number(key);
  if (const uint64_t* const value = value_of(number, key)) {
    const auto end = spec.text(key)->find_last_not_of("0123456789");
    promise(end == std::string::npos, "a number is of digits");
    promise(*value == 0 || spec.text(key)->find_first_not_of('0') != std::string::npos, "zero");
  }
  const auto duration = spec.duration(key);
  if (const auto* const value = value_of(duration, key)) {
    promise(value->count() >= 0, "durations are not negative");
  }
  const auto share = spec.share(key);
  if (const double* const value = value_of(share, key)) {
    promise(*value >= 0 && *value <= 1, "a share is from 0 to 1");
  }
  const auto range = spec.range(key);
  if (const auto* const value = value_of(range, key)) {
    promise(value->length > 0 && value->end() > value->offset, "a range is of something");
  }
  const auto ops = spec.ops(key);
  if (const auto* const value = value_of(ops, key)) {
    promise(value->size() == usbd::layer_op_names().size(), "a choice for each operation");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto taken = usbd::check_layer(text);
  if (!taken) promise(!taken.error().context().empty(), "an error says what is allowed");
  const auto spec = usbd::LayerSpec::parse(text);
  promise(spec || !taken, "a layer takes nothing that is no spec");
  if (!spec) return 0;
  for (size_t at = text.find_first_of(":,"); at != std::string::npos;) {
    const size_t end = text.find('=', at);
    check_values(*spec, text.substr(at + 1, end == std::string::npos ? end : end - at - 1));
    at = text.find(',', at + 1);
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the sizes and durations of the command line: what can be read can be written and read
// again as the same.

#include <cstdint>
#include <string_view>

#include "base/units.h"
#include "fuzz/input.h"

using usbd::fuzz::promise;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto bytes = usbd::parse_size(text);
  if (bytes) {
    promise(*bytes <= INT64_MAX, "sizes fit into a signed number");
    const auto again = usbd::parse_size(usbd::format_size(*bytes));
    promise(again && *again == *bytes, "a size reads as it was written");
  } else {
    promise(!bytes.error().context().empty(), "an error says what is wrong");
  }
  const auto duration = usbd::parse_duration(text);
  if (duration) {
    promise(duration->count() >= 0, "durations are not negative");
    const auto again = usbd::parse_duration(usbd::format_duration(*duration));
    promise(again && *again == *duration, "a duration reads as it was written");
  } else {
    promise(!duration.error().context().empty(), "an error says what is wrong");
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the command line and the environment: words divided by newlines, after a first byte that
// says which of the two they are, and whose table. What is taken is valid and in its canonical
// spelling.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/flag_table.h"
#include "daemon/flags.h"
#include "fuzz/input.h"

using usbd::daemon::FlagKind;
using usbd::daemon::FlagSpec;
using usbd::daemon::FlagValues;
using usbd::fuzz::promise;

namespace {

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

/// Asks for the value as the daemon does.
void check_number(const FlagSpec& spec, const FlagValues& values) {
  if (spec.kind == FlagKind::kDuration) {
    const std::chrono::nanoseconds value = values.duration(spec.name);
    promise(value.count() >= static_cast<int64_t>(spec.least), "durations are in their range");
  } else if (spec.kind == FlagKind::kSize || spec.kind == FlagKind::kCount) {
    const uint64_t value = values.size(spec.name);
    promise(value >= spec.least && value <= spec.greatest, "numbers are in their range");
  } else if (spec.kind == FlagKind::kSwitch) {
    promise(values.on(spec.name) == (values.text(spec.name) == "true"), "a switch is on or off");
  }
}

void check_values(const FlagValues& values) {
  for (const FlagSpec& spec : values.specs()) {
    promise(values.find(spec.name) == &spec, "each flag has its own name");
    if (!values.given(spec.name)) continue;
    promise(spec.repeatable || values.list(spec.name).size() == 1, "one value, the last");
    for (const std::string& value : values.list(spec.name)) {
      const auto again = usbd::daemon::canonical_value(spec, value);
      promise(again && *again == value, "values are kept in canonical spelling");
    }
    check_number(spec, values);
  }
}

void read_arguments(const std::vector<std::string>& words, FlagValues values) {
  const auto read = usbd::daemon::parse_arguments(words, values);
  if (!read) promise(!read.error().context().empty(), "an error says what is wrong");
  check_values(values);
}

void read_environment(const std::vector<std::string>& words, FlagValues values) {
  const auto read = usbd::daemon::parse_environment(words, values);
  if (!read) promise(!read.error().context().empty(), "an error says what is wrong");
  check_values(values);
}

/// The program of a device's author: the first word is what the author calls the device.
void read_as_author(std::vector<std::string> words) {
  const std::string name = words.empty() ? "" : words.front();
  const std::vector<FlagSpec> table = usbd::daemon::author_flags(name);
  if (!words.empty()) words.erase(words.begin());
  read_arguments(words, FlagValues(table));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<FlagSpec> kTable = usbd::daemon::daemon_flags();
  if (size == 0) return -1;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::vector<std::string> words = split(text);
  switch (data[0] % 4) {
    case 0:
      read_arguments(words, FlagValues(kTable));
      break;
    case 1:
      for (std::string& word : words) word.insert(0, "USBD_");
      [[fallthrough]];
    case 2:
      read_environment(words, FlagValues(kTable));
      break;
    default:
      read_as_author(std::move(words));
  }
  return 0;
}

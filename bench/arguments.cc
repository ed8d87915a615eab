// SPDX-License-Identifier: Apache-2.0
//
// See arguments.h.

#include "bench/arguments.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>

#include <fmt/format.h>

namespace usbd::bench {
namespace {

constexpr double kSecondsMax = 86400;

struct Unit {
  std::string_view name;
  uint64_t bytes;
};
constexpr std::array<Unit, 4> kUnits{{
    {"", 1},
    {"kib", 1ULL << 10},
    {"mib", 1ULL << 20},
    {"gib", 1ULL << 30},
}};

Error invalid(std::string_view text, std::string_view allowed) {
  return Error(Errc::kInvalid, fmt::format("\"{}\" is not {}", text, allowed));
}

Result<const Argument*> find_argument(std::span<const Argument> table, std::string_view name) {
  for (const Argument& argument : table) {
    if (argument.name == name) return &argument;
  }
  return Error(Errc::kInvalid, fmt::format("there is no argument --{}; try --help", name));
}

}  // namespace

Result<void> parse_arguments(std::span<const Argument> table, std::span<char* const> words) {
  for (size_t index = 0; index < words.size(); ++index) {
    const std::string_view word = words[index];
    if (!word.starts_with("--")) return invalid(word, "an argument; all begin with --");
    const size_t equals = word.find('=');
    const std::string_view name = word.substr(2, equals == word.npos ? equals : equals - 2);
    USBD_TRY(const Argument* const argument, find_argument(table, name));
    std::string_view value;
    if (equals != word.npos) {
      value = word.substr(equals + 1);
    } else if (!argument->value.empty()) {
      if (++index == words.size()) {
        return Error(Errc::kInvalid, fmt::format("--{} needs {}", name, argument->value));
      }
      value = words[index];
    }
    const Result<void> set = argument->set(value);
    if (!set) return Error(Errc::kInvalid, fmt::format("--{}: {}", name, set.error().context()));
  }
  return {};
}

std::string describe(std::span<const Argument> table) {
  std::string text;
  for (const Argument& argument : table) {
    text +=
        fmt::format("  {:<26} {}\n", "--" + argument.name + " " + argument.value, argument.help);
  }
  return text;
}

Result<uint64_t> parse_size(std::string_view text) {
  const std::string_view allowed = "a size, such as 4096, 64KiB, 1MiB or 1GiB";
  uint64_t count = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (failed != std::errc()) return invalid(text, allowed);
  std::string unit(end, text.data() + text.size());
  std::ranges::transform(unit, unit.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Unit& known : kUnits) {
    if (unit != known.name) continue;
    if (count > std::numeric_limits<int64_t>::max() / known.bytes) break;
    return count * known.bytes;
  }
  return invalid(text, allowed);
}

std::function<Result<void>(std::string_view)> into(std::string& target) {
  return [&target](std::string_view text) -> Result<void> {
    target = text;
    return {};
  };
}

std::function<Result<void>(std::string_view)> into(bool& target) {
  return [&target](std::string_view text) -> Result<void> {
    if (!text.empty()) return invalid(text, "wanted here: it is a switch");
    target = true;
    return {};
  };
}

std::function<Result<void>(std::string_view)> into_size(uint64_t& target) {
  return [&target](std::string_view text) -> Result<void> {
    USBD_TRY(target, parse_size(text));
    return {};
  };
}

std::function<Result<void>(std::string_view)> into_number(uint64_t& target, uint64_t least,
                                                          uint64_t most) {
  return [&target, least, most](std::string_view text) -> Result<void> {
    const char* const last = text.data() + text.size();
    const auto [end, failed] = std::from_chars(text.data(), last, target);
    if (failed != std::errc() || end != last || target < least || target > most) {
      return invalid(text, fmt::format("a number from {} to {}", least, most));
    }
    return {};
  };
}

std::function<Result<void>(std::string_view)> into_seconds(double& target) {
  return [&target](std::string_view text) -> Result<void> {
    const char* const last = text.data() + text.size();
    const auto [end, failed] = std::from_chars(text.data(), last, target);
    if (failed != std::errc() || end != last || !(target >= 0 && target <= kSecondsMax)) {
      return invalid(text, fmt::format("a number of seconds from 0 to {}", kSecondsMax));
    }
    return {};
  };
}

std::function<Result<void>(std::string_view)> into_choice(std::string& target,
                                                          std::vector<std::string> choices) {
  return [&target, choices = std::move(choices)](std::string_view text) -> Result<void> {
    if (std::ranges::find(choices, text) == choices.end()) {
      return invalid(text, fmt::format("one of {}", fmt::join(choices, ", ")));
    }
    target = text;
    return {};
  };
}

}  // namespace usbd::bench

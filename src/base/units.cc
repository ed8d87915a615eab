// SPDX-License-Identifier: Apache-2.0
//
// Both parsers compute in 128 bits, digit by digit, so that nothing is rounded on the way and an
// overflow is seen rather than wrapped.

#include "base/units.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

#include <fmt/format.h>

namespace usbd {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr uint64_t kValueMax = INT64_MAX;
/// Digits after the point beyond these are below a nano-unit of the largest unit: ignored.
constexpr int kFractionDigitsMax = 18;

struct Unit {
  std::string_view name;
  uint64_t factor;
};

/// A decimal number: whole + fraction / scale.
struct Decimal {
  uint64_t whole = 0;
  uint64_t fraction = 0;
  uint64_t scale = 1;
};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Reads "12", "12.5", ".5" from the front of `text` and removes it. Empty: no number there, or
/// a whole part that does not fit (`overflow` is set).
std::optional<Decimal> take_decimal(std::string_view& text, bool& overflow) {
  Decimal number;
  size_t at = 0;
  size_t digits = 0;
  for (; at < text.size() && is_digit(text[at]); ++at, ++digits) {
    const Wide next = Wide{number.whole} * 10 + static_cast<unsigned>(text[at] - '0');
    if (next > kValueMax) overflow = true;
    number.whole = overflow ? 0 : static_cast<uint64_t>(next);
  }
  if (at < text.size() && text[at] == '.') {
    int kept = 0;
    for (++at; at < text.size() && is_digit(text[at]); ++at, ++digits) {
      if (++kept > kFractionDigitsMax) continue;
      number.fraction = number.fraction * 10 + static_cast<unsigned>(text[at] - '0');
      number.scale *= 10;
    }
  }
  if (digits == 0 || overflow) return std::nullopt;
  text.remove_prefix(at);
  return number;
}

/// number * factor, rounded down; empty if it is over kValueMax.
std::optional<uint64_t> scale(const Decimal& number, uint64_t factor) {
  const Wide value = Wide{number.whole} * factor + Wide{number.fraction} * factor / number.scale;
  if (value > kValueMax) return std::nullopt;
  return static_cast<uint64_t>(value);
}

Error not_a_size(std::string_view why) {
  return Error(Errc::kInvalid,
               fmt::format("{}; a size is bytes, or a number with a unit such as 100MiB, 1.5GiB "
                           "(powers of 1024) or 20GB, 20G (powers of 1000)",
                           why));
}

Error not_a_duration(std::string_view why) {
  return Error(Errc::kInvalid,
               fmt::format("{}; a duration is numbers with units (ns, us, ms, s, m, h) such as "
                           "10s, 1m30s, 500ms, or 0",
                           why));
}

/// The factor of a unit in lower case; empty: no such unit.
std::optional<uint64_t> size_factor(std::string_view unit) {
  if (unit.empty() || unit == "b") return 1;
  constexpr std::string_view kPrefixes = "kmgtpe";
  const size_t power = kPrefixes.find(unit.front());
  if (power == std::string_view::npos) return std::nullopt;
  const std::string_view rest = unit.substr(1);
  uint64_t base = 0;
  if (rest.empty() || rest == "b") base = 1000;
  if (rest == "i" || rest == "ib") base = 1024;
  if (base == 0) return std::nullopt;
  uint64_t factor = 1;
  for (size_t i = 0; i <= power; ++i) factor *= base;
  return factor;
}

constexpr std::array<Unit, 8> kDurationUnits = {{{"ns", 1},
                                                 {"us", 1'000},
                                                 {"µs", 1'000},
                                                 {"μs", 1'000},
                                                 {"ms", 1'000'000},
                                                 {"s", 1'000'000'000},
                                                 {"m", 60'000'000'000},
                                                 {"h", 3'600'000'000'000}}};

std::string_view take_unit(std::string_view& text) {
  size_t length = 0;
  while (length < text.size() && !is_digit(text[length]) && text[length] != '.') ++length;
  const std::string_view unit = text.substr(0, length);
  text.remove_prefix(length);
  return unit;
}

/// "1.5" for value 3, unit 2; trailing zeros are dropped. Empty: not exact in `places` digits.
std::string decimal(uint64_t value, uint64_t unit, int places) {
  std::string text = std::to_string(value / unit);
  Wide rest = value % unit;
  if (rest == 0) return text;
  text += '.';
  for (; rest != 0 && places > 0; --places) {
    rest *= 10;
    text += static_cast<char>('0' + static_cast<int>(rest / unit));
    rest %= unit;
  }
  return rest == 0 ? text : std::string();
}

}  // namespace

Result<uint64_t> parse_size(std::string_view text) {
  std::string plain;
  for (const char c : text) {
    if (c == ',' || std::isspace(static_cast<unsigned char>(c)) != 0) continue;
    plain += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  if (plain.empty()) return not_a_size("it is empty");
  if (plain.front() == '-') return not_a_size("it is negative");
  std::string_view rest = plain;
  bool overflow = false;
  const std::optional<Decimal> number = take_decimal(rest, overflow);
  if (overflow) return Error(Errc::kOverflow, "it is more than 8 EiB");
  if (!number) return not_a_size("it does not begin with a number");
  const std::optional<uint64_t> factor = size_factor(rest);
  if (!factor) return not_a_size(fmt::format("\"{}\" is not a unit", rest));
  const std::optional<uint64_t> bytes = scale(*number, *factor);
  if (!bytes) return Error(Errc::kOverflow, "it is more than 8 EiB");
  return *bytes;
}

std::string format_size(uint64_t bytes) {
  constexpr std::array<std::string_view, 7> kNames = {"B",   "KiB", "MiB", "GiB",
                                                      "TiB", "PiB", "EiB"};
  for (size_t power = kNames.size() - 1; power > 0; --power) {
    const uint64_t unit = uint64_t{1} << (10 * power);
    if (bytes < unit) continue;
    const std::string number = decimal(bytes, unit, 3);
    if (!number.empty()) return fmt::format("{} {}", number, kNames.at(power));
  }
  return fmt::format("{} B", bytes);
}

Result<std::chrono::nanoseconds> parse_duration(std::string_view text) {
  if (text.empty()) return not_a_duration("it is empty");
  if (text.front() == '-') return not_a_duration("it is negative");
  if (text.front() == '+') text.remove_prefix(1);
  if (text == "0") return std::chrono::nanoseconds(0);
  uint64_t total = 0;
  do {
    bool overflow = false;
    const std::optional<Decimal> number = take_decimal(text, overflow);
    if (overflow) return Error(Errc::kOverflow, "it is more than 292 years");
    if (!number) return not_a_duration("a number is missing");
    const std::string_view name = take_unit(text);
    const auto* const unit =
        std::find_if(kDurationUnits.begin(), kDurationUnits.end(),
                     [name](const Unit& candidate) { return candidate.name == name; });
    if (name.empty()) return not_a_duration("the unit is missing");
    if (unit == kDurationUnits.end()) {
      return not_a_duration(fmt::format("\"{}\" is not a unit", name));
    }
    const std::optional<uint64_t> part = scale(*number, unit->factor);
    if (!part || *part > kValueMax - total) {
      return Error(Errc::kOverflow, "it is more than 292 years");
    }
    total += *part;
  } while (!text.empty());
  return std::chrono::nanoseconds(static_cast<int64_t>(total));
}

std::string format_duration(std::chrono::nanoseconds duration) {
  const auto value = static_cast<uint64_t>(std::max<int64_t>(duration.count(), 0));
  if (value == 0) return "0s";
  if (value < 1'000) return fmt::format("{}ns", value);
  if (value < 1'000'000) return decimal(value, 1'000, 3) + "us";
  if (value < 1'000'000'000) return decimal(value, 1'000'000, 6) + "ms";
  constexpr uint64_t kMinute = 60'000'000'000;
  const uint64_t minutes = value / kMinute;
  std::string text;
  if (minutes >= 60) text += fmt::format("{}h", minutes / 60);
  if (minutes % 60 != 0) text += fmt::format("{}m", minutes % 60);
  if (value % kMinute != 0) text += decimal(value % kMinute, 1'000'000'000, 9) + "s";
  return text;
}

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// Values are kept as text in their canonical spelling and read again when asked for: there are a
// few dozen, read once at start-up, and text is what every source of them and every message has.

#include "daemon/flags.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/assert.h"
#include "base/units.h"

namespace usbd::daemon {
namespace {

constexpr std::string_view kVariablePrefix = "USBD_";

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::string allowed_choices(const FlagSpec& spec) {
  std::string text;
  for (const Choice& choice : spec.choices) {
    if (!text.empty()) text += ", ";
    text += choice.name;
    if (!choice.aliases.empty()) text += fmt::format(" (or {})", fmt::join(choice.aliases, ", "));
  }
  return text;
}

Result<std::string> canonical_switch(std::string_view value) {
  const std::string word = lower(value);
  if (word == "true" || word == "t" || word == "1") return std::string("true");
  if (word == "false" || word == "f" || word == "0") return std::string("false");
  return Error(Errc::kInvalid, "it is a switch: allowed are true and false");
}

Result<std::string> canonical_choice(const FlagSpec& spec, std::string_view value) {
  const std::string word = lower(value);
  for (const Choice& choice : spec.choices) {
    const bool alias = std::ranges::find(choice.aliases, word) != choice.aliases.end();
    if (alias || choice.name == word) return choice.name;
  }
  return Error(Errc::kInvalid, "allowed are " + allowed_choices(spec));
}

/// How a number of the spec's kind is shown to people.
std::string shown(const FlagSpec& spec, uint64_t value) {
  if (spec.kind == FlagKind::kSize) return format_size(value);
  if (spec.kind == FlagKind::kDuration) {
    return format_duration(std::chrono::nanoseconds(static_cast<int64_t>(value)));
  }
  return std::to_string(value);
}

Result<std::string> in_range(const FlagSpec& spec, uint64_t value) {
  if (value >= spec.least && value <= spec.greatest) return std::to_string(value);
  if (spec.greatest == INT64_MAX) {
    return Error(Errc::kInvalid, fmt::format("the least is {}", shown(spec, spec.least)));
  }
  return Error(Errc::kInvalid, fmt::format("allowed are {} to {}", shown(spec, spec.least),
                                           shown(spec, spec.greatest)));
}

Result<std::string> canonical_count(const FlagSpec& spec, std::string_view value) {
  uint64_t number = 0;
  const char* const end = value.data() + value.size();
  const auto [at, error] = std::from_chars(value.data(), end, number);
  if (error == std::errc::result_out_of_range) return in_range(spec, UINT64_MAX);
  if (error != std::errc() || at != end) {
    return Error(Errc::kInvalid, fmt::format("it is not a whole number; allowed are {} to {}",
                                             spec.least, spec.greatest));
  }
  return in_range(spec, number);
}

/// A ratio is a decimal number with `least` and `greatest` as bounds.
Result<std::string> canonical_ratio(const FlagSpec& spec, std::string_view value) {
  double number = 0;
  const char* const end = value.data() + value.size();
  const auto [at, error] = std::from_chars(value.data(), end, number, std::chars_format::fixed);
  const bool good = error == std::errc() && at == end && std::isfinite(number);
  if (good && number >= static_cast<double>(spec.least) &&
      number <= static_cast<double>(spec.greatest)) {
    return std::string(value);
  }
  return Error(Errc::kInvalid,
               fmt::format("allowed is a decimal number from {} to {}, such as 1.40", spec.least,
                           spec.greatest));
}

Result<std::string> canonical_text(const FlagSpec& spec, std::string_view value) {
  if (value.find('\0') != std::string_view::npos) {
    return Error(Errc::kInvalid, "it has a zero byte in it");
  }
  if (spec.check != nullptr) USBD_TRY_VOID(spec.check(value));
  return std::string(value);
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

/// The flag whose name is nearest to `name`, at most `distance_max` edits away; or null.
const FlagSpec* nearest_flag(std::string_view name, size_t distance_max, const FlagValues& values) {
  const FlagSpec* nearest = nullptr;
  for (const FlagSpec& spec : values.specs()) {
    const size_t distance = edit_distance(name, spec.name);
    if (spec.positional || distance > distance_max) continue;
    distance_max = distance - 1;
    nearest = &spec;
  }
  return nearest;
}

Error unknown_flag(std::string_view word, std::string_view name, const FlagValues& values) {
  const FlagSpec* const nearest = nearest_flag(name, name.size() / 3 + 1, values);
  return Error(
      Errc::kInvalid,
      fmt::format("unknown flag \"{}\"{} (-help shows every flag)", word,
                  nearest == nullptr ? "" : fmt::format("; is -{} meant?", nearest->name)));
}

/// "store-dir" for "USBD_STORE_DIR".
std::string flag_of_variable(std::string_view variable) {
  std::string name = lower(variable.substr(kVariablePrefix.size()));
  std::ranges::replace(name, '_', '-');
  return name;
}

const FlagSpec* positional_spec(const FlagValues& values) {
  for (const FlagSpec& spec : values.specs()) {
    if (spec.positional) return &spec;
  }
  return nullptr;
}

Result<void> take_argument(const std::string& word, FlagValues& values) {
  const FlagSpec* const spec = positional_spec(values);
  if (spec == nullptr) {
    return Error(Errc::kInvalid, fmt::format("unexpected argument \"{}\": only flags are taken "
                                             "(-help shows them)",
                                             word));
  }
  if (values.origin(spec->name) == Origin::kCommandLine) {
    return Error(Errc::kInvalid,
                 fmt::format("unexpected argument \"{}\": one {} is allowed, and \"{}\" is given "
                             "already",
                             word, spec->value_name, values.text(spec->name)));
  }
  return values.set(*spec, word, {Origin::kCommandLine, "argument " + spec->value_name});
}

/// Takes the flag in words[at]; returns how many words it used.
Result<size_t> take_flag(std::span<const std::string> words, size_t at, FlagValues& values) {
  const std::string_view word = words[at];
  std::string_view body = word.substr(word.starts_with("--") ? 2 : 1);
  const size_t equals = body.find('=');
  const std::string_view name = body.substr(0, equals);
  const FlagSpec* const spec = values.find(name);
  if (spec == nullptr || spec->positional)
    return unknown_flag(word.substr(0, word.find('=')), name, values);
  const Place place{Origin::kCommandLine, "-" + spec->name};
  if (equals != std::string_view::npos) {
    USBD_TRY_VOID(values.set(*spec, body.substr(equals + 1), place));
    return size_t{1};
  }
  if (spec->kind == FlagKind::kSwitch) {
    USBD_TRY_VOID(values.set(*spec, "true", place));
    return size_t{1};
  }
  if (at + 1 == words.size()) {
    return Error(Errc::kInvalid,
                 fmt::format("-{}: a value is missing: write -{}=VALUE", spec->name, spec->name));
  }
  USBD_TRY_VOID(values.set(*spec, words[at + 1], place));
  return size_t{2};
}

/// Sets a flag from one variable, whose value may be a list.
Result<void> take_variable(const FlagSpec& spec, std::string_view value, FlagValues& values) {
  const Place place{Origin::kEnvironment, "environment variable " + environment_name(spec.name)};
  if (!spec.repeatable) return values.set(spec, value, place);
  while (!value.empty()) {
    const size_t end = std::min(value.find(';'), value.size());
    if (end != 0) USBD_TRY_VOID(values.set(spec, value.substr(0, end), place));
    value.remove_prefix(std::min(end + 1, value.size()));
  }
  return {};
}

}  // namespace

Result<std::string> canonical_value(const FlagSpec& spec, std::string_view value) {
  switch (spec.kind) {
    case FlagKind::kSwitch:
      return canonical_switch(value);
    case FlagKind::kChoice:
      return canonical_choice(spec, value);
    case FlagKind::kSize: {
      USBD_TRY(const uint64_t bytes, parse_size(value));
      return in_range(spec, bytes);
    }
    case FlagKind::kDuration: {
      USBD_TRY(const std::chrono::nanoseconds duration, parse_duration(value));
      USBD_TRY_VOID(in_range(spec, static_cast<uint64_t>(duration.count())));
      return fmt::format("{}ns", duration.count());
    }
    case FlagKind::kCount:
      return canonical_count(spec, value);
    case FlagKind::kRatio:
      return canonical_ratio(spec, value);
    case FlagKind::kText:
      break;
  }
  return canonical_text(spec, value);
}

FlagValues::FlagValues(std::span<const FlagSpec> specs) : specs_(specs) {
  for (const FlagSpec& spec : specs) {
    Entry& entry = entries_[spec.name];
    if (spec.kind == FlagKind::kSwitch || !spec.fallback.empty()) {
      Result<std::string> value =
          canonical_value(spec, spec.fallback.empty() ? "false" : spec.fallback);
      USBD_ASSERT(value.has_value());
      entry.values.push_back(*std::move(value));
    }
  }
}

Result<void> FlagValues::set(const FlagSpec& spec, std::string_view value, const Place& place) {
  Result<std::string> canonical = canonical_value(spec, value);
  if (!canonical) {
    return Error(Errc::kInvalid,
                 fmt::format("{}: {} is not allowed: {}", place.text,
                             spec.secret ? "the value" : fmt::format("\"{}\"", value),
                             canonical.error().context()));
  }
  Entry& entry = entries_.find(spec.name)->second;
  if (place.origin < entry.origin) return {};
  if (place.origin > entry.origin || !spec.repeatable) entry.values.clear();
  entry.values.push_back(*std::move(canonical));
  entry.origin = place.origin;
  return {};
}

const FlagSpec* FlagValues::find(std::string_view name) const {
  const auto at = std::ranges::find(specs_, name, &FlagSpec::name);
  return at == specs_.end() ? nullptr : &*at;
}

const FlagValues::Entry& FlagValues::entry(std::string_view name) const {
  const auto at = entries_.find(name);
  USBD_ASSERT(at != entries_.end());
  return at->second;
}

const std::string& FlagValues::text(std::string_view name) const {
  static const std::string kNone;
  const Entry& found = entry(name);
  return found.values.empty() ? kNone : found.values.back();
}

const std::vector<std::string>& FlagValues::list(std::string_view name) const {
  return entry(name).values;
}

bool FlagValues::on(std::string_view name) const {
  return text(name) == "true";
}

uint64_t FlagValues::count(std::string_view name) const {
  const std::string& value = text(name);
  uint64_t number = 0;
  const auto [at, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  USBD_ASSERT(error == std::errc());
  return number;
}

double FlagValues::ratio(std::string_view name) const {
  const std::string& value = text(name);
  double number = 0;
  const auto [at, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  USBD_ASSERT(error == std::errc());
  return number;
}

uint64_t FlagValues::size(std::string_view name) const {
  return count(name);
}

std::chrono::nanoseconds FlagValues::duration(std::string_view name) const {
  return std::chrono::nanoseconds(static_cast<int64_t>(count(name)));
}

Result<void> parse_arguments(std::span<const std::string> words, FlagValues& values) {
  bool only_arguments = false;
  for (size_t at = 0; at < words.size();) {
    const std::string& word = words[at];
    if (!only_arguments && word == "--") {
      only_arguments = true;
      ++at;
    } else if (only_arguments || word.size() < 2 || word.front() != '-') {
      USBD_TRY_VOID(take_argument(word, values));
      ++at;
    } else {
      USBD_TRY(const size_t used, take_flag(words, at, values));
      at += used;
    }
  }
  return {};
}

std::string environment_name(std::string_view flag) {
  std::string name(kVariablePrefix);
  for (const char c : flag) {
    const bool letter = c >= 'a' && c <= 'z';
    name += c == '-' ? '_' : letter ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return name;
}

Result<std::vector<std::string>> parse_environment(std::span<const std::string> environment,
                                                   FlagValues& values) {
  constexpr size_t kTypingErrorsMax = 2;
  std::vector<std::string> warnings;
  for (const std::string_view variable : environment) {
    const size_t equals = variable.find('=');
    if (!variable.starts_with(kVariablePrefix) || equals == std::string_view::npos) continue;
    const std::string_view name = variable.substr(0, equals);
    const std::string flag = flag_of_variable(name);
    const FlagSpec* const spec = values.find(flag);
    if (spec != nullptr) {
      if (equals + 1 == variable.size()) continue;
      USBD_TRY_VOID(take_variable(*spec, variable.substr(equals + 1), values));
    } else if (const FlagSpec* const meant = nearest_flag(flag, kTypingErrorsMax, values)) {
      warnings.push_back(fmt::format("the environment variable {} is no setting; is {} meant?",
                                     name, environment_name(meant->name)));
    }
  }
  return warnings;
}

}  // namespace usbd::daemon

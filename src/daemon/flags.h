// SPDX-License-Identifier: Apache-2.0
//
// Flags in the style of Go's flag package, described by a table. A FlagSpec says everything about
// a flag: its name, what values it takes, its default, its help and which device type it is for;
// parsing, checking, the environment, the configuration file and -help all come from it.
//
// Forms: one dash or two; `-flag=value` or `-flag value`; a switch is `-flag` or `-flag=true|false`
// (a switch never takes the next word); `--` ends the flags; flags and the argument may be mixed;
// names are never abbreviated; the last of several wins unless the flag is repeatable.

#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "usbd/result.h"

namespace usbd::daemon {

enum class FlagKind : uint8_t { kSwitch, kChoice, kText, kSize, kDuration, kCount, kRatio };

/// The part of the daemon a flag is for. The last three are device types, whose flags are ignored
/// with a warning when another type is served.
enum class FlagGroup : uint8_t { kGeneral, kVolume, kExport, kKernel, kFile, kDedup, kObjstore };

/// Where a value came from; a later one of this list wins.
enum class Origin : uint8_t { kDefault, kFile, kEnvironment, kCommandLine };

/// An allowed value, and other words for it.
struct Choice {
  std::string name;
  std::vector<std::string> aliases;
};

struct FlagSpec {
  using Check = Result<void> (*)(std::string_view value);

  /// Without the dash. The argument that is not a flag has the name "device".
  std::string name;
  FlagGroup group = FlagGroup::kGeneral;
  FlagKind kind = FlagKind::kText;
  /// Stands for the value in -help; empty for switches and choices.
  std::string value_name = {};
  /// The value when nobody gives one; empty text counts as none.
  std::string fallback = {};
  std::string help = {};
  /// kChoice: what is allowed.
  std::vector<Choice> choices = {};
  /// kSize (bytes), kDuration (nanoseconds), kCount: the least and the greatest value.
  uint64_t least = 0;
  uint64_t greatest = INT64_MAX;
  /// kText: refuses a bad value with a sentence that says what is allowed. Null: all are good.
  Check check = nullptr;
  /// What -help shows as default instead of `fallback`.
  std::string fallback_help = {};
  bool repeatable = false;
  /// Never shown in a message.
  bool secret = false;
  /// Given as an argument without a name.
  bool positional = false;
};

/// Where a bad value was found, for the message: "-store-size", "USBD_STORE_SIZE", "x.toml line 3".
struct Place {
  Origin origin = Origin::kCommandLine;
  std::string text;
};

/// The values of all flags of a table. What it holds is valid and in its canonical spelling.
class FlagValues {
 public:
  /// Lifetime: `specs` is kept by reference and outlives this.
  explicit FlagValues(std::span<const FlagSpec> specs);

  /// Checks `value` and takes it, unless a stronger origin has given one already.
  /// Errors: kInvalid; the message names the place, the value and what is allowed.
  Result<void> set(const FlagSpec& spec, std::string_view value, const Place& place);

  [[nodiscard]] std::span<const FlagSpec> specs() const { return specs_; }
  /// The spec of that name, or null.
  [[nodiscard]] const FlagSpec* find(std::string_view name) const;

  // The rest asserts that the table has a flag of that name and kind.
  [[nodiscard]] Origin origin(std::string_view name) const { return entry(name).origin; }
  [[nodiscard]] bool given(std::string_view name) const { return origin(name) != Origin::kDefault; }
  /// kText, kChoice: the value; empty if there is none.
  [[nodiscard]] const std::string& text(std::string_view name) const;
  /// Repeatable flags: every value in order.
  [[nodiscard]] const std::vector<std::string>& list(std::string_view name) const;
  [[nodiscard]] bool on(std::string_view name) const;
  /// Units: bytes.
  [[nodiscard]] uint64_t size(std::string_view name) const;
  [[nodiscard]] std::chrono::nanoseconds duration(std::string_view name) const;
  /// kCount, and kChoice whose names are numbers.
  [[nodiscard]] uint64_t count(std::string_view name) const;
  [[nodiscard]] double ratio(std::string_view name) const;

 private:
  struct Entry {
    std::vector<std::string> values;
    Origin origin = Origin::kDefault;
  };
  [[nodiscard]] const Entry& entry(std::string_view name) const;

  std::span<const FlagSpec> specs_;
  std::map<std::string, Entry, std::less<>> entries_;
};

/// Reads the words of a command line (without the program's name) into `values`.
/// Errors: kInvalid: an unknown flag, a missing or bad value, a second argument.
Result<void> parse_arguments(std::span<const std::string> words, FlagValues& values);

/// Reads the variables USBD_<NAME> of every flag (`-store-dir` is USBD_STORE_DIR). An empty
/// variable counts as absent; values of a repeatable flag are separated by semicolons. Units:
/// `environment` as environ: "NAME=value". Errors: kInvalid. Returns the USBD_ variables that name
/// no flag, for a warning.
Result<std::vector<std::string>> parse_environment(std::span<const std::string> environment,
                                                   FlagValues& values);

/// "USBD_STORE_DIR" for "store-dir".
std::string environment_name(std::string_view flag);

/// The canonical spelling of `value`.
/// Errors: kInvalid, kOverflow; the context says what is wrong and what is allowed.
Result<std::string> canonical_value(const FlagSpec& spec, std::string_view value);

}  // namespace usbd::daemon

// SPDX-License-Identifier: Apache-2.0
//
// Command lines of the benchmark programs: a table of `--name VALUE` and `--name` arguments, each
// with the variable it sets. The same table prints the help, so the two cannot disagree.
// Sizes are plain bytes or have KiB, MiB or GiB behind them.

#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "usbd/result.h"

namespace usbd::bench {

struct Argument {
  std::string name;
  /// What the help calls the value; empty for a switch.
  std::string value;
  std::string help;
  std::function<Result<void>(std::string_view)> set;
};

/// Sets what `words` (without the program's name) ask for.
/// Errors: kInvalid, with the argument, what was given and what is allowed.
Result<void> parse_arguments(std::span<const Argument> table, std::span<char* const> words);

/// One line for each argument.
std::string describe(std::span<const Argument> table);

/// Reads a size. Units: bytes. Errors: kInvalid.
Result<uint64_t> parse_size(std::string_view text);

/// Setters for `Argument::set`. Lifetime: `target` outlives the table.
std::function<Result<void>(std::string_view)> into(std::string& target);
std::function<Result<void>(std::string_view)> into(bool& target);
std::function<Result<void>(std::string_view)> into_size(uint64_t& target);
/// Range: the value must be from `least` to `most`.
std::function<Result<void>(std::string_view)> into_number(uint64_t& target, uint64_t least,
                                                          uint64_t most);
/// Units: seconds, from 0 to 86400; a decimal fraction is allowed.
std::function<Result<void>(std::string_view)> into_seconds(double& target);
/// The value must be one of `choices`.
std::function<Result<void>(std::string_view)> into_choice(std::string& target,
                                                          std::vector<std::string> choices);

}  // namespace usbd::bench

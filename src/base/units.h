// SPDX-License-Identifier: Apache-2.0
//
// How people write sizes and lengths of time in flags, layers and files, and how we write them
// back. Sizes: "100 MiB", "20GiB", "1.5GiB", "1GB" and "1G" (10^9), "1Gi" (2^30), plain bytes; any
// case, spaces and thousands commas allowed. Durations as in Go: "10s", "1m30s", "500ms", "1.5h",
// "0".

#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "usbd/result.h"

namespace usbd {

/// Reads a size. A fraction of a unit is rounded down to whole bytes.
/// Errors: kInvalid (not a size, or negative), kOverflow (2^63 bytes or more); the context says
/// which.
Result<uint64_t> parse_size(std::string_view text);

/// The shortest exact form with a binary unit: "1 GiB", "1.5 GiB", "513 B".
std::string format_size(uint64_t bytes);

/// Reads a length of time.
/// Errors: kInvalid (not a duration, negative, or without unit), kOverflow (over 292 years).
Result<std::chrono::nanoseconds> parse_duration(std::string_view text);

/// As Go prints it: "1m30s", "500ms", "1.5s", "0s".
std::string format_duration(std::chrono::nanoseconds duration);

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// Checks of the protocol's strings: names, queries and messages are UTF-8 without NUL and at most
// kStringMax bytes. Nothing a client sends reaches a log or another client before it has passed.

#pragma once

#include <string>
#include <string_view>

namespace usbd::nbd {

/// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates) without NUL.
/// Range: any bytes, any length; the length limit is the caller's.
[[nodiscard]] bool is_valid_text(std::string_view text);

/// `text` in quotes for a message: control characters and broken UTF-8 as \xNN, and no more than
/// the first 128 bytes of it.
[[nodiscard]] std::string readable(std::string_view text);

}  // namespace usbd::nbd

// SPDX-License-Identifier: Apache-2.0
//
// Bytes as text, the way S3 wants them: percent-encoding for paths, queries and listings, and hex
// for digests.

#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "usbd/buffer.h"

namespace usbd::objects::s3 {

enum class KeepSlash : bool { kNo, kYes };

/// Encodes all but A-Z a-z 0-9 - . _ ~ as %XX with capital digits, and `/` too unless it is kept.
/// Ref: the S3 API reference, "UriEncode" in the description of Signature Version 4.
std::string percent_encode(std::string_view text, KeepSlash slash);

/// The text that listings mean: %XX is a byte, and `+` a space.
/// None: a `%` without two hex digits behind it.
std::optional<std::string> percent_decode(std::string_view text);

/// Two small hex digits for each byte.
std::string to_hex(Bytes data);

/// `text` with A-Z made small.
std::string to_lower(std::string_view text);

/// `text` without blanks at both ends.
std::string_view trim(std::string_view text);

}  // namespace usbd::objects::s3

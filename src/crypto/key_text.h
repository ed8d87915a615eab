// SPDX-License-Identifier: Apache-2.0
//
// How people hand over a key of 16, 24 or 32 bytes: as hex digits, in base64, or as it is.
//
// The rule, the same for every source, so that the same content is the same key wherever it comes
// from. First the length says whether a line end follows: content of 1 byte (LF) or 2 bytes (CR LF)
// more than a length below loses it; no length is another one plus 1 or 2. Then the first of these
// that fits:
//   1. hex: 32, 48 or 64 hex digits, of any case;
//   2. base64 (RFC 4648, section 4, padded): 24, 32 or 44 characters;
//   3. the bytes themselves: 16, 24 or 32.
// So 32 hex digits are a key of 16 bytes, always. Random bytes are never taken for an encoding:
// that 24 or 32 of them look like one happens once in more than 2^40 keys.

#pragma once

#include "crypto/secret.h"
#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::crypto {

/// The key that `content` stands for.
/// Errors: kInvalid: none; the context says what a key looks like and nothing of the content.
Result<Secret> decode_key(Bytes content);

}  // namespace usbd::crypto

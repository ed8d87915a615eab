// SPDX-License-Identifier: Apache-2.0
//
// The file of one object in a directory: the contents, and behind them a trailer that only a
// complete file has. It makes the object's tag part of the file, so that contents and tag change in
// one rename, and survive being copied by whatever copies files. What was truncated, extended, torn
// or put there by somebody else has no trailer that fits and is refused.
//
// Contents are covered by a checksum, which is looked at when all of them are read. A part of an
// object is read without: changed bits inside it go unnoticed here, and are found by who sealed
// what is in the object. A complete older copy put in the place of a file cannot be told from it.
//
//     contents | magic "usbd-obj" | version 1 | crc32c of the contents | length of the contents
//              | tag, 16 random bytes | reserved, 0 | crc32c of this trailer up to here
//
// Integers are big-endian.

#pragma once

#include <array>
#include <optional>
#include <string>

#include "base/endian.h"
#include "usbd/buffer.h"

namespace usbd::objects {

/// What makes one put different from every other.
using PutNonce = std::array<std::byte, 16>;

struct ObjectTrailer {
  std::array<char, 8> magic;
  Be32 version;
  Be32 contents_crc;
  Be64 contents_size;
  PutNonce nonce;
  Be32 reserved;
  Be32 trailer_crc;
};
static_assert(sizeof(ObjectTrailer) == 48 && alignof(ObjectTrailer) == 1);

/// The trailer of an object that holds `contents`.
[[nodiscard]] ObjectTrailer make_trailer(Bytes contents, const PutNonce& nonce);

/// Why `trailer`, the last bytes of a file of `file_size`, does not belong to a complete object;
/// empty: it does. Range: file_size >= sizeof(trailer).
[[nodiscard]] std::optional<std::string> find_damage(const ObjectTrailer& trailer,
                                                     uint64_t file_size);

/// A nonce as a tag: 32 hexadecimal digits.
[[nodiscard]] std::string tag_of(const PutNonce& nonce);

}  // namespace usbd::objects

// SPDX-License-Identifier: Apache-2.0
//
// Compression of pieces of data whose size the reader knows beforehand: what a piece becomes is
// exactly of that size, or an error. Damaged or hostile input costs no more memory than that.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "usbd/buffer.h"
#include "usbd/result.h"

namespace usbd::codec {

/// Stored in formats: numbers are never given anew.
enum class CodecKind : uint8_t {
  kIdentity = 0,
  kLz4 = 1,   ///< An LZ4 block, without a frame.
  kZstd = 2,  ///< A Zstandard frame.
  kS2 = 3,    ///< A Snappy block, which every reader of S2 reads.
  kGzip = 4,  ///< RFC 1952, one member.
};
inline constexpr size_t kCodecKinds = 5;

/// What to compress with.
struct Codec {
  CodecKind kind = CodecKind::kIdentity;
  /// Of kZstd, 1 to 19.
  int level = 3;

  friend bool operator==(const Codec&, const Codec&) = default;
};

/// `lz4`, `zstd`, `zstd:LEVEL`, `s2`, `gzip`, `identity`. Errors: kInvalid, saying so.
Result<Codec> parse_codec(std::string_view text);
/// As parse_codec() reads it; the level only if it is not the default.
std::string to_text(const Codec& codec);
std::string_view name_of(CodecKind kind);
/// The kind of this number in a format. Errors: kInvalid: none that this version knows.
Result<CodecKind> codec_of_number(uint8_t number);

/// `data`, compressed; nothing if that saves less than 6 %: then it is stored as it is.
/// Range:   `data` of at most limits::kCodecPieceMax bytes, asserted; kIdentity gives nothing.
/// Threads: any.
[[nodiscard]] std::optional<std::vector<std::byte>> compress(const Codec& codec, Bytes data);

/// Fills all of `out` with what `data` was before compress(); kIdentity copies.
/// Range:   `out` of at most limits::kCodecPieceMax bytes, asserted. After an error it holds
///          anything.
/// Threads: any.
/// Errors:  kDamaged (also: of another size).
Result<void> decompress(CodecKind kind, Bytes data, MutableBytes out);

}  // namespace usbd::codec

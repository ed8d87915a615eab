// SPDX-License-Identifier: Apache-2.0
//
// The libraries' block interfaces, each bounded by the memory it is given. Compression writes into
// a buffer that is one byte too small to be of use, so that a library stops when nothing is gained.
// Zstandard's contexts, which are dear to make, are kept for each thread.

#include "codec/codec.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>

#include <lz4.h>
#include <zlib.h>
#include <zstd.h>

#include <fmt/format.h>
#include <snappy-c.h>

#include "base/assert.h"
#include "base/limits.h"

namespace usbd::codec {
namespace {

constexpr std::array<std::string_view, kCodecKinds> kNames = {"identity", "lz4", "zstd", "s2",
                                                              "gzip"};
constexpr int kLevelMax = 19;
constexpr int kLevelDefault = Codec().level;
/// What must be saved, in hundredths.
constexpr size_t kGainMin = 6;
/// Of inflateInit2 and deflateInit2: the largest window, and a gzip header.
constexpr int kGzipWindow = 15 + 16;
constexpr int kGzipMemory = 8;

const char* in(Bytes data) {
  return reinterpret_cast<const char*>(data.data());
}
char* into(MutableBytes data) {
  return reinterpret_cast<char*>(data.data());
}

struct FreeZstd {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// What the functions below return: how many bytes of `out` are filled; 0: it does not fit, or
// `data` is damaged. Nothing becomes, or is made of, no bytes.

size_t compress_lz4(Bytes data, MutableBytes out) {
  const int size = LZ4_compress_default(in(data), into(out), static_cast<int>(data.size()),
                                        static_cast<int>(out.size()));
  return static_cast<size_t>(std::max(size, 0));
}

size_t decompress_lz4(Bytes data, MutableBytes out) {
  const int size = LZ4_decompress_safe(in(data), into(out), static_cast<int>(data.size()),
                                       static_cast<int>(out.size()));
  return static_cast<size_t>(std::max(size, 0));
}

size_t compress_zstd(Bytes data, MutableBytes out, int level) {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeZstd> kContext(ZSTD_createCCtx());
  USBD_ASSERT(kContext != nullptr);
  const size_t size =
      ZSTD_compressCCtx(kContext.get(), out.data(), out.size(), data.data(), data.size(), level);
  return ZSTD_isError(size) != 0 ? 0 : size;
}

size_t decompress_zstd(Bytes data, MutableBytes out) {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeZstd> kContext(ZSTD_createDCtx());
  USBD_ASSERT(kContext != nullptr);
  const size_t size =
      ZSTD_decompressDCtx(kContext.get(), out.data(), out.size(), data.data(), data.size());
  return ZSTD_isError(size) != 0 ? 0 : size;
}

size_t compress_s2(Bytes data, std::vector<std::byte>& out) {
  // The library wants room for the worst case and never looks at how much there is.
  size_t size = snappy_max_compressed_length(data.size());
  out.resize(size);
  const bool done = snappy_compress(in(data), data.size(), into(out), &size) == SNAPPY_OK;
  return done ? size : 0;
}

size_t decompress_s2(Bytes data, MutableBytes out) {
  // It says how much it holds; the library believes that, so it is looked at before.
  size_t size = 0;
  if (snappy_uncompressed_length(in(data), data.size(), &size) != SNAPPY_OK) return 0;
  if (size != out.size()) return 0;
  return snappy_uncompress(in(data), data.size(), into(out), &size) == SNAPPY_OK ? size : 0;
}

z_stream stream_over(Bytes data, MutableBytes out) {
  z_stream stream{};
  // zlib only reads from next_in; its type is from before const.
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  return stream;
}

size_t compress_gzip(Bytes data, MutableBytes out) {
  z_stream stream = stream_over(data, out);
  USBD_ASSERT(deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzipWindow, kGzipMemory,
                           Z_DEFAULT_STRATEGY) == Z_OK);
  const bool done = deflate(&stream, Z_FINISH) == Z_STREAM_END;
  const size_t size = stream.total_out;
  deflateEnd(&stream);
  return done ? size : 0;
}

size_t decompress_gzip(Bytes data, MutableBytes out) {
  z_stream stream = stream_over(data, out);
  USBD_ASSERT(inflateInit2(&stream, kGzipWindow) == Z_OK);
  const bool done = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_in == 0;
  const size_t size = stream.total_out;
  inflateEnd(&stream);
  return done ? size : 0;
}

/// The most that is worth storing instead of `size` bytes.
size_t worth(size_t size) {
  return size - (size * kGainMin + 99) / 100;
}

size_t compress_into(const Codec& codec, Bytes data, std::vector<std::byte>& out) {
  if (codec.kind == CodecKind::kS2) return compress_s2(data, out);
  out.resize(worth(data.size()));
  switch (codec.kind) {
    case CodecKind::kLz4:
      return compress_lz4(data, out);
    case CodecKind::kZstd:
      return compress_zstd(data, out, codec.level);
    case CodecKind::kGzip:
      return compress_gzip(data, out);
    default:
      return 0;
  }
}

size_t decompress_into(CodecKind kind, Bytes data, MutableBytes out) {
  switch (kind) {
    case CodecKind::kLz4:
      return decompress_lz4(data, out);
    case CodecKind::kZstd:
      return decompress_zstd(data, out);
    case CodecKind::kS2:
      return decompress_s2(data, out);
    case CodecKind::kGzip:
      return decompress_gzip(data, out);
    case CodecKind::kIdentity:
      break;
  }
  if (data.size() != out.size()) return 0;
  std::ranges::copy(data, out.begin());
  return out.size();
}

}  // namespace

Result<Codec> parse_codec(std::string_view text) {
  constexpr std::string_view kZstdLevel = "zstd:";
  const auto* const found = std::ranges::find(kNames, text);
  if (found != kNames.end()) {
    return Codec{.kind = static_cast<CodecKind>(found - kNames.begin())};
  }
  if (!text.starts_with(kZstdLevel)) {
    return Error(Errc::kInvalid, fmt::format("\"{}\" is no codec; allowed are lz4, zstd, "
                                             "zstd:LEVEL, s2, gzip, identity",
                                             text));
  }
  const std::string_view number = text.substr(kZstdLevel.size());
  int level = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), level);
  const bool whole = error == std::errc() && end == number.data() + number.size();
  if (whole && level >= 1 && level <= kLevelMax) {
    return Codec{.kind = CodecKind::kZstd, .level = level};
  }
  return Error(Errc::kInvalid, fmt::format("\"{}\" is no level of zstd: it is 1 to {}, such as "
                                           "zstd:3",
                                           number, kLevelMax));
}

std::string to_text(const Codec& codec) {
  if (codec.kind == CodecKind::kZstd && codec.level != kLevelDefault) {
    return fmt::format("zstd:{}", codec.level);
  }
  return std::string(name_of(codec.kind));
}

std::string_view name_of(CodecKind kind) {
  return kNames.at(static_cast<size_t>(kind));
}

Result<CodecKind> codec_of_number(uint8_t number) {
  if (number < kCodecKinds) return static_cast<CodecKind>(number);
  return Error(Errc::kInvalid, fmt::format("codec {} is not known to this version", number));
}

std::optional<std::vector<std::byte>> compress(const Codec& codec, Bytes data) {
  USBD_ASSERT(data.size() <= limits::kCodecPieceMax);
  if (codec.kind == CodecKind::kIdentity || worth(data.size()) == 0) return std::nullopt;
  std::vector<std::byte> out;
  const size_t size = compress_into(codec, data, out);
  if (size == 0 || size > worth(data.size())) return std::nullopt;
  out.resize(size);
  return out;
}

Result<void> decompress(CodecKind kind, Bytes data, MutableBytes out) {
  USBD_ASSERT(out.size() <= limits::kCodecPieceMax);
  const bool fits = data.size() <= limits::kCodecPieceMax && !out.empty() && !data.empty();
  if (fits && decompress_into(kind, data, out) == out.size()) return {};
  const bool nothing = data.empty() && out.empty() && kind == CodecKind::kIdentity;
  if (nothing) return {};
  return Error(Errc::kDamaged,
               fmt::format("{} bytes of {} do not become the {} bytes that they should",
                           data.size(), name_of(kind), out.size()));
}

}  // namespace usbd::codec

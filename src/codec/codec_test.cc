// SPDX-License-Identifier: Apache-2.0
//
// All codecs: round trips, what is not worth it, damaged and lying input, many threads.

#include "codec/codec.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/limits.h"
#include "base/random.h"

namespace usbd::codec {
namespace {

using ByteVector = std::vector<std::byte>;

ByteVector random_bytes(size_t size, uint64_t seed) {
  ByteVector data(size);
  SeededRng rng(seed);
  rng.fill(data);
  return data;
}

/// Words of a few letters, as source code and logs have them.
ByteVector text_bytes(size_t size, uint64_t seed) {
  constexpr std::string_view kWords[] = {"block ", "write ", "offset ", "the ", "journal\n", "42 "};
  SeededRng rng(seed);
  std::string text;
  while (text.size() < size) text += kWords[rng.below(std::size(kWords))];
  ByteVector data(size);
  std::memcpy(data.data(), text.data(), size);
  return data;
}

ByteVector bytes_of(std::initializer_list<int> values) {
  ByteVector bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

constexpr CodecKind kAll[] = {CodecKind::kIdentity, CodecKind::kLz4, CodecKind::kZstd,
                              CodecKind::kS2, CodecKind::kGzip};
constexpr CodecKind kReal[] = {CodecKind::kLz4, CodecKind::kZstd, CodecKind::kS2, CodecKind::kGzip};

class CodecTest : public testing::TestWithParam<CodecKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, CodecTest, testing::ValuesIn(kReal));

TEST_P(CodecTest, GivesBackWhatItCompressed) {
  for (const size_t size : {100U, 4096U, 5000U, 65536U, 1U << 20}) {
    for (const ByteVector& data : {ByteVector(size), text_bytes(size, size)}) {
      const auto packed = compress({.kind = GetParam()}, data);
      ASSERT_TRUE(packed);
      EXPECT_LE(packed->size(), size * 94 / 100);
      ByteVector out(size, std::byte{1});
      EXPECT_TRUE(decompress(GetParam(), *packed, out));
      EXPECT_EQ(out, data);
    }
  }
}

TEST_P(CodecTest, LeavesWhatGainsTooLittle) {
  for (const size_t size : {0U, 1U, 2U, 16U, 4096U, 65536U}) {
    EXPECT_FALSE(compress({.kind = GetParam()}, random_bytes(size, size))) << size;
  }
}

TEST_P(CodecTest, TakesWhatGainsJustEnough) {
  size_t taken = 0;
  for (size_t zeros = 0; zeros <= 8192; zeros += 64) {
    ByteVector data = random_bytes(65536, zeros);
    std::ranges::fill(MutableBytes(data).first(zeros), std::byte{0});
    const auto packed = compress({.kind = GetParam()}, data);
    if (packed) {
      ++taken;
      EXPECT_LE(packed->size() * 100, data.size() * 94);
    }
    EXPECT_TRUE(!packed || zeros >= data.size() * 5 / 100);
  }
  EXPECT_GT(taken, 0U);
}

TEST_P(CodecTest, RefusesAnotherSize) {
  const ByteVector data = text_bytes(4096, 1);
  const auto packed = compress({.kind = GetParam()}, data);
  for (const size_t size : {0U, 1U, 4095U, 4097U, 65536U}) {
    ByteVector out(size);
    EXPECT_TRUE(decompress(GetParam(), *packed, out).error().is(Errc::kDamaged)) << size;
  }
}

TEST_P(CodecTest, RefusesTruncatedInput) {
  const ByteVector data = text_bytes(4096, 2);
  const auto packed = compress({.kind = GetParam()}, data);
  for (size_t size = 0; size < packed->size(); ++size) {
    ByteVector out(data.size());
    const bool opened = decompress(GetParam(), Bytes(*packed).first(size), out).has_value();
    // LZ4's last byte may be one that the size alone gives; then the data is right all the same.
    EXPECT_TRUE(!opened || out == data) << size;
  }
}

TEST_P(CodecTest, RefusesBytesBehindTheEnd) {
  const ByteVector data = text_bytes(4096, 3);
  auto packed = *compress({.kind = GetParam()}, data);
  packed.push_back(std::byte{0});
  ByteVector out(data.size());
  EXPECT_FALSE(decompress(GetParam(), packed, out));
}

TEST_P(CodecTest, SurvivesDamagedInput) {
  SeededRng rng(4);
  const ByteVector data = text_bytes(4096, 4);
  const auto packed = *compress({.kind = GetParam()}, data);
  for (int round = 0; round < 3000; ++round) {
    ByteVector damaged = packed;
    for (uint64_t n = 1 + rng.below(4); n > 0; --n) {
      damaged[rng.below(damaged.size())] = static_cast<std::byte>(rng.below(256));
    }
    ByteVector out(data.size());
    (void)decompress(GetParam(), damaged, out).has_value();  // any answer, within its memory
  }
  for (int round = 0; round < 3000; ++round) {
    ByteVector out(1 + rng.below(5000));
    (void)decompress(GetParam(), random_bytes(rng.below(300), rng.next()), out).has_value();
  }
}

TEST_P(CodecTest, RefusesABomb) {
  const auto packed = compress({.kind = GetParam()}, ByteVector(limits::kCodecPieceMax));
  ByteVector out(65536);
  EXPECT_FALSE(decompress(GetParam(), *packed, out));
}

TEST_P(CodecTest, WorksForManyThreadsAtOnce) {
  const auto run = [kind = GetParam()](uint64_t seed) {
    for (uint64_t round = 0; round < 50; ++round) {
      const ByteVector data = text_bytes(1000 + round * 100, seed);
      ByteVector out(data.size());
      const auto packed = compress({.kind = kind}, data);
      EXPECT_TRUE(packed && decompress(kind, *packed, out) && out == data);
    }
  };
  std::vector<std::jthread> threads;
  for (uint64_t seed = 0; seed < 6; ++seed) threads.emplace_back(run, seed);
}

TEST(Codec, IdentityNeverCompressesAndCopies) {
  const ByteVector data(100);
  EXPECT_FALSE(compress({}, data));
  ByteVector out(100, std::byte{1});
  EXPECT_TRUE(decompress(CodecKind::kIdentity, data, out));
  EXPECT_EQ(out, data);
  EXPECT_FALSE(decompress(CodecKind::kIdentity, data, MutableBytes(out).first(99)));
  EXPECT_TRUE(decompress(CodecKind::kIdentity, {}, {}));
}

// "abcabcabcabcabcabcabcabcabcabc" by other programs: zstd and gzip -n; the
// LZ4 and the Snappy block by hand from their descriptions. What was once stored must be readable
// for ever.
TEST(Codec, ReadsWhatOtherProgramsWrote) {
  std::string expected;
  for (int i = 0; i < 10; ++i) expected += "abc";
  const auto expect_read = [&expected](CodecKind kind, const ByteVector& packed) {
    ByteVector out(expected.size());
    EXPECT_TRUE(decompress(kind, packed, out)) << name_of(kind);
    EXPECT_EQ(std::memcmp(out.data(), expected.data(), expected.size()), 0) << name_of(kind);
  };
  expect_read(CodecKind::kLz4,
              bytes_of({0x3f, 'a', 'b', 'c', 3, 0, 3, 0x50, 'b', 'c', 'a', 'b', 'c'}));
  // A copy of up to 64 bytes with an offset of two bytes (tag 2): 27 - 1 in the upper six bits.
  expect_read(CodecKind::kS2, bytes_of({30, 8, 'a', 'b', 'c', 26 << 2 | 2, 3, 0}));
  expect_read(CodecKind::kZstd, bytes_of({0x28, 0xb5, 0x2f, 0xfd, 0x0, 0x58, 0x4d, 0x0, 0x0, 0x18,
                                          0x61, 0x62, 0x63, 0x1, 0x0, 0x86, 0x6e, 0x8}));
  expect_read(CodecKind::kGzip,
              bytes_of({0x1f, 0x8b, 0x8,  0x0, 0x0,  0x0,  0x0,  0x0,  0x0,  0x3, 0x4b, 0x4c, 0x4a,
                        0x4e, 0xc4, 0x8d, 0x0, 0x81, 0xfc, 0xb1, 0x48, 0x1e, 0x0, 0x0,  0x0}));
}

TEST(Codec, HigherLevelsOfZstdGainMore) {
  const ByteVector data = text_bytes(1U << 16, 5);
  const auto fast = compress({.kind = CodecKind::kZstd, .level = 1}, data);
  const auto good = compress({.kind = CodecKind::kZstd, .level = 19}, data);
  EXPECT_LT(good->size(), fast->size());
  ByteVector out(data.size());
  EXPECT_TRUE(decompress(CodecKind::kZstd, *good, out));
  EXPECT_EQ(out, data);
}

TEST(ParseCodec, ReadsWhatIsWritten) {
  for (const CodecKind kind : kAll) {
    EXPECT_EQ(*parse_codec(name_of(kind)), Codec{.kind = kind});
    EXPECT_EQ(to_text({.kind = kind}), name_of(kind));
    EXPECT_EQ(*codec_of_number(static_cast<uint8_t>(kind)), kind);
  }
  for (int level = 1; level <= 19; ++level) {
    const Codec codec{.kind = CodecKind::kZstd, .level = level};
    EXPECT_EQ(*parse_codec("zstd:" + std::to_string(level)), codec);
    EXPECT_EQ(*parse_codec(to_text(codec)), codec);
  }
}

TEST(ParseCodec, SaysWhatIsAllowed) {
  for (const char* const text : {"", "LZ4", "brotli", "lz4:3", "zstd ", "zst"}) {
    const auto parsed = parse_codec(text);
    ASSERT_FALSE(parsed);
    EXPECT_NE(parsed.error().context().find("zstd:LEVEL, s2, gzip"), std::string::npos);
  }
  for (const char* const text : {"zstd:", "zstd:0", "zstd:20", "zstd:-1", "zstd:3x", "zstd: 3"}) {
    const auto parsed = parse_codec(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().context().find("1 to 19"), std::string::npos);
  }
  EXPECT_TRUE(codec_of_number(kCodecKinds).error().is(Errc::kInvalid));
}

}  // namespace
}  // namespace usbd::codec

// SPDX-License-Identifier: Apache-2.0
//
// The rule of key_text.h: which reading wins, and which line end is taken away.

#include "crypto/key_text.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/random.h"
#include "crypto/testing.h"

namespace usbd::crypto {
namespace {

std::string decoded(std::string_view content) {
  const Result<Secret> key = decode_key(from_text(content));
  return key ? to_hex(key->bytes()) : "error";
}

std::string hex_of(std::string_view text) {
  return to_hex(from_text(text));
}

constexpr std::string_view kHex16 = "000102030405060708090a0b0c0d0e0f";
constexpr std::string_view kHex24 = "000102030405060708090a0b0c0d0e0f1011121314151617";
constexpr std::string_view kHex32 =
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

TEST(DecodeKey, ReadsHexOfAnyCase) {
  EXPECT_EQ(decoded(kHex16), kHex16);
  EXPECT_EQ(decoded(kHex24), kHex24);
  EXPECT_EQ(decoded(kHex32), kHex32);
  EXPECT_EQ(decoded("ABCDEFabcdef00112233445566778899"), "abcdefabcdef00112233445566778899");
}

TEST(DecodeKey, ReadsBase64) {
  EXPECT_EQ(decoded("AAECAwQFBgcICQoLDA0ODw=="), kHex16);
  EXPECT_EQ(decoded("AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"), kHex24);
  EXPECT_EQ(decoded("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), kHex32);
  EXPECT_EQ(decoded("++//++//++//++//++//++//++//++//").substr(0, 6), "fbefff");
}

TEST(DecodeKey, ReadsTheBytesThemselves) {
  for (const std::string_view raw :
       {"sixteen bytes ok", "twenty-four bytes, so ok", "thirty-two bytes of a key, it is"}) {
    EXPECT_EQ(decoded(raw), hex_of(raw));
  }
  EXPECT_EQ(decoded(std::string_view("\0\1\2\3\0\1\2\3\0\1\2\3\0\1\2\n", 16)),
            "0001020300010203000102030001020a");
}

TEST(DecodeKey, IgnoresOneLineEnd) {
  for (const std::string_view key :
       {kHex16, kHex24, kHex32, std::string_view("sixteen bytes ok"),
        std::string_view("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")}) {
    EXPECT_EQ(decoded(std::string(key) + "\n"), decoded(key));
    EXPECT_EQ(decoded(std::string(key) + "\r\n"), decoded(key));
    EXPECT_EQ(decoded(std::string(key) + "\n\n"), "error");
  }
}

TEST(DecodeKey, KeepsALineEndThatIsAPartOfTheKey) {
  EXPECT_EQ(decoded("fifteen bytes..\n"), hex_of("fifteen bytes..\n"));
  EXPECT_EQ(decoded("fifteen bytes..\r\n"), hex_of("fifteen bytes..\r"));
}

TEST(DecodeKey, PrefersHexToBase64ToTheBytes) {
  EXPECT_EQ(decoded("abcdabcdabcdabcdabcdabcdabcdabcd"), "abcdabcdabcdabcdabcdabcdabcdabcd");
  EXPECT_EQ(decoded("abcdabcdabcdabcdabcdabcdabcdabcg").size(), 48U);  // base64 of 24 bytes
  EXPECT_EQ(decoded("abcdabcdabcdabcdabcdabcdabcdabc_").size(), 64U);  // the bytes
  // The last digit has bits that no byte takes: not what an encoder writes, so the bytes.
  EXPECT_EQ(decoded("AAECAwQFBgcICQoLDA0ODx==").size(), 48U);
  EXPECT_EQ(decoded("AAECAwQFBgcICQoLDA0O=w==").size(), 48U);
}

TEST(DecodeKey, TakesRandomBytesAsTheyAre) {
  SeededRng rng(1);
  for (int round = 0; round < 2000; ++round) {
    ByteVector raw(round % 3 == 0 ? 16 : round % 3 == 1 ? 24 : 32);
    rng.fill(raw);
    EXPECT_EQ(to_hex(decode_key(raw)->bytes()), to_hex(raw));
    raw.push_back(std::byte{'\n'});
    EXPECT_EQ(decode_key(raw)->size() + 1, raw.size());
  }
}

TEST(DecodeKey, RefusesOtherLengthsAndDamagedEncodings) {
  for (size_t size = 0; size <= 130; ++size) {
    const bool key = size == 16 || size == 24 || size == 32;
    EXPECT_EQ(decoded(std::string(size, '.')) != "error", key) << size;
  }
  EXPECT_EQ(decoded(std::string(63, 'a') + "g"), "error");
  EXPECT_EQ(decoded(std::string(47, 'a') + "g"), "error");
  EXPECT_EQ(decoded(std::string(42, 'a') + "=="), "error");
  EXPECT_EQ(decoded(std::string(44, 'a')), "error");
}

TEST(DecodeKey, ShowsNothingOfTheContent) {
  const Result<Secret> key = decode_key(from_text("hunter2"));
  EXPECT_TRUE(key.error().is(Errc::kInvalid));
  EXPECT_EQ(key.error().message().find("hunter"), std::string::npos);
  EXPECT_NE(key.error().message().find("16, 24 or 32"), std::string::npos);
}

}  // namespace
}  // namespace usbd::crypto

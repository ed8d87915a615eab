// SPDX-License-Identifier: Apache-2.0
//
// Percent-encoding and hex.

#include "objects/s3/encoding.h"

#include <array>

#include <gtest/gtest.h>

namespace usbd::objects::s3 {
namespace {

TEST(S3Encoding, KeepsOnlyUnreservedCharacters) {
  EXPECT_EQ(percent_encode("AZaz09-._~", KeepSlash::kNo), "AZaz09-._~");
  EXPECT_EQ(percent_encode(" !*'()+=&%", KeepSlash::kNo), "%20%21%2A%27%28%29%2B%3D%26%25");
  EXPECT_EQ(percent_encode("\xC3\xA9", KeepSlash::kNo), "%C3%A9");
}

TEST(S3Encoding, KeepsASlashWhereItIsAsked) {
  EXPECT_EQ(percent_encode("a/b", KeepSlash::kYes), "a/b");
  EXPECT_EQ(percent_encode("a/b", KeepSlash::kNo), "a%2Fb");
}

TEST(S3Encoding, DecodesWhatItEncodes) {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(percent_decode(percent_encode(all, KeepSlash::kNo)), all);
  EXPECT_EQ(percent_decode("a+b%2bc"), "a b+c");
}

TEST(S3Encoding, RefusesACutOrWrongEscape) {
  EXPECT_EQ(percent_decode("%"), std::nullopt);
  EXPECT_EQ(percent_decode("a%2"), std::nullopt);
  EXPECT_EQ(percent_decode("%g0"), std::nullopt);
  EXPECT_EQ(percent_decode("%0g"), std::nullopt);
  EXPECT_EQ(percent_decode("%-1"), std::nullopt);
}

TEST(S3Encoding, WritesHexSmall) {
  const std::array<std::byte, 3> data{std::byte{0}, std::byte{0xAB}, std::byte{0xFF}};
  EXPECT_EQ(to_hex(data), "00abff");
}

TEST(S3Encoding, TrimsAndLowersAscii) {
  EXPECT_EQ(trim(" \t a b \r\n"), "a b");
  EXPECT_EQ(trim("  "), "");
  EXPECT_EQ(to_lower("ETag-\xC3\x89"), "etag-\xC3\x89");
}

}  // namespace
}  // namespace usbd::objects::s3

// SPDX-License-Identifier: Apache-2.0
//
// RFC 5869, appendix A, cases 1 to 3.

#include "crypto/hkdf.h"

#include <gtest/gtest.h>

#include "crypto/testing.h"

namespace usbd::crypto {
namespace {

ByteVector counting(unsigned from, size_t count) {
  ByteVector bytes;
  for (size_t i = 0; i < count; ++i) bytes.push_back(static_cast<std::byte>(from + i));
  return bytes;
}

std::string expanded(const Hkdf& hkdf, Bytes info, size_t size) {
  ByteVector key(size);
  hkdf.expand(info, key);
  return to_hex(key);
}

TEST(Hkdf, GivesThePublishedKeyOfCase1) {
  const Hkdf hkdf(ByteVector(22, std::byte{0x0b}), counting(0, 13));
  EXPECT_EQ(expanded(hkdf, counting(0xf0, 10), 42),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
}

TEST(Hkdf, GivesThePublishedKeyOfCase2) {
  const Hkdf hkdf(counting(0, 80), counting(0x60, 80));
  EXPECT_EQ(
      expanded(hkdf, counting(0xb0, 80), 82),
      "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c6"
      "5e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87");
}

TEST(Hkdf, GivesThePublishedKeyOfCase3) {
  const Hkdf hkdf(ByteVector(22, std::byte{0x0b}), {});
  EXPECT_EQ(expanded(hkdf, {}, 42),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

TEST(Hkdf, MakesAKeyOfTheLargestSizeAndOfNone) {
  const Hkdf hkdf(counting(0, 32), {});
  EXPECT_EQ(expanded(hkdf, {}, kHkdfBytesMax).size(), 2 * kHkdfBytesMax);
  EXPECT_EQ(expanded(hkdf, {}, 0), "");
}

TEST(Hkdf, MakesOtherKeysForOtherPurposesAndSalts) {
  const Hkdf hkdf(counting(0, 32), counting(0, 16));
  const Hkdf other(counting(0, 32), counting(1, 16));
  EXPECT_NE(expanded(hkdf, counting(1, 1), 32), expanded(hkdf, counting(2, 1), 32));
  EXPECT_NE(expanded(hkdf, counting(1, 1), 32), expanded(other, counting(1, 1), 32));
}

}  // namespace
}  // namespace usbd::crypto

// SPDX-License-Identifier: Apache-2.0
//
// The published values of SHA-256 and HMAC-SHA256.

#include "crypto/hmac.h"

#include <gtest/gtest.h>

#include "crypto/testing.h"

namespace usbd::crypto {
namespace {

// FIPS 180-4's examples.
TEST(Sha256, GivesThePublishedValues) {
  EXPECT_EQ(to_hex(sha256(from_text("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256(Bytes())),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256, TakesPartsAndBeginsAnew) {
  Sha256 digest;
  for (int round = 0; round < 2; ++round) {
    digest.update(from_text("a"));
    digest.update({});
    digest.update(from_text("bc"));
    EXPECT_EQ(digest.finish(), sha256(from_text("abc")));
  }
  EXPECT_EQ(sha256({from_text("ab"), from_text("c")}), sha256(from_text("abc")));
}

// RFC 4231, cases 1, 2 and 6: a short key, a key of letters, one longer than a block.
TEST(HmacSha256, GivesThePublishedValues) {
  EXPECT_EQ(to_hex(hmac_sha256(ByteVector(20, std::byte{0x0b}), from_text("Hi There"))),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(to_hex(hmac_sha256(from_text("Jefe"), from_text("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(
      to_hex(hmac_sha256(ByteVector(131, std::byte{0xaa}),
                         from_text("Test Using Larger Than Block-Size Key - Hash Key First"))),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(HmacSha256, TakesPartsOfAMessage) {
  const HmacSha256 mac(from_text("key"));
  EXPECT_EQ(mac.of({from_text("one"), {}, from_text("two")}), mac.of(from_text("onetwo")));
}

TEST(HmacSha256, DependsOnTheKey) {
  EXPECT_NE(hmac_sha256(from_text("a"), {}), hmac_sha256(from_text("b"), {}));
}

TEST(EqualSecretly, ComparesSizesAndBytes) {
  EXPECT_TRUE(equal_secretly(from_hex("0102"), from_hex("0102")));
  EXPECT_FALSE(equal_secretly(from_hex("0102"), from_hex("0103")));
  EXPECT_FALSE(equal_secretly(from_hex("01"), from_hex("0102")));
  EXPECT_TRUE(equal_secretly({}, {}));
}

}  // namespace
}  // namespace usbd::crypto

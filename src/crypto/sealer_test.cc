// SPDX-License-Identifier: Apache-2.0
//
// What all modes promise alike, that keys differ by everything they are made of, and fixed values,
// so that a change of the derivation, which would make buckets unreadable, does not pass unseen.

#include "crypto/sealer.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "crypto/testing.h"

namespace usbd::crypto {
namespace {

constexpr std::array<CipherMode, kCipherModes> kAll = {
    CipherMode::kIdentity, CipherMode::kAesGcm, CipherMode::kChaCha20Poly1305,
    CipherMode::kAesCtr,   CipherMode::kAesCfb, CipherMode::kAesOfb};

struct Scope {
  ByteVector key = ByteVector(32, std::byte{1});
  ByteVector salt = ByteVector(16, std::byte{2});
  std::string label = "usbd-test-v1";
  ByteVector identity = from_text("object 7");

  [[nodiscard]] std::unique_ptr<const Sealer> make(CipherMode mode) const {
    return *make_sealer(mode, key, {.salt = salt, .label = label, .identity = identity});
  }
};

struct Sealed {
  ByteVector cipher;
  ByteVector tag;
};

const ByteVector kPlain = from_text("a piece of data, longer than one block of a cipher");
const ByteVector kAad = from_text("frame 3");

Sealed seal(const Sealer& sealer, uint64_t index) {
  Sealed sealed{.cipher = ByteVector(kPlain.size()), .tag = ByteVector(sealer.tag_size())};
  sealer.seal(index, AssociatedData(kAad), kPlain, sealed.cipher, sealed.tag);
  return sealed;
}

bool opens(const Sealer& sealer, uint64_t index, const Sealed& sealed) {
  ByteVector plain(sealed.cipher.size(), std::byte{9});
  const bool right = sealer.open(index, AssociatedData(kAad), sealed.cipher, sealed.tag, plain);
  EXPECT_EQ(plain, right ? kPlain : ByteVector(plain.size()));
  return right;
}

class SealerTest : public testing::TestWithParam<CipherMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, SealerTest, testing::ValuesIn(kAll));

TEST_P(SealerTest, OpensWhatItSealed) {
  const auto sealer = Scope().make(GetParam());
  EXPECT_EQ(sealer->mode(), GetParam());
  EXPECT_TRUE(opens(*sealer, 5, seal(*sealer, 5)));
  EXPECT_TRUE(opens(*Scope().make(GetParam()), 5, seal(*sealer, 5)));
}

TEST_P(SealerTest, TakesKeysOfEachSize) {
  for (const size_t size : {16U, 24U, 32U}) {
    Scope scope;
    scope.key.resize(size);
    const auto sealer = scope.make(GetParam());
    EXPECT_TRUE(opens(*sealer, 5, seal(*sealer, 5)));
  }
}

TEST_P(SealerTest, RefusesAnyChange) {
  const auto sealer = Scope().make(GetParam());
  Sealed sealed = seal(*sealer, 5);
  EXPECT_FALSE(opens(*sealer, 6, sealed));
  for (MutableBytes part : {MutableBytes(sealed.cipher), MutableBytes(sealed.tag)}) {
    for (std::byte& byte : part) {
      byte ^= std::byte{1};
      EXPECT_FALSE(opens(*sealer, 5, sealed));
      byte ^= std::byte{1};
    }
  }
  EXPECT_TRUE(opens(*sealer, 5, sealed));
}

TEST_P(SealerTest, RefusesWhatAnotherScopeSealed) {
  const Sealed sealed = seal(*Scope().make(GetParam()), 5);
  Scope other;
  other.salt[0] ^= std::byte{1};
  EXPECT_FALSE(opens(*other.make(GetParam()), 5, sealed));
  other = Scope();
  other.label = "usbd-test-v2";
  EXPECT_FALSE(opens(*other.make(GetParam()), 5, sealed));
  other = Scope();
  other.identity = from_text("object 8");
  EXPECT_FALSE(opens(*other.make(GetParam()), 5, sealed));
}

TEST_P(SealerTest, RefusesAnotherKeyUnlessThereIsNone) {
  const Sealed sealed = seal(*Scope().make(GetParam()), 5);
  Scope other;
  other.key[31] ^= std::byte{1};
  EXPECT_EQ(opens(*other.make(GetParam()), 5, sealed), GetParam() == CipherMode::kIdentity);
}

TEST_P(SealerTest, SealsNothingAtAllToo) {
  const auto sealer = Scope().make(GetParam());
  ByteVector tag(sealer->tag_size());
  sealer->seal(1, AssociatedData(kAad), {}, {}, tag);
  EXPECT_TRUE(sealer->open(1, AssociatedData(kAad), {}, tag, {}));
  EXPECT_FALSE(sealer->open(1, {}, {}, tag, {}));
}

TEST_P(SealerTest, HasANameThatIsReadBack) {
  EXPECT_EQ(*parse_cipher(to_text(GetParam())), GetParam());
  EXPECT_EQ(*cipher_of_number(static_cast<uint8_t>(GetParam())), GetParam());
}

// From a second implementation of what sealer.h, sealer.cc and stream_cipher.cc describe, made of
// Python's hmac and the openssl program's single blocks.
TEST(Sealer, KeepsItsFormat) {
  const std::map<CipherMode, const char*> expected = {
      {CipherMode::kIdentity, "6120706965636520 b75381e2"},
      {CipherMode::kAesGcm, "e89c0199ed81b1ed 137627756be561602d0ee7b73e5f7e9d"},
      {CipherMode::kChaCha20Poly1305, "37974e1cc2c9a83b 88cef21a7e4e22009fdbad0aca7f3f8d"},
      {CipherMode::kAesCtr,
       "95efacca8a80e5ed 1c1c0e128fa444276931b0358a38f5c089d580bbfb3293cd480d4feebe6531c9"},
      {CipherMode::kAesCfb,
       "dd0592b6ac416f88 81843e33c9650a2b8e85c8de6b8bfc78b337befbfd86d92a52b0c53ea0f48c6d"},
      {CipherMode::kAesOfb,
       "bc3283228f6115e8 9255895d128cd81402a4dac01c20d3a240d69aec7c8536cad203ffee60838c7e"},
  };
  for (const auto& [mode, bytes] : expected) {
    const Sealed sealed = seal(*Scope().make(mode), 5);
    EXPECT_EQ(to_hex(Bytes(sealed.cipher).first(8)) + " " + to_hex(sealed.tag), bytes)
        << to_text(mode);
  }
}

TEST(Sealer, UsesAnotherKeyForEachMode) {
  std::set<std::string> ciphers;
  for (const CipherMode mode : kAll) ciphers.insert(to_hex(seal(*Scope().make(mode), 5).cipher));
  EXPECT_EQ(ciphers.size(), kAll.size());
}

TEST(Sealer, IdentityLeavesTheBytes) {
  EXPECT_EQ(seal(*Scope().make(CipherMode::kIdentity), 5).cipher, kPlain);
}

TEST(Sealer, NeedsAKeyOfAKnownSize) {
  for (const CipherMode mode : kAll) {
    const auto made = make_sealer(mode, ByteVector(20), {});
    EXPECT_EQ(made.has_value(), mode == CipherMode::kIdentity);
    EXPECT_TRUE(made || made.error().is(Errc::kInvalid));
  }
}

TEST(ParseCipher, KnowsTheOldNameOfAesGcm) {
  EXPECT_EQ(*parse_cipher("aes-rec"), CipherMode::kAesGcm);
}

TEST(ParseCipher, NamesWhatIsAllowed) {
  const auto parsed = parse_cipher("rot13");
  EXPECT_TRUE(parsed.error().is(Errc::kInvalid));
  EXPECT_NE(parsed.error().context().find("aes-gcm"), std::string::npos);
  EXPECT_TRUE(cipher_of_number(kCipherModes).error().is(Errc::kInvalid));
}

TEST(KeyCheck, DependsOnKeyAndSalt) {
  const ByteVector key(32, std::byte{1});
  const ByteVector salt(16, std::byte{2});
  EXPECT_EQ(key_check(key, salt), key_check(key, salt));
  EXPECT_NE(key_check(key, salt), key_check(ByteVector(32), salt));
  EXPECT_NE(key_check(key, salt), key_check(key, ByteVector(16)));
}

}  // namespace
}  // namespace usbd::crypto

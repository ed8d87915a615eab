// SPDX-License-Identifier: Apache-2.0
//
// Published values of AES-GCM (its specification's test cases, by McGrew and Viega) and of
// ChaCha20-Poly1305 (RFC 8439), that every change is noticed, and use by many threads.

#include "crypto/aead.h"

#include <algorithm>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "crypto/testing.h"

namespace usbd::crypto {
namespace {

using Tag = std::array<std::byte, Aead::kTagBytes>;

struct Vector {
  AeadKind kind;
  const char* key;
  const char* nonce;
  const char* aad;
  const char* plain;
  const char* cipher;
  const char* tag;
};

constexpr const char* kZeroKey = "00000000000000000000000000000000";
constexpr const char* kZeroNonce = "000000000000000000000000";
constexpr const char* kGcmNonce = "cafebabefacedbaddecaf888";
constexpr const char* kGcmAad = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
constexpr const char* kGcmPlain =
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b5"
    "25b16aedf5aa0de657ba637b39";

// Cases 1, 2, 4, 10 and 16 of AES-GCM; RFC 8439, 2.8.2.
const std::vector<Vector>& vectors() {
  static const std::vector<Vector> kVectors = {
      {AeadKind::kAesGcm, kZeroKey, kZeroNonce, "", "", "", "58e2fccefa7e3061367f1d57a4e7455a"},
      {AeadKind::kAesGcm, kZeroKey, kZeroNonce, "", "00000000000000000000000000000000",
       "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf"},
      {AeadKind::kAesGcm, "feffe9928665731c6d6a8f9467308308", kGcmNonce, kGcmAad, kGcmPlain,
       "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac8"
       "4aa051ba30b396a0aac973d58e091",
       "5bc94fbc3221a5db94fae95ae7121a47"},
      {AeadKind::kAesGcm, "feffe9928665731c6d6a8f9467308308feffe9928665731c", kGcmNonce, kGcmAad,
       kGcmPlain,
       "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84"
       "a3f4718e2448b2fe324d9ccda2710",
       "2519498e80f1478f37ba55bd6d27618c"},
      {AeadKind::kAesGcm, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
       kGcmNonce, kGcmAad, kGcmPlain,
       "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b10568"
       "28838c5f61e6393ba7a0abcc9f662",
       "76fc6ece0f4e1768cddf8853bb2d551b"},
      {AeadKind::kChaCha20Poly1305,
       "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
       "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
       "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a204966204"
       "920636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c"
       "2073756e73637265656e20776f756c642062652069742e",
       "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da9"
       "2728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad67594558580"
       "8b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116",
       "1ae10b594f09e26a7e902ecbd0600691"},
  };
  return kVectors;
}

Aead::Nonce nonce_of(Bytes bytes) {
  Aead::Nonce nonce{};
  std::ranges::copy(bytes, nonce.begin());
  return nonce;
}

Tag tag_of(Bytes bytes) {
  Tag tag{};
  std::ranges::copy(bytes, tag.begin());
  return tag;
}

std::unique_ptr<Aead> make(AeadKind kind, Bytes key) {
  return *Aead::create(kind, key);
}

/// One sealed message whose every part can be changed.
struct Message {
  explicit Message(AeadKind kind) : aead(make(kind, ByteVector(32, std::byte{3}))) {
    cipher.resize(plain.size());
    aead->seal(nonce, AssociatedData(aad), plain, cipher, tag);
  }

  [[nodiscard]] bool opens() const {
    ByteVector opened(plain.size(), std::byte{1});
    const bool right = aead->open(nonce, AssociatedData(aad), cipher, tag, opened);
    EXPECT_EQ(opened, right ? plain : ByteVector(plain.size()));
    return right;
  }

  std::unique_ptr<Aead> aead;
  Aead::Nonce nonce{};
  ByteVector aad = from_text("who and where");
  ByteVector plain = from_text("some data of a size that is no multiple of a block");
  ByteVector cipher;
  Tag tag{};
};

class AeadTest : public testing::TestWithParam<AeadKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, AeadTest,
                         testing::Values(AeadKind::kAesGcm, AeadKind::kChaCha20Poly1305));

TEST(Aead, GivesThePublishedValues) {
  for (const Vector& vector : vectors()) {
    const auto aead = make(vector.kind, from_hex(vector.key));
    const ByteVector aad = from_hex(vector.aad);
    ByteVector text = from_hex(vector.plain);
    Tag tag{};
    aead->seal(nonce_of(from_hex(vector.nonce)), AssociatedData(aad), text, text, tag);
    EXPECT_EQ(to_hex(text), vector.cipher);
    EXPECT_EQ(to_hex(tag), vector.tag);
    EXPECT_TRUE(aead->open(nonce_of(from_hex(vector.nonce)), AssociatedData(aad), text,
                           tag_of(from_hex(vector.tag)), text));
    EXPECT_EQ(to_hex(text), vector.plain);
  }
}

TEST(Aead, RefusesKeysOfOtherSizes) {
  for (const size_t size : {0U, 8U, 15U, 17U, 33U, 64U}) {
    EXPECT_TRUE(Aead::create(AeadKind::kAesGcm, ByteVector(size)).error().is(Errc::kInvalid));
  }
  const auto chacha = Aead::create(AeadKind::kChaCha20Poly1305, ByteVector(16));
  EXPECT_NE(chacha.error().context().find("32 bytes"), std::string::npos);
}

TEST_P(AeadTest, OpensWhatItSealed) {
  EXPECT_TRUE(Message(GetParam()).opens());
}

TEST_P(AeadTest, RefusesAnyChangedByteAndWipes) {
  Message message(GetParam());
  const auto refuses_changes = [&](MutableBytes bytes) {
    for (std::byte& byte : bytes) {
      byte ^= std::byte{0x40};
      EXPECT_FALSE(message.opens());
      byte ^= std::byte{0x40};
    }
  };
  refuses_changes(message.nonce);
  refuses_changes(message.aad);
  refuses_changes(message.cipher);
  refuses_changes(message.tag);
  EXPECT_TRUE(message.opens());
}

TEST_P(AeadTest, RefusesOtherSizesAndKeys) {
  Message message(GetParam());
  message.aad.pop_back();
  EXPECT_FALSE(message.opens());
  message.aad = from_text("who and where");
  EXPECT_TRUE(message.opens());
  message.aead = make(GetParam(), ByteVector(32, std::byte{4}));
  EXPECT_FALSE(message.opens());
}

TEST_P(AeadTest, TakesAssociatedDataInTwoParts) {
  Message message(GetParam());
  const Bytes aad = message.aad;
  ByteVector opened(message.plain.size());
  EXPECT_TRUE(message.aead->open(message.nonce, {aad.first(4), aad.subspan(4)}, message.cipher,
                                 message.tag, opened));
}

TEST_P(AeadTest, WorksForManyThreadsAtOnce) {
  const auto aead = make(GetParam(), ByteVector(32, std::byte{9}));
  const auto run = [&aead](uint64_t seed) {
    SeededRng rng(seed);
    for (int round = 0; round < 200; ++round) {
      ByteVector plain(rng.below(5000));
      rng.fill(plain);
      ByteVector text = plain;
      Aead::Nonce nonce{};
      rng.fill(nonce);
      Tag tag{};
      aead->seal(nonce, {}, text, text, tag);
      EXPECT_TRUE(aead->open(nonce, {}, text, tag, text));
      EXPECT_EQ(text, plain);
    }
  };
  std::vector<std::jthread> threads;
  for (uint64_t seed = 0; seed < 12; ++seed) threads.emplace_back(run, seed);
}

}  // namespace
}  // namespace usbd::crypto

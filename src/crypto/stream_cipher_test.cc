// SPDX-License-Identifier: Apache-2.0
//
// The modes against NIST SP 800-38A, appendix F, through the contexts they use; the first blocks
// against AES alone; that a change anywhere is refused before anything is decrypted.

#include "crypto/stream_cipher.h"

#include <algorithm>
#include <cstring>

#include <gtest/gtest.h>

#include "base/endian.h"
#include "crypto/testing.h"

namespace usbd::crypto {
namespace {

using Way = KeyedContexts::Way;
using Tag = std::array<std::byte, StreamCipher::kTagBytes>;

constexpr const char* kKey = "2b7e151628aed2a6abf7158809cf4f3c";
constexpr const char* kTwoBlocks =
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";

ByteVector run(Algorithm algorithm, Bytes key, Bytes iv, Bytes from, Way way) {
  ByteVector to(from.size());
  const KeyedContexts contexts(find_cipher(algorithm, key.size()), key);
  contexts.begin(iv, way).update(from, to);
  return to;
}

void expect_vector(Algorithm algorithm, const char* iv, const char* cipher) {
  const ByteVector sealed =
      run(algorithm, from_hex(kKey), from_hex(iv), from_hex(kTwoBlocks), Way::kEncrypt);
  EXPECT_EQ(to_hex(sealed), cipher);
  EXPECT_EQ(to_hex(run(algorithm, from_hex(kKey), from_hex(iv), sealed, Way::kDecrypt)),
            kTwoBlocks);
}

TEST(KeyedContexts, GiveThePublishedValues) {
  expect_vector(Algorithm::kAesCtr, "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
                "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff");
  expect_vector(Algorithm::kAesCfb, "000102030405060708090a0b0c0d0e0f",
                "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b");
  expect_vector(Algorithm::kAesOfb, "000102030405060708090a0b0c0d0e0f",
                "3b3fd92eb72dad20333449f8e83cfb4a7789508d16918f03f53c52dac54ed825");
}

TEST(FindCipher, KnowsTheSizesOfKeys) {
  EXPECT_NE(find_cipher(Algorithm::kAesCtr, 24), nullptr);
  EXPECT_EQ(find_cipher(Algorithm::kAesCtr, 20), nullptr);
  EXPECT_EQ(find_cipher(Algorithm::kChaCha20Poly1305, 16), nullptr);
}

struct Message {
  explicit Message(StreamMode mode, size_t key_size = 32)
      : cipher_key(key_size, std::byte{1}), iv_key(key_size, std::byte{2}) {
    stream = *StreamCipher::create(mode, {.cipher = cipher_key, .iv = iv_key, .mac = mac_key});
    cipher.resize(plain.size());
    stream->seal(index, AssociatedData(aad), plain, cipher, tag);
  }

  [[nodiscard]] bool opens() const {
    ByteVector opened(cipher.size(), std::byte{1});
    const bool right = stream->open(index, AssociatedData(aad), cipher, tag, opened);
    EXPECT_EQ(opened, right ? plain : ByteVector(cipher.size()));
    return right;
  }

  ByteVector cipher_key;
  ByteVector iv_key;
  ByteVector mac_key = ByteVector(32, std::byte{3});
  std::unique_ptr<StreamCipher> stream;
  uint64_t index = 0x0102030405060708;
  ByteVector aad = from_text("who and where");
  ByteVector plain = from_text("some data of a size that is no multiple of a block");
  ByteVector cipher;
  Tag tag{};
};

class StreamCipherTest : public testing::TestWithParam<StreamMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, StreamCipherTest,
                         testing::Values(StreamMode::kCtr, StreamMode::kCfb, StreamMode::kOfb));

TEST_P(StreamCipherTest, OpensWhatItSealed) {
  for (const size_t size : {16U, 24U, 32U}) EXPECT_TRUE(Message(GetParam(), size).opens());
}

TEST_P(StreamCipherTest, RefusesAnyChangedByteAndWipes) {
  Message message(GetParam());
  const auto refuses_changes = [&](MutableBytes bytes) {
    for (std::byte& byte : bytes) {
      byte ^= std::byte{0x40};
      EXPECT_FALSE(message.opens());
      byte ^= std::byte{0x40};
    }
  };
  refuses_changes(message.aad);
  refuses_changes(message.cipher);
  refuses_changes(message.tag);
  ++message.index;
  EXPECT_FALSE(message.opens());
  --message.index;
  EXPECT_TRUE(message.opens());
}

TEST_P(StreamCipherTest, RefusesBytesMovedBetweenDataAndAssociatedData) {
  Message message(GetParam());
  message.cipher.insert(message.cipher.begin(), message.aad.back());
  message.aad.pop_back();
  EXPECT_FALSE(message.opens());
}

TEST_P(StreamCipherTest, WorksInPlace) {
  Message message(GetParam());
  ByteVector text = message.plain;
  Tag tag{};
  message.stream->seal(message.index, AssociatedData(message.aad), text, text, tag);
  EXPECT_EQ(text, message.cipher);
  EXPECT_TRUE(message.stream->open(message.index, AssociatedData(message.aad), text, tag, text));
  EXPECT_EQ(text, message.plain);
}

TEST_P(StreamCipherTest, RefusesKeysOfOtherSizes) {
  const ByteVector odd(20);
  const ByteVector right(16);
  const auto with = [&](Bytes cipher, Bytes iv) {
    return StreamCipher::create(GetParam(), {.cipher = cipher, .iv = iv, .mac = right});
  };
  EXPECT_TRUE(with(odd, odd).error().is(Errc::kInvalid));
  EXPECT_TRUE(with(right, odd).error().is(Errc::kInvalid));
  EXPECT_TRUE(with(right, right).has_value());
}

TEST(StreamCipher, CountsInTheLowerHalfUnderTheIndex) {
  const Message message(StreamMode::kCtr);
  const ByteVector counters = from_hex(
      "0102030405060708000000000000000001020304050607080000000000000001"
      "0102030405060708000000000000000201020304050607080000000000000003");
  const ByteVector stream =
      run(Algorithm::kAesEcb, message.cipher_key, {}, counters, Way::kEncrypt);
  ByteVector expected = message.plain;
  for (size_t i = 0; i < expected.size(); ++i) expected[i] ^= stream[i];
  EXPECT_EQ(message.cipher, expected);
}

TEST(StreamCipher, StartsFromTheEncryptedIndex) {
  const Message message(StreamMode::kOfb);
  const ByteVector index = from_hex("01020304050607080000000000000000");
  const ByteVector iv = run(Algorithm::kAesEcb, message.iv_key, {}, index, Way::kEncrypt);
  EXPECT_EQ(message.cipher,
            run(Algorithm::kAesOfb, message.cipher_key, iv, message.plain, Way::kEncrypt));
}

}  // namespace
}  // namespace usbd::crypto

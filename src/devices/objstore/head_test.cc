// SPDX-License-Identifier: Apache-2.0
//
// A head is read as it was written, or refused with a sentence that says why.

#include "devices/objstore/head.h"

#include <algorithm>
#include <array>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "base/endian.h"

namespace usbd::objstore {
namespace {

using testing::HasSubstr;

constexpr std::array<std::byte, 32> kKey = {std::byte(7)};
constexpr std::array<std::byte, 32> kOtherKey = {std::byte(8)};

Head example() {
  Head head;
  head.volume[0] = std::byte(1);
  head.size = 10ULL << 30;
  head.cipher = crypto::CipherMode::kAesGcm;
  head.key_salt[0] = std::byte(2);
  head.key_check = crypto::key_check(kKey, head.key_salt);
  head.version = 12;
  head.epoch = 5;
  head.writer[0] = std::byte(3);
  head.journal[0] = std::byte(4);
  head.nonce[0] = std::byte(5);
  head.last_seq = 9;
  head.published_number = 1000;
  head.root = {.epoch = 3, .id = 1, .offset = 96, .stored = 80, .logical = 70, .covers_seq = 4};
  head.epochs = {{.epoch = 3, .first_seq = 5}, {.epoch = 5, .first_seq = 8}};
  return head;
}

std::string refusal(Bytes bytes, Bytes key = kKey) {
  const Result<Head> head = decode(bytes, key);
  return head ? "accepted" : head.error().message();
}

void mend_crc(std::vector<std::byte>& bytes) {
  const Le32 crc = crc32c(Bytes(bytes).first(bytes.size() - sizeof(Le32)));
  std::ranges::copy(wire_bytes(crc), bytes.end() - sizeof(Le32));
}

TEST(Head, IsReadAsItWasWritten) {
  const Result<Head> head = decode(encode(example(), kKey), kKey);
  ASSERT_TRUE(head) << head.error().message();
  EXPECT_EQ(*head, example());
}

TEST(Head, KnowsTheEpochOfEachObject) {
  EXPECT_EQ(example().epoch_of(5), 3U);
  EXPECT_EQ(example().epoch_of(7), 3U);
  EXPECT_EQ(example().epoch_of(8), 5U);
  EXPECT_EQ(example().epoch_of(9), 5U);
}

TEST(Head, RefusesAnotherKey) {
  EXPECT_THAT(refusal(encode(example(), kKey), kOtherKey), HasSubstr("not the key"));
}

TEST(Head, RefusesEveryChangedBit) {
  const std::vector<std::byte> good = encode(example(), kKey);
  for (size_t at = 0; at < good.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      std::vector<std::byte> bad = good;
      bad[at] ^= static_cast<std::byte>(1U << bit);
      EXPECT_NE(refusal(bad), "accepted") << at << " " << bit;
      // Somebody who knows how the checksum is made, and not the key.
      mend_crc(bad);
      if (at < good.size() - sizeof(Le32)) {
        EXPECT_NE(refusal(bad), "accepted") << at << " " << bit;
      }
    }
  }
}

TEST(Head, RefusesEveryOtherLength) {
  const std::vector<std::byte> good = encode(example(), kKey);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(refusal(Bytes(good).first(size)), "accepted");
  }
  std::vector<std::byte> longer = good;
  longer.resize(good.size() + 1);
  EXPECT_NE(refusal(longer), "accepted");
  longer.resize(kHeadBytesMax + 1);
  EXPECT_NE(refusal(longer), "accepted");
}

TEST(Head, SaysThatItIsOfALaterVersion) {
  std::vector<std::byte> bytes = encode(example(), kKey);
  bytes[8] = std::byte(2);
  mend_crc(bytes);
  EXPECT_THAT(refusal(bytes), HasSubstr("format version 2"));
}

TEST(Head, RefusesContradictions) {
  const auto refuses = [](auto change) {
    Head head = example();
    change(head);
    return refusal(encode(head, kKey));
  };
  EXPECT_THAT(refuses([](Head& head) { head.size = 0; }), HasSubstr("its size"));
  EXPECT_THAT(refuses([](Head& head) { head.size += 512; }), HasSubstr("its size"));
  EXPECT_THAT(refuses([](Head& head) { head.size = 1ULL << 63U; }), HasSubstr("its size"));
  EXPECT_THAT(refuses([](Head& head) { head.logical_block_size = 1024; }), HasSubstr("block size"));
  EXPECT_THAT(refuses([](Head& head) { head.epoch = 0; }), HasSubstr("its numbers"));
  EXPECT_THAT(refuses([](Head& head) { head.root.covers_seq = 10; }), HasSubstr("its numbers"));
  EXPECT_THAT(refuses([](Head& head) { std::swap(head.epochs[0], head.epochs[1]); }),
              HasSubstr("not in order"));
  EXPECT_THAT(refuses([](Head& head) { head.epochs[1].epoch = 6; }), HasSubstr("not in order"));
  EXPECT_THAT(refuses([](Head& head) { head.epochs.clear(); }), HasSubstr("of which epoch"));
  EXPECT_THAT(refuses([](Head& head) { head.epochs[0].first_seq = 6; }),
              HasSubstr("of which epoch"));
}

TEST(Head, CanBeShownWithoutTheKey) {
  const Result<Head> head = decode_unproven(encode(example(), kKey));
  ASSERT_TRUE(head);
  EXPECT_EQ(head->size, example().size);
}

TEST(Head, NeedsNoKeyWithoutACipher) {
  Head head = example();
  head.cipher = crypto::CipherMode::kIdentity;
  head.key_check = {};
  const Result<Head> read = decode(encode(head, {}), {});
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(*read, head);
  EXPECT_THAT(refusal(encode(head, {}), kKey), HasSubstr("is not encrypted"));
}

}  // namespace
}  // namespace usbd::objstore

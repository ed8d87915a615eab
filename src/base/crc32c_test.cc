// SPDX-License-Identifier: Apache-2.0
//
// The published values, and that both ways agree on all lengths, starts and divisions.

#include "base/crc32c.h"

#include <algorithm>
#include <functional>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace usbd {
namespace {

using Way = std::function<uint32_t(Bytes, uint32_t)>;

/// The ways that this machine can go, and the one that others call.
std::vector<Way> ways() {
  std::vector<Way> all{detail::crc32c_portable,
                       [](Bytes data, uint32_t before) { return crc32c(data, before); }};
  if (detail::has_crc32c_instruction()) all.emplace_back(detail::crc32c_hardware);
  return all;
}

std::vector<std::byte> random_bytes(size_t size, uint64_t seed) {
  std::vector<std::byte> data(size);
  SeededRng rng(seed);
  rng.fill(data);
  return data;
}

void expect_crc(Bytes data, uint32_t expected) {
  for (const Way& way : ways()) EXPECT_EQ(way(data, 0), expected);
}

// RFC 3720, B.4. The RFC prints the bytes as they are sent, lowest first.
TEST(Crc32c, GivesThePublishedValues) {
  std::vector<std::byte> data(32);
  expect_crc(data, 0x8A9136AA);
  std::ranges::fill(data, std::byte{0xFF});
  expect_crc(data, 0x62A8AB43);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
  expect_crc(data, 0x46DD794E);
  std::ranges::reverse(data);
  expect_crc(data, 0x113FDB5C);
}

// RFC 3720, B.4: a read command of iSCSI.
TEST(Crc32c, GivesThePublishedValueOfACommand) {
  const std::vector<int> command{0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0,
                                 0x14, 0,    0, 0, 0, 0, 4, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18,
                                 0x28, 0,    0, 0, 0, 0, 0, 0, 2, 0, 0, 0,    0, 0, 0, 0};
  std::vector<std::byte> data;
  for (const int byte : command) data.push_back(static_cast<std::byte>(byte));
  expect_crc(data, 0xD9963A56);
}

TEST(Crc32c, GivesTheCheckValueOfItsCatalogue) {
  constexpr std::string_view kDigits = "123456789";
  expect_crc(std::as_bytes(std::span(kDigits)), 0xE3069283);
}

TEST(Crc32c, OfNothingIsWhatCameBefore) {
  expect_crc({}, 0);
  for (const Way& way : ways()) EXPECT_EQ(way({}, 0x12345678), 0x12345678U);
}

TEST(Crc32c, IsTheSameInEveryWayForAllLengthsAndStarts) {
  const std::vector<std::byte> data = random_bytes(9000, 1);
  for (size_t length = 0; length < 8500; length += length < 64 ? 1 : 61) {
    for (const size_t start : {0U, 1U, 5U, 13U}) {
      const Bytes part = Bytes(data).subspan(start, length);
      expect_crc(part, detail::crc32c_portable(part, 0));
    }
  }
}

TEST(Crc32c, OfTwoPartsIsThatOfTheWhole) {
  const std::vector<std::byte> data = random_bytes(4096, 2);
  for (const Way& way : ways()) {
    const uint32_t whole = way(data, 0);
    for (size_t cut = 0; cut <= data.size(); cut += 37) {
      EXPECT_EQ(way(Bytes(data).subspan(cut), way(Bytes(data).first(cut), 0)), whole) << cut;
    }
  }
}

TEST(Crc32c, SeesEveryFlippedBitOfABlock) {
  std::vector<std::byte> data = random_bytes(4096, 3);
  const uint32_t right = crc32c(data);
  for (size_t bit = 0; bit < data.size() * 8; ++bit) {
    const std::byte mask{static_cast<unsigned char>(1U << (bit % 8))};
    data[bit / 8] ^= mask;
    EXPECT_NE(crc32c(data), right) << bit;
    data[bit / 8] ^= mask;
  }
}

}  // namespace
}  // namespace usbd

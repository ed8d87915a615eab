// SPDX-License-Identifier: Apache-2.0
//
// What the rest of usbd relies on: a seed fixes the numbers for ever, ranges are kept, and no
// value of a range is favoured.

#include "base/random.h"

#include <algorithm>
#include <array>
#include <vector>

#include <gtest/gtest.h>

namespace usbd {
namespace {

TEST(SeededRng, GivesTheNumbersThatItsSeedAlwaysGave) {
  // From an independent implementation of the published algorithm; a change here makes every
  // recorded seed worthless.
  SeededRng rng(0);
  EXPECT_EQ(rng.next(), 0x99EC5F36CB75F2B4U);
  EXPECT_EQ(rng.next(), 0xBF6E1F784956452AU);
  EXPECT_EQ(rng.next(), 0x1A5F849D4933E6E0U);
}

TEST(SeededRng, FillsLikeNextByteByByte) {
  SeededRng numbers(7);
  SeededRng bytes(7);
  std::array<std::byte, 11> data{};
  bytes.fill(data);
  const std::array<uint64_t, 2> expected{numbers.next(), numbers.next()};
  EXPECT_TRUE(std::ranges::equal(data, std::as_bytes(std::span(expected)).first(data.size())));
}

TEST(SeededRng, ForksDifferByStreamAndNotByPosition) {
  SeededRng rng(3);
  const uint64_t first = rng.fork(1).next();
  rng.next();
  EXPECT_EQ(rng.fork(1).next(), first);
  EXPECT_NE(rng.fork(2).next(), first);
}

TEST(Rng, StaysBelowTheLimitAndReachesEveryValueAboutEquallyOften) {
  SeededRng rng(11);
  std::array<int, 5> seen{};
  for (int i = 0; i < 50'000; ++i) ++seen.at(rng.below(seen.size()));
  for (const int count : seen) EXPECT_NEAR(count, 10'000, 500);
}

TEST(Rng, IncludesBothEndsOfARange) {
  SeededRng rng(12);
  bool first = false;
  bool last = false;
  for (int i = 0; i < 1'000; ++i) {
    const uint64_t value = rng.between(10, 13);
    ASSERT_GE(value, 10U);
    ASSERT_LE(value, 13U);
    first |= value == 10;
    last |= value == 13;
  }
  EXPECT_TRUE(first);
  EXPECT_TRUE(last);
  rng.between(0, UINT64_MAX);
  EXPECT_EQ(rng.between(5, 5), 5U);
}

TEST(SystemRng, GivesDifferentBytesEachTimeAlsoForLargeRequests) {
  SystemRng rng;
  EXPECT_NE(rng.next(), rng.next());
  std::vector<std::byte> data(5'000);
  rng.fill(data);
  const std::span<const std::byte> tail = std::span(data).last(64);
  EXPECT_TRUE(std::ranges::any_of(tail, [](std::byte b) { return b != std::byte{0}; }));
}

}  // namespace
}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// One byte that is not zero is seen wherever it stands.

#include "base/all_zero.h"

#include <array>
#include <vector>

#include <gtest/gtest.h>

#include "base/endian.h"

namespace usbd {
namespace {

TEST(AllZero, IsTrueOfNothing) {
  EXPECT_TRUE(all_zero({}));
}

TEST(AllZero, SeesOneBitAnywhere) {
  std::vector<std::byte> bytes(4096);
  EXPECT_TRUE(all_zero(bytes));
  for (const size_t at : {size_t{0}, size_t{1}, size_t{2047}, size_t{4095}}) {
    bytes[at] = std::byte(0x80);
    EXPECT_FALSE(all_zero(bytes)) << at;
    bytes[at] = std::byte(0);
  }
}

TEST(AllZero, LooksAtFieldsOfFormats) {
  std::array<uint8_t, 3> reserved{};
  EXPECT_TRUE(all_zero(wire_bytes(reserved)));
  reserved[2] = 1;
  EXPECT_FALSE(all_zero(wire_bytes(reserved)));
}

}  // namespace
}  // namespace usbd

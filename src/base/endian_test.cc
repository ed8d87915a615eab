// SPDX-License-Identifier: Apache-2.0
//
// The byte order on the wire is what the type says, at any address.

#include "base/endian.h"

#include <array>
#include <vector>

#include <gtest/gtest.h>

namespace usbd {
namespace {

struct Sample {
  Be32 first;
  Be16 second;
  Be64 third;
};
static_assert(sizeof(Sample) == 14);

std::vector<int> as_ints(Bytes bytes) {
  std::vector<int> out;
  for (const std::byte byte : bytes) out.push_back(std::to_integer<int>(byte));
  return out;
}

TEST(Endian, StoresTheMostSignificantByteFirst) {
  const Sample sample{.first = 0x01020304, .second = 0x0506, .third = 0x0708090a0b0c0d0e};
  const std::vector<int> expected{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
  EXPECT_EQ(as_ints(wire_bytes(sample)), expected);
}

TEST(Endian, StoresTheLeastSignificantByteFirstWhereThatIsTheOrder) {
  EXPECT_EQ(as_ints(wire_bytes(Le32(0x01020304))), (std::vector<int>{4, 3, 2, 1}));
  EXPECT_EQ(Le64(0x0102030405060708U), 0x0102030405060708U);
}

TEST(Endian, ReadsBackFromAnUnalignedPlace) {
  const Sample sample{.first = 0xfffefdfc, .second = 0x8001, .third = 0xf000000000000001};
  std::array<std::byte, 1 + sizeof(Sample)> buffer{};
  std::memcpy(buffer.data() + 1, &sample, sizeof(sample));
  const auto copy = wire_read<Sample>(Bytes(buffer).subspan(1));
  EXPECT_EQ(copy.first, 0xfffefdfcU);
  EXPECT_EQ(copy.second, 0x8001U);
  EXPECT_EQ(copy.third, 0xf000000000000001U);
}

TEST(Endian, IsZeroUnlessSet) {
  EXPECT_EQ(Be64(), 0U);
}

TEST(Endian, WorksInConstantExpressions) {
  constexpr Be32 kValue = 0x12345678;
  static_assert(kValue == 0x12345678U);
  EXPECT_EQ(as_ints(wire_bytes(kValue)).front(), 0x12);
}

TEST(Endian, AppendsStructsBehindEachOther) {
  std::vector<std::byte> bytes;
  wire_append(bytes, Be16(0x0102));
  wire_append(bytes, Sample{.first = 0x03040506, .second = 0x0708, .third = 1});
  const std::vector<int> expected{1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1};
  EXPECT_EQ(as_ints(bytes), expected);
}

}  // namespace
}  // namespace usbd

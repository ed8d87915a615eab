// SPDX-License-Identifier: Apache-2.0
//
// Copies of every length and alignment: what is copied, and that nothing beside it is touched.

#include "base/uncached_copy.h"

#include <vector>

#include <gtest/gtest.h>

namespace usbd {
namespace {

TEST(CopyUncached, CopiesEveryLengthToEveryAlignmentAndNothingElse) {
  constexpr size_t kMargin = 200;
  std::vector<std::byte> source(600);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i % 251 + 1);
  for (size_t align = 0; align < 64; align += 7) {
    for (size_t length = 0; length <= 300; ++length) {
      std::vector<std::byte> target(kMargin + length + kMargin);
      const Bytes from = Bytes(source).subspan(align * 3 % 64, length);
      copy_uncached(MutableBytes(target).subspan(kMargin - align), from);
      for (size_t i = 0; i < target.size(); ++i) {
        const size_t position = i - (kMargin - align);
        const std::byte wanted = position < length ? from[position] : std::byte{0};
        ASSERT_EQ(target[i], wanted) << "length " << length << ", alignment " << align << ": " << i;
      }
    }
  }
}

}  // namespace
}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// That keys are wiped, moved and never copied, and that their pages are left out of core files.

#include "crypto/secret.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <type_traits>
#include <utility>

#include <gtest/gtest.h>

#include "base/all_zero.h"
#include "crypto/testing.h"

namespace usbd::crypto {
namespace {

static_assert(!std::is_copy_constructible_v<Secret> && !std::is_copy_assignable_v<Secret>);
static_assert(!std::is_copy_constructible_v<Wiped<32>> && !std::is_copy_assignable_v<Wiped<32>>);

/// The line of flags of the mapping that begins at `memory`.
std::string flags_of_mapping(const void* memory) {
  std::ifstream maps("/proc/self/smaps");
  const std::string start = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(memory));
  bool found = false;
  for (std::string line; std::getline(maps, line);) {
    found = found || line.starts_with(start);
    if (found && line.starts_with("VmFlags:")) return line;
  }
  return {};
}

TEST(Secret, HoldsACopyOfWhatItIsGiven) {
  const Secret key(from_hex("00112233"));
  EXPECT_EQ(to_hex(key.bytes()), "00112233");
  EXPECT_EQ(key.size(), 4U);
}

TEST(Secret, IsZeroUntilItIsFilled) {
  const Secret key(32);
  EXPECT_TRUE(all_zero(key.bytes()));
}

TEST(Secret, MayBeEmpty) {
  EXPECT_TRUE(Secret().empty());
  EXPECT_TRUE(Secret(Bytes()).empty());
}

TEST(Secret, MovesWithoutACopy) {
  Secret first(from_hex("0102"));
  const std::byte* const memory = first.bytes().data();
  Secret second(std::move(first));
  EXPECT_EQ(second.bytes().data(), memory);
  EXPECT_TRUE(first.empty());  // NOLINT(bugprone-use-after-move): that is what is tested
  Secret third(from_hex("03"));
  third = std::move(second);
  EXPECT_EQ(to_hex(third.bytes()), "0102");
}

TEST(Secret, WipesWhatItShrinksBy) {
  Secret key(from_hex("01020304"));
  const MutableBytes whole = key.writable();
  key.shrink(1);
  EXPECT_EQ(to_hex(whole), "01000000");
  EXPECT_EQ(key.size(), 1U);
}

TEST(Secret, IsLeftOutOfCoreFiles) {
  const Secret key(32);
  const std::string flags = flags_of_mapping(key.bytes().data());
  if (flags.empty()) GTEST_SKIP() << "machine: this kernel has no /proc/self/smaps";
  EXPECT_NE(flags.find(" dd"), std::string::npos) << flags;  // "do not dump"
}

TEST(Wiped, IsWipedWhenItIsGone) {
  alignas(Wiped<16>) std::array<std::byte, sizeof(Wiped<16>)> memory{};
  auto* const wiped = new (memory.data()) Wiped<16>();
  std::ranges::fill(wiped->writable(), std::byte{7});
  std::destroy_at(wiped);
  EXPECT_TRUE(all_zero(memory));
}

}  // namespace
}  // namespace usbd::crypto

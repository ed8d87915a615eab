// SPDX-License-Identifier: Apache-2.0
//
// What passes for text, and what untrusted text looks like in a message.

#include "frontends/nbd/text.h"

#include <gtest/gtest.h>

namespace usbd::nbd {
namespace {

TEST(ValidText, TakesEveryLengthOfCharacter) {
  EXPECT_TRUE(is_valid_text(""));
  EXPECT_TRUE(is_valid_text("plain /tmp/x"));
  EXPECT_TRUE(
      is_valid_text("\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 \xef\xbf\xbf"));
  EXPECT_TRUE(is_valid_text("\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"));
}

TEST(ValidText, RefusesNulOverlongSurrogatesAndBeyondTheLastCharacter) {
  EXPECT_FALSE(is_valid_text(std::string_view("a\0b", 3)));
  EXPECT_FALSE(is_valid_text("\xc0\x80"));
  EXPECT_FALSE(is_valid_text("\xe0\x9f\xbf"));
  EXPECT_FALSE(is_valid_text("\xf0\x8f\xbf\xbf"));
  EXPECT_FALSE(is_valid_text("\xed\xa0\x80"));
  EXPECT_FALSE(is_valid_text("\xf4\x90\x80\x80"));
  EXPECT_FALSE(is_valid_text("\xf5\x80\x80\x80"));
}

TEST(ValidText, RefusesTornAndStrayBytes) {
  EXPECT_FALSE(is_valid_text("\x80"));
  EXPECT_FALSE(is_valid_text("\xc3"));
  EXPECT_FALSE(is_valid_text("\xe2\x82"));
  EXPECT_FALSE(is_valid_text("\xf0\x9f\x98"));
  EXPECT_FALSE(is_valid_text("\xe2\x28\xa1"));
  EXPECT_FALSE(is_valid_text("\xf0\x9f\x28\x80"));
}

TEST(ReadableText, KeepsReadableTextAndEscapesTheRest) {
  EXPECT_EQ(readable("caf\xc3\xa9"), "\"caf\xc3\xa9\"");
  EXPECT_EQ(readable("a\"b\\c"), "\"a\\\"b\\\\c\"");
  EXPECT_EQ(readable("a\nb\x1b[2J\x7f"), "\"a\\x0ab\\x1b[2J\\x7f\"");
  EXPECT_EQ(readable("\xff\xc3"), "\"\\xff\\xc3\"");
}

TEST(ReadableText, IsShortWhateverItIsGiven) {
  EXPECT_LE(readable(std::string(100000, '\x01')).size(), 600U);
  EXPECT_EQ(readable(std::string(200, 'x')), "\"" + std::string(128, 'x') + "\"...");
}

}  // namespace
}  // namespace usbd::nbd

// SPDX-License-Identifier: Apache-2.0
//
// Tests of names and of the errors that may pass.

#include "objects/object_store.h"

#include <gtest/gtest.h>

namespace usbd::objects {
namespace {

TEST(ObjectName, TakesEveryAllowedCharacterAndLength) {
  EXPECT_TRUE(is_object_name("a"));
  EXPECT_TRUE(is_object_name("vol/d/1/00ff"));
  EXPECT_TRUE(is_object_name("ABCXYZabcxyz0189._-/x"));
  EXPECT_TRUE(is_object_name("-_"));
  EXPECT_TRUE(
      is_object_name("a/.b/c..d/..."
                     "x"));
  EXPECT_TRUE(is_object_name(std::string(512, 'x')));
}

TEST(ObjectName, RefusesWhatSomeStoreWouldMisread) {
  for (const char* name :
       {"",       "/",   "a/",   "/a",  ".",    "..",       ".a",  "a.",  "a//b", "a/./b",
        "a/../b", "a b", "a\\b", "a+b", "a\nb", "\xC3\xA4", "a,b", "a:b", "a?b",  "a%b"}) {
    EXPECT_FALSE(is_object_name(name)) << name;
  }
  EXPECT_FALSE(is_object_name(std::string(513, 'x')));
  EXPECT_FALSE(is_object_name(std::string_view("a\0b", 3)));
}

TEST(ObjectStoreErrors, OnlyThoseThatMayPassAreTransient) {
  for (const Errc code : {Errc::kTimedOut, Errc::kAgain, Errc::kIo}) {
    EXPECT_TRUE(is_transient(Error(code)));
  }
  for (const Errc code :
       {Errc::kNotFound, Errc::kExists, Errc::kCanceled, Errc::kNoSpace, Errc::kAccess,
        Errc::kInvalid, Errc::kNotSupported, Errc::kReadOnly, Errc::kDamaged}) {
    EXPECT_FALSE(is_transient(Error(code)));
  }
}

}  // namespace
}  // namespace usbd::objects

// SPDX-License-Identifier: Apache-2.0
//
// Answers as servers give them, and as none should.

#include "objects/s3/s3_answers.h"

#include <gtest/gtest.h>

namespace usbd::objects::s3 {
namespace {

std::string list_of(const std::string& inside) {
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
         "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" +
         inside + "</ListBucketResult>";
}

std::string object(const std::string& key, const std::string& size = "5") {
  return "<Contents><Key>" + key + "</Key><Size>" + size +
         "</Size><ETag>&quot;abc&quot;</ETag></Contents>";
}

constexpr const char* kComplete = "<IsTruncated>false</IsTruncated>";

std::string refusal(const std::string& xml) {
  const Result<ListAnswer> parsed = parse_list(xml);
  if (parsed.has_value()) return "taken";
  EXPECT_TRUE(parsed.error().is(Errc::kIo));
  return parsed.error().context();
}

TEST(S3List, ReadsObjects) {
  const Result<ListAnswer> page =
      parse_list(list_of("<Name>b</Name><IsTruncated>true</IsTruncated><NextContinuationToken>t/1"
                         "</NextContinuationToken>" +
                         object("v/d/1", "18446744073709551615") + object("v/d/2")));
  ASSERT_TRUE(page.has_value()) << page.error().message();
  ASSERT_EQ(page->objects.size(), 2U);
  EXPECT_EQ(page->objects[0].name, "v/d/1");
  EXPECT_EQ(page->objects[0].size, UINT64_MAX);
  EXPECT_EQ(page->objects[0].tag, "abc");
  EXPECT_TRUE(page->truncated);
  EXPECT_EQ(page->next_token, "t/1");
}

TEST(S3List, DecodesNamesOnlyIfTheyAreEncoded) {
  const std::string encoded = "<EncodingType>url</EncodingType>";
  const auto coded = parse_list(list_of(encoded + kComplete + object("a%2Fb+c")));
  ASSERT_TRUE(coded.has_value());
  EXPECT_EQ(coded->objects[0].name, "a/b c");
  const auto plain = parse_list(list_of(kComplete + object("a%2Fb+c&amp;")));
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->objects[0].name, "a%2Fb+c&");
  EXPECT_EQ(refusal(list_of(encoded + kComplete + object("a%2"))),
            "a listing with a name that is not encoded as it says");
}

TEST(S3List, RefusesWhatIsNoListing) {
  EXPECT_EQ(refusal(""), "a listing that is not XML");
  EXPECT_EQ(refusal("<ListBucketResult>"), "a listing that is not XML");
  EXPECT_EQ(refusal("<Error><Code>x</Code></Error>"), "a listing that holds something else");
  EXPECT_EQ(refusal(list_of("")), "a listing that does not say whether it is complete");
  EXPECT_EQ(refusal(list_of(kComplete + object(""))), "a listing with an object that has no name");
  for (const char* const size : {"", "-1", "1x", "18446744073709551616"}) {
    EXPECT_EQ(refusal(list_of(kComplete + object("a", size))),
              "a listing with an object whose size is no number");
  }
}

TEST(S3List, RefusesMoreThanAPage) {
  std::string objects;
  for (size_t i = 0; i < kListPageMax; ++i) objects += object("a");
  EXPECT_EQ(refusal(list_of(kComplete + objects)), "taken");
  EXPECT_EQ(refusal(list_of(kComplete + objects + object("a"))),
            "a listing of more than was asked for");
}

TEST(S3List, RefusesEntitiesOfItsOwn) {
  const std::string bomb =
      "<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]>";
  EXPECT_EQ(refusal(bomb + list_of(kComplete + object("&b;"))), "a listing that is not XML");
  const auto unknown = parse_list(list_of(kComplete + object("&b;")));
  ASSERT_TRUE(unknown.has_value());
  EXPECT_EQ(unknown->objects[0].name, "&b;");
}

TEST(S3List, SurvivesDeepNesting) {
  std::string deep;
  for (int i = 0; i < 200'000; ++i) deep += "<a>";
  EXPECT_EQ(refusal(deep), "a listing that is not XML");
}

TEST(S3ErrorDocument, IsRead) {
  const ErrorAnswer error = parse_error(
      "<Error><Code>PermanentRedirect</Code><Message>go\naway</Message><Region>eu-west-1</Region>"
      "</Error>");
  EXPECT_EQ(error.code, "PermanentRedirect");
  EXPECT_EQ(error.message, "go away");
  EXPECT_EQ(error.region, "eu-west-1");
}

TEST(S3ErrorDocument, IsEmptyIfItIsSomethingElse) {
  for (const char* const text : {"", "<html>busy</html>", "busy", "<!DOCTYPE x><Error/>"}) {
    EXPECT_EQ(parse_error(text).code, "") << text;
  }
}

TEST(S3ErrorDocument, IsMadeShortAndPrintable) {
  EXPECT_EQ(printable(std::string(1000, 'x')).size(), 200U);
  EXPECT_EQ(printable("a\x1b[31m\r\nb\x7f."), "a [31m  b .");
}

TEST(S3ContentRange, IsRead) {
  const auto range = parse_content_range("bytes 10-19/100");
  ASSERT_TRUE(range.has_value());
  EXPECT_EQ(range->first, 10U);
  EXPECT_EQ(range->last, 19U);
  EXPECT_EQ(range->total, 100U);
}

TEST(S3ContentRange, IsRefusedIfItContradictsItself) {
  for (const char* const text :
       {"", "bytes", "bytes 1-2", "bytes 1-2/", "bytes 1-2/*", "bytes */100", "bytes 2-1/100",
        "bytes 1-100/100", "bytes 1/2-3", "items 1-2/100", "bytes -1-2/100", "bytes 1-2/100 ",
        "bytes 1-2/18446744073709551616"}) {
    EXPECT_FALSE(parse_content_range(text).has_value()) << text;
  }
}

TEST(S3Tag, LosesItsQuotes) {
  EXPECT_EQ(bare_tag("\"abc-2\""), "abc-2");
  EXPECT_EQ(bare_tag("W/\"abc\""), "abc");
  EXPECT_EQ(bare_tag(" abc "), "abc");
  EXPECT_EQ(bare_tag("\""), "\"");
  EXPECT_EQ(bare_tag(""), "");
}

}  // namespace
}  // namespace usbd::objects::s3

// SPDX-License-Identifier: Apache-2.0
//
// Signatures that AWS has published: those of its test suite for Signature Version 4
// (aws-sig-v4-test-suite; today in awslabs/aws-c-auth, tests/aws-signing-test-suite/v4), and the
// examples of the S3 API Reference, "Authenticating Requests: Using the Authorization Header".

#include "objects/s3/sigv4.h"

#include <span>

#include <gtest/gtest.h>

namespace usbd::objects::s3 {
namespace {

std::string hash_of(std::string_view text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

std::string signature_of(const std::string& authorization) {
  const size_t at = authorization.find("Signature=");
  return at == std::string::npos ? "none" : authorization.substr(at + 10);
}

// --- the test suite ------------------------------------------------------------------------------

constexpr int64_t kSuiteTime = 1440938160;  // 2015-08-30T12:36:00Z

struct SuiteCase {
  const char* name;
  const char* method;
  std::string path;
  NameValues query;
  NameValues headers;
  const char* signature;
};

std::string suite_signature(const SuiteCase& test) {
  SignedParts parts{
      .method = test.method,
      .path = test.path,
      .query = test.query,
      .headers = {{"Host", "example.amazonaws.com"}, {"X-Amz-Date", "20150830T123600Z"}},
      .payload_hash = std::string(kEmptyPayload)};
  parts.headers.insert(parts.headers.end(), test.headers.begin(), test.headers.end());
  const SigningKey key{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"};
  const SigningScope scope{.region = "us-east-1", .service = "service", .time = kSuiteTime};
  return signature_of(authorization(parts, key, scope));
}

void check(const std::vector<SuiteCase>& cases) {
  for (const SuiteCase& test : cases) EXPECT_EQ(suite_signature(test), test.signature) << test.name;
}

TEST(SigV4, AgreesWithTheTestSuiteOnPathsAndQueries) {
  check({
      {"get-vanilla",
       "GET",
       "/",
       {},
       {},
       "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
      {"get-vanilla-query-order-key-case",
       "GET",
       "/",
       {{"Param2", "value2"}, {"Param1", "value1"}},
       {},
       "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
      {"get-vanilla-query-order-encoded",
       "GET",
       "/",
       {{"Param-3", "Value3"}, {"Param", "Value2"}, {"\u1234", "Value1"}},
       {},
       "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
      {"get-vanilla-utf8-query",
       "GET",
       "/",
       {{"\u1234", "bar"}},
       {},
       "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
      {"get-unreserved",
       "GET",
       "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
       {},
       {},
       "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
      {"get-utf8",
       "GET",
       "/\u1234",
       {},
       {},
       "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
      {"get-space-unnormalized",
       "GET",
       "/example space/",
       {},
       {},
       "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
      {"post-vanilla",
       "POST",
       "/",
       {},
       {},
       "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
  });
}

TEST(SigV4, AgreesWithTheTestSuiteOnHeaders) {
  check({
      {"get-header-value-trim",
       "GET",
       "/",
       {},
       {{"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}},
       "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
      {"get-header-value-multiline",
       "GET",
       "/",
       {},
       {{"My-Header1", "value1   value2     value3"}},
       "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd"},
      {"get-header-key-duplicate",
       "GET",
       "/",
       {},
       {{"My-Header1", "value2"}, {"My-Header1", "value2"}, {"My-Header1", "value1"}},
       "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
      {"post-header-key-sort",
       "POST",
       "/",
       {},
       {{"My-Header1", "value1"}},
       "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
      {"get-vanilla-with-session-token",
       "GET",
       "/",
       {},
       {{"X-Amz-Security-Token",
         "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"}},
       "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"},
  });
}

TEST(SigV4, SignsABodyAsTheTestSuiteDoes) {
  // post-x-www-form-urlencoded
  const SignedParts parts{.method = "POST",
                          .path = "/",
                          .query = {},
                          .headers = {{"Content-Type", "application/x-www-form-urlencoded"},
                                      {"Host", "example.amazonaws.com"},
                                      {"Content-Length", "13"},
                                      {"X-Amz-Date", "20150830T123600Z"},
                                      {"x-amz-content-sha256", hash_of("Param1=value1")}},
                          .payload_hash = hash_of("Param1=value1")};
  const SigningKey key{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"};
  const SigningScope scope{.region = "us-east-1", .service = "service", .time = kSuiteTime};
  EXPECT_EQ(signature_of(authorization(parts, key, scope)),
            "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b");
}

// --- the examples of S3's documentation ----------------------------------------------------------

constexpr int64_t kS3Time = 1369353600;  // 2013-05-24T00:00:00Z

std::string s3_authorization(SignedParts parts) {
  parts.headers.emplace_back("Host", "examplebucket.s3.amazonaws.com");
  parts.headers.emplace_back("x-amz-date", "20130524T000000Z");
  parts.headers.emplace_back("x-amz-content-sha256", parts.payload_hash);
  const SigningKey key{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"};
  return authorization(parts, key, {.region = "us-east-1", .time = kS3Time});
}

TEST(SigV4, AgreesWithTheExampleOfARangedGet) {
  EXPECT_EQ(s3_authorization({.method = "GET",
                              .path = "/test.txt",
                              .query = {},
                              .headers = {{"Range", "bytes=0-9"}},
                              .payload_hash = std::string(kEmptyPayload)}),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(SigV4, AgreesWithTheExampleOfAPut) {
  EXPECT_EQ(
      signature_of(s3_authorization({.method = "PUT",
                                     .path = "/test$file.text",
                                     .query = {},
                                     .headers = {{"Date", "Fri, 24 May 2013 00:00:00 GMT"},
                                                 {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
                                     .payload_hash = hash_of("Welcome to Amazon S3.")})),
      "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(SigV4, AgreesWithTheExampleOfAQueryWithoutValue) {
  EXPECT_EQ(signature_of(s3_authorization({.method = "GET",
                                           .path = "/",
                                           .query = {{"lifecycle", ""}},
                                           .headers = {},
                                           .payload_hash = std::string(kEmptyPayload)})),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST(SigV4, AgreesWithTheExampleOfAListing) {
  EXPECT_EQ(signature_of(s3_authorization({.method = "GET",
                                           .path = "/",
                                           .query = {{"prefix", "J"}, {"max-keys", "2"}},
                                           .headers = {},
                                           .payload_hash = std::string(kEmptyPayload)})),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

// --- the parts -----------------------------------------------------------------------------------

TEST(SigV4, WritesTimesInUtc) {
  EXPECT_EQ(format_time(0), "19700101T000000Z");
  EXPECT_EQ(format_time(kSuiteTime), "20150830T123600Z");
  EXPECT_EQ(format_time(951827696), "20000229T123456Z");
  EXPECT_EQ(format_time(-1), "19700101T000000Z");
  EXPECT_EQ(format_time(INT64_MAX), "19700101T000000Z");
}

TEST(SigV4, SortsTheEncodedQuery) {
  EXPECT_EQ(canonical_query({}), "");
  EXPECT_EQ(canonical_query({{"prefix", "a/b c"}, {"list-type", "2"}, {"a", ""}}),
            "a=&list-type=2&prefix=a%2Fb%20c");
}

TEST(SigV4, HashesNothingToThePublishedValue) {
  EXPECT_EQ(hash_of(""), kEmptyPayload);
}

}  // namespace
}  // namespace usbd::objects::s3

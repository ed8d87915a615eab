// SPDX-License-Identifier: Apache-2.0
//
// One answer of a server after the other, and what people and programs get to see.

#include "objects/s3/s3_errors.h"

#include <span>
#include <string>

#include <gtest/gtest.h>

namespace usbd::objects::s3 {
namespace {

HttpResponse answer(int status, const std::string& code = {}, HttpHeaders headers = {}) {
  HttpResponse response{.status = status, .headers = std::move(headers), .body = {}};
  const std::string xml = code.empty() ? "" : "<Error><Code>" + code + "</Code></Error>";
  const auto bytes = std::as_bytes(std::span(xml));
  response.body.assign(bytes.begin(), bytes.end());
  return response;
}

Errc errc_of(int status, const std::string& code = {}) {
  const Error error = error_of(answer(status, code), "GET s3://b/o");
  return static_cast<Errc>(error.number());
}

TEST(S3Errors, GoByTheStatusWithoutADocument) {
  EXPECT_EQ(errc_of(400), Errc::kInvalid);
  EXPECT_EQ(errc_of(401), Errc::kAccess);
  EXPECT_EQ(errc_of(403), Errc::kAccess);
  EXPECT_EQ(errc_of(404), Errc::kNotFound);
  EXPECT_EQ(errc_of(408), Errc::kAgain);
  EXPECT_EQ(errc_of(409), Errc::kAgain);
  EXPECT_EQ(errc_of(412), Errc::kExists);
  EXPECT_EQ(errc_of(416), Errc::kInvalid);
  EXPECT_EQ(errc_of(429), Errc::kAgain);
  EXPECT_EQ(errc_of(500), Errc::kAgain);
  EXPECT_EQ(errc_of(501), Errc::kNotSupported);
  EXPECT_EQ(errc_of(502), Errc::kAgain);
  EXPECT_EQ(errc_of(503), Errc::kAgain);
  EXPECT_EQ(errc_of(504), Errc::kAgain);
  EXPECT_EQ(errc_of(507), Errc::kNoSpace);
  EXPECT_EQ(errc_of(206), Errc::kIo);
  EXPECT_EQ(errc_of(777), Errc::kIo);
}

TEST(S3Errors, GoByTheCodeIfThereIsOne) {
  EXPECT_EQ(errc_of(404, "NoSuchBucket"), Errc::kNotFound);
  EXPECT_EQ(errc_of(400, "ExpiredToken"), Errc::kAccess);
  EXPECT_EQ(errc_of(400, "RequestTimeout"), Errc::kAgain);
  EXPECT_EQ(errc_of(400, "BadDigest"), Errc::kIo);
  EXPECT_EQ(errc_of(403, "QuotaExceeded"), Errc::kNoSpace);
  EXPECT_EQ(errc_of(409, "ConditionalRequestConflict"), Errc::kAgain);
  EXPECT_EQ(errc_of(400, "SomethingNew"), Errc::kInvalid);
}

TEST(S3Errors, SayWhichCredentialIsWrong) {
  const auto said = [](const std::string& code) {
    return error_of(answer(403, code), "GET s3://b/o").context();
  };
  EXPECT_EQ(said("SignatureDoesNotMatch"),
            "GET s3://b/o: the secret key is not the one that belongs to the access key "
            "(403 SignatureDoesNotMatch)");
  EXPECT_EQ(said("InvalidAccessKeyId"),
            "GET s3://b/o: the store does not know this access key (403 InvalidAccessKeyId)");
  EXPECT_EQ(said("AccessDenied"),
            "GET s3://b/o: the credentials lack this right, or the bucket belongs to somebody else "
            "(403 AccessDenied)");
  EXPECT_EQ(said(""), "GET s3://b/o: the store refuses it (403)");
}

TEST(S3Errors, ShowTheStoresClock) {
  const HttpResponse skewed =
      answer(403, "RequestTimeTooSkewed", {{"date", "Fri, 24 May 2013 00:00:00 GMT"}});
  EXPECT_EQ(error_of(skewed, "x").context(),
            "x: the clock of this host is too far from the store's (which says Fri, 24 May 2013 "
            "00:00:00 GMT): set it (403 RequestTimeTooSkewed)");
  EXPECT_NE(error_of(answer(403, "RequestTimeTooSkewed"), "x").context().find("nothing"),
            std::string::npos);
}

TEST(S3Errors, NameTheRegionOfABucket) {
  const HttpResponse moved =
      answer(301, "PermanentRedirect", {{"x-amz-bucket-region", "eu-west-1"}});
  const Error error = error_of(moved, "x");
  EXPECT_TRUE(error.is(Errc::kInvalid));
  EXPECT_NE(error.context().find("in region eu-west-1"), std::string::npos) << error.context();
  EXPECT_NE(error_of(answer(301), "x").context().find("elsewhere"), std::string::npos);
  EXPECT_TRUE(error_of(answer(307, "TemporaryRedirect"), "x").is(Errc::kAgain));

  HttpResponse malformed = answer(400);
  const std::string xml =
      "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>eu-north-1"
      "</Region></Error>";
  const auto bytes = std::as_bytes(std::span(xml));
  malformed.body.assign(bytes.begin(), bytes.end());
  EXPECT_NE(error_of(malformed, "x").context().find("in region eu-north-1"), std::string::npos);
  EXPECT_EQ(error_of(answer(400, "AuthorizationHeaderMalformed"), "x").context(),
            "x: the store refuses it (400 AuthorizationHeaderMalformed)");
}

TEST(S3Errors, KnowExpiredCredentials) {
  EXPECT_TRUE(says_expired(answer(400, "ExpiredToken"), "GET"));
  EXPECT_TRUE(says_expired(answer(403, "InvalidAccessKeyId"), "PUT"));
  EXPECT_TRUE(says_expired(answer(400), "HEAD"));
  EXPECT_FALSE(says_expired(answer(403, "AccessDenied"), "GET"));
  EXPECT_FALSE(says_expired(answer(404), "HEAD"));
}

TEST(S3Errors, TellAMissingObjectFromAMissingBucket) {
  EXPECT_TRUE(says_no_object(answer(404, "NoSuchKey")));
  EXPECT_TRUE(says_no_object(answer(404)));
  EXPECT_FALSE(says_no_object(answer(404, "NoSuchBucket")));
  EXPECT_FALSE(says_no_object(answer(403, "NoSuchKey")));
}

}  // namespace
}  // namespace usbd::objects::s3

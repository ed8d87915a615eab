// SPDX-License-Identifier: Apache-2.0
//
// Keys and addresses.

#include "objects/s3/s3_config.h"

#include <gtest/gtest.h>

namespace usbd::objects::s3 {
namespace {

S3Config taken(const StoreKeys& keys) {
  Result<S3Config> config = read_config(keys);
  EXPECT_TRUE(config.has_value()) << config.error().message();
  return config.has_value() ? *config : S3Config{};
}

std::string refusal(const StoreKeys& keys) {
  const Result<S3Config> config = read_config(keys);
  if (config.has_value()) return "taken";
  EXPECT_TRUE(config.error().is(Errc::kInvalid));
  return config.error().context();
}

BucketAddress address(const StoreKeys& keys, std::string_view bucket = "vol") {
  const Result<BucketAddress> made = address_of(taken(keys), bucket);
  EXPECT_TRUE(made.has_value());
  return *made;
}

TEST(S3Config, GoesToAmazonByDefault) {
  const S3Config config = taken({});
  EXPECT_TRUE(config.tls);
  EXPECT_EQ(config.authority, "s3.us-east-1.amazonaws.com");
  EXPECT_FALSE(config.path_style);
  EXPECT_EQ(address({{"region", "eu-west-1"}}).origin, "https://vol.s3.eu-west-1.amazonaws.com");
  EXPECT_EQ(address({{"region", "cn-north-1"}}).host, "vol.s3.cn-north-1.amazonaws.com.cn");
  EXPECT_EQ(address({}).path, "/");
}

TEST(S3Config, NamesTheBucketInThePathOfAnEndpointOfItsOwn) {
  const BucketAddress own = address({{"endpoint", "http://127.0.0.1:9000/"}});
  EXPECT_EQ(own.origin, "http://127.0.0.1:9000");
  EXPECT_EQ(own.host, "127.0.0.1:9000");
  EXPECT_EQ(own.path, "/vol/");
  EXPECT_EQ(address({{"endpoint", "s3.example.com"}, {"path_style", "false"}}).origin,
            "https://vol.s3.example.com");
  EXPECT_EQ(address({{"path_style", "true"}}).path, "/vol/");
}

TEST(S3Config, NamesABucketWithDotsInThePathUnderTls) {
  EXPECT_EQ(address({}, "my.vol").path, "/my.vol/");
  EXPECT_EQ(address({{"disable_ssl", "true"}}, "my.vol").host, "my.vol.s3.us-east-1.amazonaws.com");
}

TEST(S3Config, TakesTheSchemeFromEitherPlace) {
  EXPECT_FALSE(taken({{"endpoint", "h:1"}, {"disable_ssl", "1"}}).tls);
  EXPECT_TRUE(taken({{"endpoint", "https://h"}, {"disable_ssl", "false"}}).tls);
  EXPECT_EQ(refusal({{"endpoint", "https://h"}, {"disable_ssl", "true"}}),
            "endpoint begins with https:// but disable_ssl is true");
  EXPECT_EQ(refusal({{"endpoint", "http://h"}, {"disable_ssl", "false"}}),
            "endpoint begins with http:// but disable_ssl is false");
}

TEST(S3Config, RefusesWhatIsNoEndpoint) {
  for (const char* const endpoint :
       {"http://", "http://h/path", "http://user:pw@h", "ftp://h", "h?x", "h h"}) {
    const std::string said = refusal({{"endpoint", endpoint}});
    EXPECT_TRUE(said.starts_with("endpoint is not a host and port")) << endpoint << said;
    EXPECT_EQ(said.find("pw"), std::string::npos);
  }
}

TEST(S3Config, RefusesUnknownKeysAndValues) {
  EXPECT_TRUE(refusal({{"bucket", "x"}}).starts_with("an s3 store has no key \"bucket\"; it has"));
  EXPECT_EQ(refusal({{"path_style", "yes"}}), "path_style is \"yes\"; it can be true or false");
  EXPECT_EQ(refusal({{"disable_ssl", "x"}}), "disable_ssl is \"x\"; it can be true or false");
  EXPECT_EQ(refusal({{"auth_type", "oauth"}}),
            "auth_type is \"oauth\"; it can be accesskey or iam");
  EXPECT_EQ(refusal({{"v2_signing", "true"}}),
            "v2_signing is true; requests are signed by version 4 only");
  EXPECT_EQ(refusal({{"v2_signing", "false"}}), "taken");
  EXPECT_EQ(refusal({{"region", "a b"}}), "region is \"a b\", which is not the name of one");
  EXPECT_EQ(refusal({{"access_key_id", "a\nb"}, {"secret_key", "s"}}),
            "access_key_id holds a control character");
}

TEST(S3Config, WantsCredentialsWhole) {
  EXPECT_EQ(refusal({{"access_key_id", "a"}}),
            "access_key_id and secret_key go together; only access_key_id is given");
  EXPECT_EQ(refusal({{"secret_key", "top"}}),
            "access_key_id and secret_key go together; only secret_key is given");
  EXPECT_EQ(refusal({{"token", "t"}}), "token needs access_key_id and secret_key");
  EXPECT_EQ(refusal({{"auth_type", "iam"}, {"access_key_id", "a"}, {"secret_key", "b"}}),
            "auth_type is iam, which takes no access_key_id, secret_key or token");
  EXPECT_TRUE(taken({{"auth_type", "iam"}}).instance_credentials);
}

TEST(S3Config, RefusesNamesThatNoBucketHas) {
  for (const std::string& bucket :
       {std::string("ab"), std::string(64, 'a'), std::string("a/b"), std::string("-abc"),
        std::string("abc."), std::string("a..b"), std::string("a b")}) {
    const Result<BucketAddress> made = address_of(taken({}), bucket);
    ASSERT_FALSE(made.has_value()) << bucket;
    EXPECT_TRUE(made.error().is(Errc::kInvalid));
  }
}

}  // namespace
}  // namespace usbd::objects::s3

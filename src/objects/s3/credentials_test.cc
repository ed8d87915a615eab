// SPDX-License-Identifier: Apache-2.0
//
// Credentials files, the metadata service, and when credentials are read again.

#include "objects/s3/credentials.h"

#include <atomic>

#include <gtest/gtest.h>

#include "async/scope.h"
#include "async/testing.h"
#include "objects/http/testing.h"
#include "objects/s3/instance_credentials.h"

namespace usbd::objects::s3 {
namespace {

using objects::testing::TestServer;

// --- the file ------------------------------------------------------------------------------------

TEST(CredentialsFile, GivesTheKeysOfAProfile) {
  constexpr std::string_view kText =
      "# comment\n; another\n[default]\n aws_access_key_id=one\r\naws_secret_access_key = a=b/c \n"
      "region = eu\n\n[ other ]\naws_access_key_id = two\naws_secret_access_key = s\n"
      "aws_session_token = t";
  const auto first = parse_credentials_file(kText, "default");
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->key.id, "one");
  EXPECT_EQ(first->key.secret, "a=b/c");
  EXPECT_EQ(first->token, "");
  const auto other = parse_credentials_file(kText, "other");
  ASSERT_TRUE(other.has_value());
  EXPECT_EQ(other->token, "t");
}

TEST(CredentialsFile, GivesNothingInPart) {
  const std::string secret = "\naws_secret_access_key=b";
  const std::string id = "\naws_access_key_id=a";
  const std::vector<std::string> texts{"",
                                       "[default]",
                                       "[default]" + id,
                                       "[defaul" + id + secret,
                                       id + secret,
                                       "[x]" + id + "\n[default]" + secret,
                                       "[default]" + id + "\x01" + secret};
  for (const std::string& text : texts) {
    EXPECT_FALSE(parse_credentials_file(text, "default").has_value()) << text;
  }
}

// --- the metadata service ------------------------------------------------------------------------

constexpr const char* kJson =
    R"({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIA1", "SecretAccessKey": "sec",
        "Token": "tok", "Expiration": "2025-01-31T12:00:01Z"})";

TEST(InstanceCredentials, AreRead) {
  const Result<Credentials> found = parse_instance_credentials(kJson);
  ASSERT_TRUE(found.has_value()) << found.error().message();
  EXPECT_EQ(found->key.id, "ASIA1");
  EXPECT_EQ(found->token, "tok");
  EXPECT_EQ(found->expires, 1738324801);
}

std::string json_of(const std::string& id, const std::string& expiration) {
  return R"({"AccessKeyId":)" + id + R"(,"SecretAccessKey":"b","Token":"c","Expiration":")" +
         expiration + "\"}";
}

TEST(InstanceCredentials, AreRefusedInPart) {
  EXPECT_TRUE(parse_instance_credentials(json_of("\"a\"", "2025-01-01T00:00:00Z")).has_value());
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{}"), std::string(R"({"Code":"Failed"})"),
        std::string(R"({"AccessKeyId":"a","SecretAccessKey":"b","Token":"c"})"),
        json_of("\"a\"", "2025-13-01T00:00:00Z"), json_of("\"a\"", "2025-1x-01T00:00:00Z"),
        json_of("\"a\"", "2025-01-01T00:00:00"), json_of("\"a\\n\"", "2025-01-01T00:00:00Z"),
        json_of("1", "2025-01-01T00:00:00Z")}) {
    const Result<Credentials> found = parse_instance_credentials(text);
    ASSERT_FALSE(found.has_value()) << text;
    EXPECT_TRUE(found.error().is(Errc::kIo));
  }
}

class MetadataTest : public ::testing::Test {
 protected:
  MetadataTest()
      : server_([this](TestServer::Connection& connection, const TestServer::Request& request) {
          serve(connection, request);
        }) {
    client_ = *HttpClient::create(test_.loop(), {});
  }

 public:
  ~MetadataTest() override { test_.run(client_->close()); }

 protected:
  void serve(TestServer::Connection& connection, const TestServer::Request& request) {
    const bool in_session = request.header("X-aws-ec2-metadata-token") == "session";
    if (fails_.load() != 0) return connection.answer(std::to_string(fails_.load()) + " No");
    if (request.method == "PUT" && request.target == "/latest/api/token" &&
        request.header("X-aws-ec2-metadata-token-ttl-seconds") == "21600") {
      return connection.answer("200 OK", "session");
    }
    if (!in_session) return connection.answer("401 Unauthorized");
    const std::string roles = "/latest/meta-data/iam/security-credentials/";
    if (request.target == roles) {
      return has_role_ ? connection.answer("200 OK", "my-role\nother")
                       : connection.answer("404 Not Found");
    }
    if (request.target == roles + "my-role") return connection.answer("200 OK", kJson);
    connection.answer("404 Not Found");
  }
  Result<Credentials> read() {
    InstanceSource source(*client_, server_.url() + "/");
    return test_.run(source.read());
  }

  usbd::testing::TestLoop test_;
  std::atomic<int> fails_{0};
  std::atomic<bool> has_role_{true};
  TestServer server_;
  std::unique_ptr<HttpClient> client_;
};

TEST_F(MetadataTest, GivesTheCredentialsOfTheRole) {
  const Result<Credentials> found = read();
  ASSERT_TRUE(found.has_value()) << found.error().message();
  EXPECT_EQ(found->key.id, "ASIA1");
  EXPECT_EQ(server_.requests().size(), 3U);
}

TEST_F(MetadataTest, SaysThatThereIsNoRole) {
  has_role_ = false;
  const Result<Credentials> found = read();
  ASSERT_FALSE(found.has_value());
  EXPECT_TRUE(found.error().is(Errc::kAccess)) << found.error().message();
}

TEST_F(MetadataTest, TellsTroubleFromRefusal) {
  fails_ = 500;
  EXPECT_TRUE(read().error().is(Errc::kAgain));
  fails_ = 403;
  EXPECT_TRUE(read().error().is(Errc::kAccess));
}

TEST_F(MetadataTest, SaysThatNobodyAnswers) {
  InstanceSource source(*client_, "http://127.0.0.1:1");
  const Result<Credentials> found = test_.run(source.read());
  ASSERT_FALSE(found.has_value());
  EXPECT_NE(found.error().context().find("no answer from http://127.0.0.1:1"), std::string::npos);
}

TEST_F(MetadataTest, IsAskedWhereTheEnvironmentSays) {
  const Environment environment = [this](const char* name) {
    return name == std::string("AWS_EC2_METADATA_SERVICE_ENDPOINT") ? server_.url() : "";
  };
  S3Config config;
  config.instance_credentials = true;
  auto source = find_credentials(config, environment, *client_, test_.pool());
  ASSERT_TRUE(source.has_value());
  EXPECT_TRUE((*source)->can_change());
  EXPECT_TRUE(test_.run((*source)->read()).has_value());
}

// --- the keeper ----------------------------------------------------------------------------------

struct Script {
  int reads = 0;
  Result<Credentials> next = Errc::kIo;
};

class ScriptedSource final : public CredentialSource {
 public:
  explicit ScriptedSource(Script& script) : script_(script) {}
  Task<Result<Credentials>> read() override {
    ++script_.reads;
    co_await Loop::current().sleep_for(std::chrono::milliseconds(5));
    co_return script_.next;
  }
  [[nodiscard]] bool can_change() const override { return true; }

 private:
  Script& script_;
};

class CredentialKeeperTest : public ::testing::Test {
 protected:
  CredentialKeeperTest()
      : keeper_(std::make_unique<ScriptedSource>(script_), [this] { return now_; }) {}

  void give(const std::string& id, std::optional<int64_t> expires = {}) {
    script_.next = Credentials{.key = {id, "s"}, .token = "t", .expires = expires};
  }
  std::string id() {
    const Result<Credentials> got = test_.run(keeper_.get());
    return got.has_value() ? got->key.id : "none";
  }

  usbd::testing::TestLoop test_;
  Script script_;
  int64_t now_ = 1000;
  CredentialKeeper keeper_;
};

TEST_F(CredentialKeeperTest, ReadsOnce) {
  give("a");
  EXPECT_EQ(id(), "a");
  EXPECT_EQ(id(), "a");
  EXPECT_EQ(script_.reads, 1);
}

TEST_F(CredentialKeeperTest, ReadsAgainBeforeTheyExpire) {
  give("a", 2000);
  EXPECT_EQ(id(), "a");
  now_ = 1699;
  give("b", 3000);
  EXPECT_EQ(id(), "a");
  now_ = 1700;
  EXPECT_EQ(id(), "b");
}

TEST_F(CredentialKeeperTest, KeepsOldOnesThatHoldIfReadingFails) {
  give("a", 2000);
  EXPECT_EQ(id(), "a");
  now_ = 1800;
  script_.next = Errc::kIo;
  EXPECT_EQ(id(), "a");
  EXPECT_EQ(id(), "a");
  EXPECT_EQ(script_.reads, 2);  // not at each call
  now_ = 1900;
  EXPECT_EQ(id(), "a");
  EXPECT_EQ(script_.reads, 3);
  now_ = 2000;
  EXPECT_EQ(id(), "none");
  give("b", 3000);
  EXPECT_EQ(id(), "b");
}

Task<void> ask(CredentialKeeper& keeper, int& good) {
  if (const Result<Credentials> got = co_await keeper.get(); got.has_value()) ++good;
}

Task<int> ask_many(CredentialKeeper& keeper) {
  Scope scope;
  int good = 0;
  for (int i = 0; i < 20; ++i) scope.spawn(ask(keeper, good));
  co_await scope.close();
  co_return good;
}

TEST_F(CredentialKeeperTest, ReadsOnceForAllWhoWait) {
  give("a");
  EXPECT_EQ(test_.run(ask_many(keeper_)), 20);
  EXPECT_EQ(script_.reads, 1);
}

TEST_F(CredentialKeeperTest, FailsForAllWhoWait) {
  EXPECT_EQ(test_.run(ask_many(keeper_)), 0);
  EXPECT_EQ(script_.reads, 1);
}

TEST_F(CredentialKeeperTest, ReplacesOnlyWhatWasRefused) {
  give("a");
  EXPECT_EQ(id(), "a");
  EXPECT_FALSE(test_.run(keeper_.replace({"a", "s"}, "t")));
  EXPECT_EQ(script_.reads, 2);
  give("b");
  EXPECT_TRUE(test_.run(keeper_.replace({"a", "s"}, "t")));
  EXPECT_TRUE(test_.run(keeper_.replace({"a", "s"}, "t")));  // done already
  EXPECT_EQ(script_.reads, 3);
  EXPECT_EQ(id(), "b");
}

}  // namespace
}  // namespace usbd::objects::s3

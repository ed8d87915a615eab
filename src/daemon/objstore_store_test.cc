// SPDX-License-Identifier: Apache-2.0
//
// Opening the store of a volume: which errors are waited out, and which are said at once.

#include "daemon/objstore_store.h"

#include <atomic>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "async/testing.h"
#include "objects/http/testing.h"

namespace usbd::daemon {
namespace {

using objects::testing::TestServer;
using ::testing::HasSubstr;

constexpr std::string_view kEmptyList = "<ListBucketResult></ListBucketResult>";

class OpenStore : public ::testing::Test {
 protected:
  Result<std::unique_ptr<objects::ObjectStore>> open(const std::string& endpoint) {
    VolumeSettings settings;
    settings.objstore.kind = "s3";
    settings.objstore.container = "bucket";
    settings.objstore.cfg =
        R"({"access_key_id":"id","secret_key":"secret","endpoint":")" + endpoint + R"("})";
    return test_.run(open_store(settings, test_.pool(), rng_));
  }

  usbd::testing::TestLoop test_;
  SeededRng rng_{1};
};

TEST_F(OpenStore, WaitsForAServerThatIsBusy) {
  // A bucket that has to be made: both calls of the opening meet a busy server.
  std::atomic<int> lists{0};
  std::atomic<int> makes{0};
  TestServer server([&](TestServer::Connection& connection, const TestServer::Request& request) {
    if (request.method == "PUT") {
      return connection.answer(++makes < 3 ? "503 Slow Down" : "200 OK");
    }
    if (makes >= 3) return connection.answer("200 OK", kEmptyList);
    connection.answer(++lists < 2 ? "500 Internal Server Error" : "404 Not Found");
  });
  Result<std::unique_ptr<objects::ObjectStore>> store = open(server.url());
  ASSERT_TRUE(store) << store.error().message();
  EXPECT_EQ(makes, 3);
  test_.run((*store)->close());
}

TEST_F(OpenStore, GivesUpASilentPortAfterAFewAttempts) {
  const auto store = open("http://127.0.0.1:1");
  ASSERT_FALSE(store);
  EXPECT_THAT(store.error().message(), HasSubstr("6 attempts, the last: "));
  EXPECT_THAT(store.error().message(), HasSubstr("connect"));
}

TEST_F(OpenStore, SaysAtOnceWhatDoesNotPass) {
  std::atomic<int> requests{0};
  TestServer server([&](TestServer::Connection& connection, const TestServer::Request&) {
    ++requests;
    connection.answer("403 Forbidden", "<Error><Code>SignatureDoesNotMatch</Code></Error>");
  });
  const auto store = open(server.url());
  ASSERT_FALSE(store);
  EXPECT_TRUE(store.error().is(Errc::kAccess));
  EXPECT_EQ(requests, 1);
}

}  // namespace
}  // namespace usbd::daemon

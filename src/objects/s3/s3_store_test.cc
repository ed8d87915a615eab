// SPDX-License-Identifier: Apache-2.0
//
// The store against a server of the test's own, which answers as real ones do and as none should.
// Real servers: tests/store/s3_test.cc.

#include "objects/s3/s3_store.h"

#include <atomic>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <span>

#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "async/testing.h"
#include "objects/http/testing.h"

namespace usbd::objects {
namespace {

using std::chrono::milliseconds;
using testing::TestServer;
using Connection = TestServer::Connection;
using Request = TestServer::Request;

constexpr const char* kEmptyList =
    "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

Bytes bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(const std::vector<std::byte>& data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

std::string error_document(const std::string& code) {
  return "<Error><Code>" + code + "</Code><Message>in words</Message></Error>";
}

/// A server that answers by a list: one function for each request after the opening.
class S3StoreTest : public ::testing::Test {
 protected:
  S3StoreTest()
      : server_([this](Connection& connection, const Request& request) {
          connection.read_body();
          std::function<void(Connection&, const Request&)> next;
          {
            const MutexLock lock(mutex_);
            if (!answers_.empty()) {
              next = std::move(answers_.front());
              answers_.pop_front();
            }
          }
          if (next) return next(connection, request);
          connection.answer("200 OK", kEmptyList);
        }) {}

 public:
  ~S3StoreTest() override {
    if (store_ != nullptr) test_.run(store_->close());
  }

 protected:
  S3Store::Options options() {
    return {.keys = {{"endpoint", server_.url()},
                     {"access_key_id", "the-id"},
                     {"secret_key", "the-secret"}},
            .container = "bucket",
            .http = {.stall = milliseconds(400)},
            .environment = [this](const char* name) { return environment_[name]; },
            .clock = [this] { return clock_.load(); }};
  }
  Result<void> try_open(S3Store::Options with) {
    Result<std::unique_ptr<S3Store>> opened =
        test_.run(S3Store::open(std::move(with), test_.pool()));
    if (!opened) return std::move(opened).error();
    store_ = *std::move(opened);
    return {};
  }
  Result<void> try_open() { return try_open(options()); }
  void open() { ASSERT_TRUE(try_open().has_value()); }

  void expect(std::function<void(Connection&, const Request&)> answer) {
    const MutexLock lock(mutex_);
    answers_.push_back(std::move(answer));
  }
  void expect(const std::string& status, const std::string& body = {},
              const std::string& headers = {}) {
    expect([status, body, headers](Connection& connection, const Request&) {
      connection.answer(status, body, headers);
    });
  }
  /// An answer to a HEAD, which has no body.
  void expect_head(const std::string& status, const std::string& headers) {
    expect([status, headers](Connection& connection, const Request&) {
      connection.send("HTTP/1.1 " + status + "\r\n" + headers + "\r\n");
    });
  }

  Result<std::string> put(std::string_view data, Condition condition = {}) {
    return test_.run(store_->put("a/b", bytes_of(data), std::move(condition), {}));
  }
  Result<Fetched> get(Part part) { return test_.run(store_->get("a/b", part, {})); }
  Result<ObjectInfo> head() { return test_.run(store_->head("a/b", {})); }
  Result<ListPage> list(std::string after = {}, size_t most = 1000) {
    return test_.run(store_->list("v/", std::move(after), most, {}));
  }
  Result<void> remove() { return test_.run(store_->remove("a/b", {})); }
  /// Of the requests, the last.
  Request last() { return server_.requests().back(); }

  usbd::testing::TestLoop test_;
  Mutex mutex_;
  std::deque<std::function<void(Connection&, const Request&)>> answers_ USBD_GUARDED_BY(mutex_);
  std::map<std::string, std::string> environment_;
  std::atomic<int64_t> clock_{1'000'000'000};
  TestServer server_;
  std::unique_ptr<S3Store> store_;
};

template <typename T>
void expect_error(const Result<T>& result, Errc errc, std::string_view said = {}) {
  ASSERT_FALSE(result.has_value());
  EXPECT_TRUE(result.error().is(errc)) << result.error().message();
  EXPECT_NE(result.error().context().find(said), std::string::npos) << result.error().message();
  EXPECT_EQ(result.error().context().find("the-secret"), std::string::npos);
}

// --- opening -------------------------------------------------------------------------------------

TEST_F(S3StoreTest, OpensABucketThatIsThere) {
  open();
  const Request request = last();
  EXPECT_EQ(request.method, "GET");
  EXPECT_EQ(request.target, "/bucket?list-type=2&max-keys=1");
  EXPECT_EQ(request.header("x-amz-date"), "20010909T014640Z");
  EXPECT_EQ(request.header("Authorization")
                .find("AWS4-HMAC-SHA256 Credential=the-id/20010909/"
                      "us-east-1/s3/aws4_request,SignedHeaders=host;"
                      "x-amz-content-sha256;x-amz-date,Signature="),
            0U);
  EXPECT_EQ(store_->name(), "s3://bucket/ at " + server_.url());
  EXPECT_TRUE(store_->abilities().put_if_matches);
}

TEST_F(S3StoreTest, MakesABucketThatIsNot) {
  expect("404 Not Found", error_document("NoSuchBucket"));
  expect("200 OK");
  open();
  EXPECT_EQ(last().method, "PUT");
  EXPECT_EQ(last().target, "/bucket");
  EXPECT_EQ(last().body_length, 0U);
}

TEST_F(S3StoreTest, SaysInWhichRegionANewBucketIsWanted) {
  expect("404 Not Found", error_document("NoSuchBucket"));
  expect("200 OK");
  S3Store::Options with = options();
  with.keys["region"] = "eu-west-1";
  ASSERT_TRUE(try_open(with).has_value());
  EXPECT_GT(last().body_length, 0U);
}

TEST_F(S3StoreTest, TakesABucketThatItsOwnerMadeMeanwhile) {
  expect("404 Not Found", error_document("NoSuchBucket"));
  expect("409 Conflict", error_document("BucketAlreadyOwnedByYou"));
  open();
}

TEST_F(S3StoreTest, RefusesABucketOfSomebodyElse) {
  expect("404 Not Found", error_document("NoSuchBucket"));
  expect("409 Conflict", error_document("BucketAlreadyExists"));
  expect_error(try_open(), Errc::kAccess, "belongs to somebody else");
  expect("403 Forbidden", error_document("AccessDenied"));
  expect_error(try_open(), Errc::kAccess, "belongs to somebody else");
}

TEST_F(S3StoreTest, MakesNoBucketToReadOnly) {
  expect("404 Not Found", error_document("NoSuchBucket"));
  S3Store::Options with = options();
  with.read_only = true;
  expect_error(try_open(with), Errc::kNotFound, "there is no such bucket");
  ASSERT_TRUE(try_open(with).has_value());
  expect_error(put("x"), Errc::kReadOnly);
  expect_error(remove(), Errc::kReadOnly);
}

TEST_F(S3StoreTest, SaysWhatIsWrongWithTheCredentials) {
  for (const auto& [code, said] :
       {std::pair("SignatureDoesNotMatch", "the secret key is not the one"),
        std::pair("InvalidAccessKeyId", "does not know this access key"),
        std::pair("RequestTimeTooSkewed", "the clock of this host")}) {
    expect("403 Forbidden", error_document(code));
    expect_error(try_open(), Errc::kAccess, said);
  }
}

TEST_F(S3StoreTest, RefusesWrongKeysBeforeItConnects) {
  S3Store::Options with = options();
  with.keys["endpont"] = "x";
  expect_error(try_open(with), Errc::kInvalid, "endpont");
  with = options();
  with.container = "no/bucket";
  expect_error(try_open(with), Errc::kInvalid, "-objstore-container");
  with = options();
  with.keys["ca_file"] = "/nonexistent";
  expect_error(try_open(with), Errc::kInvalid, "/nonexistent");
  EXPECT_EQ(server_.connections(), 0U);
}

TEST_F(S3StoreTest, NamesTheRegionThatABucketIsIn) {
  expect("301 Moved Permanently", error_document("PermanentRedirect"),
         "x-amz-bucket-region: eu-west-1\r\nLocation: http://127.0.0.1:1/\r\n");
  expect_error(try_open(), Errc::kInvalid, "in region eu-west-1");
}

TEST_F(S3StoreTest, SaysThatNobodyAnswers) {
  S3Store::Options with = options();
  with.keys["endpoint"] = "http://127.0.0.1:1";
  expect_error(try_open(with), Errc::kIo, "GET s3://bucket/: Failed to connect");
}

// --- put -----------------------------------------------------------------------------------------

TEST_F(S3StoreTest, PutsAnObjectUnderASignedHash) {
  open();
  expect("200 OK", "", "ETag: \"e1\"\r\n");
  const Result<std::string> tag = put("Welcome to Amazon S3.");
  ASSERT_TRUE(tag.has_value()) << tag.error().message();
  EXPECT_EQ(*tag, "e1");
  EXPECT_EQ(last().target, "/bucket/a/b");
  EXPECT_EQ(last().header("x-amz-content-sha256"),
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
  expect("200 OK", "", "ETag: \"e2\"\r\n");
  const std::string large(1 << 20, 'x');
  EXPECT_EQ(*put(large), "e2");
}

TEST_F(S3StoreTest, PutsIfAbsent) {
  open();
  expect("200 OK", "", "ETag: \"e\"\r\n");
  EXPECT_TRUE(put("x", Condition::absent()).has_value());
  EXPECT_EQ(last().header("If-None-Match"), "*");
  expect("412 Precondition Failed", error_document("PreconditionFailed"));
  expect_error(put("x", Condition::absent()), Errc::kExists);
  expect("409 Conflict", error_document("ConditionalRequestConflict"));
  expect_error(put("x", Condition::absent()), Errc::kAgain);
  expect("501 Not Implemented", error_document("NotImplemented"));
  expect_error(put("x", Condition::absent()), Errc::kNotSupported);
}

TEST_F(S3StoreTest, RefusesAPutWithoutATag) {
  open();
  expect("200 OK");
  expect_error(put("x"), Errc::kIo, "ETag");
}

TEST_F(S3StoreTest, MapsWhatGoesWrongWithAPut) {
  open();
  expect("503 Slow Down", error_document("SlowDown"), "Retry-After: 1\r\n");
  expect_error(put("x"), Errc::kAgain, "PUT s3://bucket/a/b: the store asks for fewer");
  expect("507 Full");
  expect_error(put("x"), Errc::kNoSpace);
  expect("403 Forbidden", error_document("QuotaExceeded"));
  expect_error(put("x"), Errc::kNoSpace);
  expect("404 Not Found", error_document("NoSuchBucket"));
  expect_error(put("x"), Errc::kNotFound, "no such bucket");
  expect([](Connection& connection, const Request&) { connection.reset(); });
  expect_error(put("x"), Errc::kIo);
  expect([](Connection& connection, const Request&) { connection.stall(); });
  expect_error(put("x"), Errc::kTimedOut, "nothing moved");
}

// --- the forms of a tag --------------------------------------------------------------------------

/// An object with a tag, on a server that takes one form of If-Match or both.
struct Object {
  bool takes_quoted = true;
  bool takes_bare = true;
  std::atomic<int> version{1};
  std::atomic<int> puts{0};
  /// Called before each request is looked at.
  std::function<void(const Request&)> before = [](const Request&) {};

  void operator()(Connection& connection, const Request& request) {
    before(request);
    const std::string tag = "v" + std::to_string(version.load());
    const std::string headers = "ETag: \"" + tag + "\"\r\n";
    if (request.method == "HEAD") {
      return connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + headers + "\r\n");
    }
    ++puts;
    const std::string condition = request.header("If-Match");
    const bool matches =
        (takes_quoted && condition == "\"" + tag + "\"") || (takes_bare && condition == tag);
    if (!matches) return connection.answer("412 No", error_document("PreconditionFailed"));
    const std::string next = "v" + std::to_string(++version);
    connection.answer("200 OK", "", "ETag: \"" + next + "\"\r\n");
  }
};

class S3TagTest : public S3StoreTest {
 protected:
  void serve_all() {
    open();
    for (int i = 0; i < 100; ++i) {
      expect(
          [this](Connection& connection, const Request& request) { object_(connection, request); });
    }
  }
  Object object_;
};

TEST_F(S3TagTest, LearnsThatTagsAreQuoted) {
  object_.takes_bare = false;
  serve_all();
  EXPECT_EQ(*put("x", Condition::matches("v1")), "v2");
  EXPECT_EQ(*put("x", Condition::matches("v2")), "v3");
  expect_error(put("x", Condition::matches("v2")), Errc::kExists);
  EXPECT_EQ(object_.puts.load(), 3);
}

TEST_F(S3TagTest, LearnsThatTagsAreBare) {
  object_.takes_quoted = false;
  serve_all();
  EXPECT_EQ(*put("x", Condition::matches("v1")), "v2");
  EXPECT_EQ(object_.puts.load(), 2);
  EXPECT_EQ(*put("x", Condition::matches("v2")), "v3");
  expect_error(put("x", Condition::matches("v2")), Errc::kExists);
  EXPECT_EQ(object_.puts.load(), 4);
}

TEST_F(S3TagTest, RefusesAStaleTagBeforeItKnowsTheForm) {
  object_.takes_quoted = false;
  serve_all();
  expect_error(put("x", Condition::matches("v0")), Errc::kExists);
  EXPECT_EQ(object_.version.load(), 1);
  EXPECT_EQ(*put("x", Condition::matches("v1")), "v2");
}

TEST_F(S3TagTest, IsNotFooledByAChangeBetweenTheForms) {
  object_.takes_quoted = false;
  // The object changes after the HEAD that found the tag to be right.
  object_.before = [this](const Request& request) {
    if (request.header("If-Match") == "v1") object_.version.store(7);
  };
  serve_all();
  expect_error(put("x", Condition::matches("v1")), Errc::kExists);
  EXPECT_EQ(object_.version.load(), 7);
}

TEST_F(S3TagTest, SaysThatNeitherFormWorks) {
  object_.takes_quoted = false;
  object_.takes_bare = false;
  serve_all();
  expect_error(put("x", Condition::matches("v1")), Errc::kNotSupported, "with and without quotes");
  EXPECT_EQ(object_.puts.load(), 2 * static_cast<int>(limits::kS3TagRounds));
}

TEST_F(S3TagTest, KnowsNothingIfTheLookFails) {
  open();
  expect("412 No");
  expect_head("503 Busy", "");
  expect_error(put("x", Condition::matches("v1")), Errc::kAgain);
  expect("412 No");
  expect_head("404 Gone", "");
  expect_error(put("x", Condition::matches("v1")), Errc::kExists);
}

TEST_F(S3TagTest, TakesAMissingObjectForAnotherTag) {
  open();
  expect("404 Not Found", error_document("NoSuchKey"));
  expect_head("404 Not Found", "");
  expect_error(put("x", Condition::matches("v1")), Errc::kExists);
  expect("404 Not Found", error_document("NoSuchBucket"));
  expect_error(put("x", Condition::matches("v1")), Errc::kNotFound);
}

// --- get -----------------------------------------------------------------------------------------

constexpr const char* kTag = "ETag: \"t\"\r\n";

TEST_F(S3StoreTest, GetsARange) {
  open();
  expect("206 Partial", "cdef", std::string(kTag) + "Content-Range: bytes 2-5/26\r\n");
  const Result<Fetched> got = get(Part::range(2, 4));
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_EQ(text_of(got->data), "cdef");
  EXPECT_EQ(got->object_size, 26U);
  EXPECT_EQ(got->tag, "t");
  EXPECT_EQ(last().header("Range"), "bytes=2-5");
}

TEST_F(S3StoreTest, GetsARangeThatTheObjectEndsIn) {
  open();
  expect("206 Partial", "yz", std::string(kTag) + "Content-Range: bytes 24-25/26\r\n");
  const Result<Fetched> got = get(Part::range(24, UINT64_MAX));
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_EQ(text_of(got->data), "yz");
  EXPECT_EQ(last().header("Range"), "bytes=24-18446744073709551615");
}

TEST_F(S3StoreTest, GetsATail) {
  open();
  expect("206 Partial", "xyz", std::string(kTag) + "Content-Range: bytes 23-25/26\r\n");
  EXPECT_EQ(text_of(get(Part::tail(3))->data), "xyz");
  EXPECT_EQ(last().header("Range"), "bytes=-3");
  expect("206 Partial", "ab", std::string(kTag) + "Content-Range: bytes 0-1/2\r\n");
  EXPECT_EQ(text_of(get(Part::tail(3))->data), "ab");
}

TEST_F(S3StoreTest, GetsAllUpToALimit) {
  open();
  expect("200 OK", "whole", kTag);
  EXPECT_EQ(text_of(get(Part::whole(5))->data), "whole");
  EXPECT_EQ(last().header("Range"), "");
  expect("200 OK", "whole!", kTag);
  expect_error(get(Part::whole(5)), Errc::kOverflow);
  expect("200 OK", "", kTag);
  EXPECT_EQ(get(Part::whole(0))->object_size, 0U);
}

TEST_F(S3StoreTest, GetsNothingBeyondTheEnd) {
  open();
  expect("416 Range", error_document("InvalidRange"));
  expect_head("200 OK", std::string(kTag) + "Content-Length: 26\r\n");
  const Result<Fetched> got = get(Part::range(26, 1));
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_TRUE(got->data.empty());
  EXPECT_EQ(got->object_size, 26U);
  EXPECT_EQ(got->tag, "t");
  expect("416 Range");
  expect_head("200 OK", std::string(kTag) + "Content-Length: 0\r\n");
  EXPECT_EQ(get(Part::tail(5))->object_size, 0U);
  expect("416 Range");
  expect_head("200 OK", std::string(kTag) + "Content-Length: 27\r\n");
  expect_error(get(Part::range(26, 1)), Errc::kAgain, "changed");
  expect("416 Range");
  expect_head("404 Gone", "");
  expect_error(get(Part::range(26, 1)), Errc::kNotFound);
}

TEST_F(S3StoreTest, TakesAWholeObjectInPlaceOfItsPart) {
  open();
  expect("200 OK", "abc", kTag);
  EXPECT_EQ(text_of(get(Part::range(1, 5))->data), "bc");
  expect("200 OK", "abc", kTag);
  EXPECT_EQ(text_of(get(Part::tail(3))->data), "abc");
  expect("200 OK", "abcdefgh", kTag);
  expect_error(get(Part::range(1, 5)), Errc::kIo, "more than the range");
}

TEST_F(S3StoreTest, RefusesPartsThatAreNotWhatWasAsked) {
  open();
  const auto refused = [this](const std::string& body, const std::string& headers) {
    expect("206 Partial", body, headers);
    expect_error(get(Part::range(2, 4)), Errc::kIo);
  };
  refused("cdef", std::string(kTag) + "Content-Range: bytes 3-6/26\r\n");
  refused("cde", std::string(kTag) + "Content-Range: bytes 2-4/26\r\n");
  refused("cde", std::string(kTag) + "Content-Range: bytes 2-5/26\r\n");
  refused("cdef", std::string(kTag) + "Content-Range: bytes 2-5/*\r\n");
  refused("cdef", kTag);
  refused("cdef", "Content-Range: bytes 2-5/26\r\n");
  refused("cdefg", std::string(kTag) + "Content-Range: bytes 2-6/26\r\n");
  expect("206 Partial", "ab", std::string(kTag) + "Content-Range: bytes 0-1/2\r\n");
  expect_error(get(Part::whole(5)), Errc::kIo);
}

TEST_F(S3StoreTest, RefusesABodyOfUnknownLength) {
  open();
  expect([](Connection& connection, const Request&) {
    connection.send("HTTP/1.0 200 OK\r\nETag: t\r\n\r\nperhaps all");
    connection.close();
  });
  expect_error(get(Part::whole(100)), Errc::kIo, "without a length");
}

TEST_F(S3StoreTest, RefusesABodyThatIsCutShort) {
  open();
  expect([](Connection& connection, const Request&) {
    connection.send(
        "HTTP/1.1 206 OK\r\nETag: t\r\nContent-Range: bytes 2-5/26\r\n"
        "Content-Length: 4\r\n\r\ncd");
    connection.close();
  });
  expect_error(get(Part::range(2, 4)), Errc::kIo);
}

TEST_F(S3StoreTest, TellsAMissingObjectFromAMissingBucket) {
  open();
  expect("404 Not Found", error_document("NoSuchKey"));
  expect_error(get(Part::whole(5)), Errc::kNotFound, "no such object");
  expect("404 Not Found", error_document("NoSuchBucket"));
  expect_error(get(Part::whole(5)), Errc::kNotFound, "no such bucket");
}

TEST_F(S3StoreTest, HeadsAnObject) {
  open();
  expect_head("200 OK", std::string(kTag) + "Content-Length: 123456789012\r\n");
  const Result<ObjectInfo> info = head();
  ASSERT_TRUE(info.has_value()) << info.error().message();
  EXPECT_EQ(info->name, "a/b");
  EXPECT_EQ(info->size, 123456789012U);
  EXPECT_EQ(info->tag, "t");
  expect_head("404 Not Found", "");
  expect_error(head(), Errc::kNotFound);
  expect_head("200 OK", "Content-Length: 5\r\n");
  expect_error(head(), Errc::kIo, "without a length or an ETag");
  expect_head("403 Forbidden", "");
  expect_error(head(), Errc::kAccess);
}

// --- list and remove -----------------------------------------------------------------------------

std::string page_of(const std::vector<std::string>& names, const std::string& token = {}) {
  std::string xml = "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>";
  xml += token.empty()
             ? "false</IsTruncated>"
             : "true</IsTruncated><NextContinuationToken>" + token + "</NextContinuationToken>";
  for (const std::string& name : names) {
    xml += "<Contents><Key>" + name + "</Key><Size>7</Size></Contents>";
  }
  return xml + "</ListBucketResult>";
}

TEST_F(S3StoreTest, ListsAPage) {
  open();
  expect("200 OK", page_of({"v%2Fb", "v%2Fc"}, "token"));
  const Result<ListPage> page = list("v/a", 2);
  ASSERT_TRUE(page.has_value()) << page.error().message();
  ASSERT_EQ(page->objects.size(), 2U);
  EXPECT_EQ(page->objects[1].name, "v/c");
  EXPECT_EQ(page->objects[1].size, 7U);
  EXPECT_TRUE(page->more);
  EXPECT_EQ(last().target,
            "/bucket?encoding-type=url&list-type=2&max-keys=2&prefix=v%2F&start-after=v%2Fa");
}

TEST_F(S3StoreTest, PassesOverNamesOfOthersAndGoesOn) {
  open();
  expect("200 OK", page_of({"v%2Fa%20b", "v%2Fa//"}, "1/2="));
  expect("200 OK", page_of({"v%2Fc"}));
  const Result<ListPage> page = list();
  ASSERT_TRUE(page.has_value()) << page.error().message();
  ASSERT_EQ(page->objects.size(), 1U);
  EXPECT_FALSE(page->more);
  EXPECT_NE(last().target.find("continuation-token=1%2F2%3D"), std::string::npos);
}

TEST_F(S3StoreTest, RefusesListingsThatMakeNoSense) {
  open();
  const auto refused = [this](const std::string& xml, const char* said) {
    expect("200 OK", xml);
    expect_error(list("v/b", 2), Errc::kIo, said);
  };
  refused("<html/>", "something else");
  refused(page_of({"v%2Fd", "v%2Fc"}), "order");
  refused(page_of({"v%2Fc", "v%2Fc"}), "order");
  refused(page_of({"v%2Fb"}), "other names");
  refused(page_of({"w%2Fc"}), "other names");
  refused(page_of({"v%2Fc", "v%2Fd", "v%2Fe"}), "more than was asked for");
  refused("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "not where");
  refused(std::string((4 << 20) + 1, ' '), "a body of more than");
  expect("500 Oops");
  expect_error(list(), Errc::kAgain, "LIST s3://bucket/v/");
}

TEST_F(S3StoreTest, GivesUpAListingWithoutEnd) {
  open();
  for (unsigned i = 0; i < limits::kS3EmptyPagesMax; ++i) expect("200 OK", page_of({}, "again"));
  expect_error(list(), Errc::kIo, "without end");
}

TEST_F(S3StoreTest, RemovesWhatIsThereOrNot) {
  open();
  expect([](Connection& connection, const Request&) {
    connection.send("HTTP/1.1 204 No Content\r\n\r\n");
  });
  EXPECT_TRUE(remove().has_value());
  EXPECT_EQ(last().method, "DELETE");
  expect("404 Not Found", error_document("NoSuchKey"));
  EXPECT_TRUE(remove().has_value());
  expect("404 Not Found", error_document("NoSuchBucket"));
  expect_error(remove(), Errc::kNotFound);
  expect("403 Forbidden", error_document("AccessDenied"));
  expect_error(remove(), Errc::kAccess);
}

// --- limits of calls -----------------------------------------------------------------------------

TEST_F(S3StoreTest, EndsAtItsTimeout) {
  open();
  expect([](Connection& connection, const Request&) { connection.stall(); });
  expect_error(test_.run(store_->head("a", {.timeout = milliseconds(50)})), Errc::kTimedOut);
}

TEST_F(S3StoreTest, EndsWhenItIsCanceled) {
  open();
  std::stop_source stop;
  stop.request_stop();
  expect_error(test_.run(store_->head("a", {.stop = stop.get_token()})), Errc::kCanceled);
}

// --- credentials ---------------------------------------------------------------------------------

TEST_F(S3StoreTest, SendsTheSessionToken) {
  S3Store::Options with = options();
  with.keys["token"] = "the-token";
  ASSERT_TRUE(try_open(with).has_value());
  EXPECT_EQ(last().header("x-amz-security-token"), "the-token");
  EXPECT_NE(last().header("Authorization").find(";x-amz-security-token,"), std::string::npos);
  expect("400 Bad Request", error_document("ExpiredToken"));
  expect_error(get(Part::whole(1)), Errc::kAccess, "the session token has expired");
}

TEST_F(S3StoreTest, TakesCredentialsFromTheEnvironment) {
  S3Store::Options with = options();
  with.keys.erase("access_key_id");
  with.keys.erase("secret_key");
  environment_ = {{"AWS_ACCESS_KEY_ID", "env-id"}, {"AWS_SECRET_ACCESS_KEY", "the-secret"}};
  ASSERT_TRUE(try_open(with).has_value());
  EXPECT_NE(last().header("Authorization").find("Credential=env-id/"), std::string::npos);
}

class S3FileTest : public S3StoreTest {
 protected:
  S3FileTest() : path_("/tmp/usbd-s3-test-" + std::to_string(::getpid())) {}

 public:
  ~S3FileTest() override { ::unlink(path_.c_str()); }

 protected:
  void write(const std::string& id) {
    std::ofstream file(path_);
    file << "[default]\naws_access_key_id = " << id << "\naws_secret_access_key = the-secret\n";
  }
  S3Store::Options without_keys() {
    S3Store::Options with = options();
    with.keys.erase("access_key_id");
    with.keys.erase("secret_key");
    environment_["AWS_SHARED_CREDENTIALS_FILE"] = path_;
    return with;
  }

  const std::string path_;
};

TEST_F(S3FileTest, ReadsTheFileAgainWhenCredentialsHaveExpired) {
  write("first");
  ASSERT_TRUE(try_open(without_keys()).has_value());
  EXPECT_NE(last().header("Authorization").find("Credential=first/"), std::string::npos);
  write("second");
  expect("400 Bad Request", error_document("ExpiredToken"));
  expect("200 OK", "", "ETag: \"e\"\r\n");
  EXPECT_TRUE(put("x").has_value());
  EXPECT_NE(last().header("Authorization").find("Credential=second/"), std::string::npos);
  // A HEAD gives no reason.
  write("third");
  expect_head("400 Bad Request", "");
  expect_head("200 OK", std::string(kTag) + "Content-Length: 1\r\n");
  EXPECT_TRUE(head().has_value());
}

TEST_F(S3FileTest, TriesOnlyOnceWithNewCredentials) {
  write("first");
  ASSERT_TRUE(try_open(without_keys()).has_value());
  write("second");
  expect("400 Bad Request", error_document("ExpiredToken"));
  expect("400 Bad Request", error_document("ExpiredToken"));
  expect_error(put("x"), Errc::kAccess, "expired");
  expect("400 Bad Request", error_document("ExpiredToken"));
  expect_error(put("x"), Errc::kAccess, "expired");  // the file has not changed
  EXPECT_EQ(server_.requests().size(), 4U);
}

TEST_F(S3FileTest, SaysWhereItLooked) {
  S3Store::Options with = without_keys();
  expect_error(try_open(with), Errc::kAccess, "No such file");
  std::ofstream(path_) << "[other]\naws_access_key_id = x\n";
  expect_error(try_open(with), Errc::kAccess, "no keys of profile \"default\"");
  environment_["AWS_ACCESS_KEY_ID"] = "alone";
  expect_error(try_open(with), Errc::kAccess, "only one is set");
  environment_["AWS_SECRET_ACCESS_KEY"] = "b\nc";
  expect_error(try_open(with), Errc::kAccess, "control characters");
}

}  // namespace
}  // namespace usbd::objects

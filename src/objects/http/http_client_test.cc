// SPDX-License-Identifier: Apache-2.0
//
// The client against servers that do well, badly, slowly or not at all.

#include "objects/http/http_client.h"

#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "async/scope.h"
#include "async/testing.h"
#include "objects/http/testing.h"

namespace usbd::objects {
namespace {

using std::chrono::milliseconds;
using testing::TestServer;
using Connection = TestServer::Connection;
using Request = TestServer::Request;

/// A loop with a client, for the length of a test.
class HttpClientTest : public ::testing::Test {
 public:
  ~HttpClientTest() override {
    if (client_ != nullptr) test_.run(client_->close());
  }

 protected:
  void open(HttpClient::Options options = {}) {
    Result<std::unique_ptr<HttpClient>> made = HttpClient::create(test_.loop(), std::move(options));
    ASSERT_TRUE(made.has_value()) << made.error().message();
    client_ = *std::move(made);
  }
  Result<HttpResponse> send(HttpRequest request) {
    if (client_ == nullptr) open();
    return test_.run(client_->send(std::move(request)));
  }
  Result<HttpResponse> get(const TestServer& server, uint64_t response_max = 1 << 20) {
    return send({.method = "GET", .url = server.url() + "/x", .response_max = response_max});
  }
  Result<HttpResponse> put(const TestServer& server, std::string_view body) {
    return send({.method = "PUT",
                 .url = server.url() + "/x",
                 .body = std::as_bytes(std::span(body)),
                 .response_max = 1000});
  }

  usbd::testing::TestLoop test_;
  std::unique_ptr<HttpClient> client_;
};

TestServer::Handler always(std::string raw) {
  return [raw = std::move(raw)](Connection& connection, const Request&) {
    connection.read_body();
    connection.send(raw);
    connection.close();
  };
}

TEST_F(HttpClientTest, BringsStatusHeadersAndBody) {
  TestServer server([](Connection& connection, const Request&) {
    connection.answer("200 OK", "hello", "ETag:  \"abc\" \r\nX-Empty:\r\n");
  });
  const Result<HttpResponse> got = get(server);
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_EQ(got->status, 200);
  EXPECT_EQ(got->text(), "hello");
  ASSERT_NE(got->find("etag"), nullptr);
  EXPECT_EQ(*got->find("etag"), "\"abc\"");
  EXPECT_EQ(*got->find("x-empty"), "");
  EXPECT_EQ(got->find("ETag"), nullptr);
}

TEST_F(HttpClientTest, SendsMethodHeadersAndBody) {
  std::string seen;
  TestServer server([&seen](Connection& connection, const Request&) {
    seen = connection.read_body();
    connection.answer("200 OK");
  });
  const std::string body(3'000'000, 'b');
  ASSERT_TRUE(put(server, body).has_value());
  EXPECT_EQ(seen, body);
  ASSERT_TRUE(put(server, "").has_value());
  const HttpRequest removal{.method = "DELETE",
                            .url = server.url() + "/a%2Fb/../c?q=%20",
                            .headers = {{"X-One", "1"}, {"X-None", ""}}};
  ASSERT_TRUE(send(removal).has_value());
  const std::vector<Request> requests = server.requests();
  EXPECT_EQ(requests[0].method, "PUT");
  EXPECT_EQ(requests[0].header("Content-Length"), "3000000");
  EXPECT_EQ(requests[0].header("Expect"), "");
  EXPECT_EQ(requests[1].header("Content-Length"), "0");
  EXPECT_EQ(requests[2].method, "DELETE");
  EXPECT_EQ(requests[2].target, "/a%2Fb/../c?q=%20");
  EXPECT_EQ(requests[2].header("X-One"), "1");
  EXPECT_NE(requests[2].head.find("X-None:"), std::string::npos);
}

TEST_F(HttpClientTest, TakesTheHeadersOfAHeadWithoutABody) {
  TestServer server([](Connection& connection, const Request&) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n");
  });
  const Result<HttpResponse> got = send({.method = "HEAD", .url = server.url()});
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_EQ(*got->find("content-length"), "12345");
  EXPECT_TRUE(got->body.empty());
}

TEST_F(HttpClientTest, RefusesABodyThatIsCutShort) {
  TestServer server(always("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"));
  const Result<HttpResponse> got = get(server);
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();
}

TEST_F(HttpClientTest, RefusesHeadersThatAreCutShort) {
  TestServer server(always("HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Len"));
  for (const char* const method : {"GET", "HEAD", "DELETE"}) {
    const Result<HttpResponse> got = send({.method = method, .url = server.url()});
    ASSERT_FALSE(got.has_value());
    EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();
  }
}

TEST_F(HttpClientTest, ReportsAResetInTheBody) {
  TestServer server([](Connection& connection, const Request&) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    connection.pause(milliseconds(50));
    connection.reset();
  });
  const Result<HttpResponse> got = get(server);
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();
}

TEST_F(HttpClientTest, GivesUpWhenNothingMoves) {
  open({.stall = milliseconds(150)});
  TestServer server([](Connection& connection, const Request&) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    connection.stall();
  });
  const Result<HttpResponse> got = get(server);
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kTimedOut)) << got.error().message();
  EXPECT_EQ(got.error().context(), "nothing moved for 150ms");
}

TEST_F(HttpClientTest, DoesNotGiveUpWhileBytesMove) {
  open({.stall = milliseconds(400)});
  TestServer server([](Connection& connection, const Request&) {
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    for (int i = 0; i < 10; ++i) {
      connection.pause(milliseconds(100));
      connection.send("x");
    }
  });
  const Result<HttpResponse> got = get(server);
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_EQ(got->text(), "xxxxxxxxxx");
}

TEST_F(HttpClientTest, GivesUpAtTheTimeout) {
  TestServer server([](Connection& connection, const Request&) { connection.stall(); });
  const Result<HttpResponse> got =
      send({.method = "GET", .url = server.url(), .timeout = milliseconds(100)});
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kTimedOut)) << got.error().message();
}

TEST_F(HttpClientTest, CountsTheWaitForAConnectionInTheTimeout) {
  open({.connections_max = 1});
  TestServer server([](Connection& connection, const Request&) { connection.stall(); });
  const auto both = [](HttpClient& client, std::string url) -> Task<Result<HttpResponse>> {
    Scope scope;
    std::stop_source stop;
    std::optional<Result<HttpResponse>> first;
    const auto hold = [](HttpClient& c, HttpRequest request,
                         std::optional<Result<HttpResponse>>& result) -> Task<void> {
      result = co_await c.send(std::move(request));
    };
    HttpRequest held{.method = "GET", .url = url, .stop = stop.get_token()};
    scope.spawn(hold(client, held, first));
    HttpRequest late{.method = "GET", .url = url, .timeout = milliseconds(100)};
    Result<HttpResponse> result = co_await client.send(std::move(late));
    stop.request_stop();
    co_await scope.close();
    EXPECT_TRUE(first->error().is(Errc::kCanceled));
    co_return result;
  };
  const Result<HttpResponse> got = test_.run(both(*client_, server.url()));
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kTimedOut));
  EXPECT_EQ(got.error().context(), "no connection was free in time");
}

TEST_F(HttpClientTest, RefusesHugeHeaders) {
  TestServer server(always("HTTP/1.1 200 OK\r\nX-Big: " + std::string(70'000, 'h') +
                           "\r\nContent-Length: 0\r\n\r\n"));
  const Result<HttpResponse> got = get(server);
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();
}

TEST_F(HttpClientTest, RefusesEndlessHeaders) {
  TestServer server([](Connection& connection, const Request&) {
    connection.send("HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 100'000; ++i) connection.send("X-Another: one\r\n");
    connection.close();
  });
  const Result<HttpResponse> got = get(server);
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();
  EXPECT_NE(got.error().context().find("headers of more than 64 KiB"), std::string::npos);
}

TEST_F(HttpClientTest, RefusesEndlessInterimAnswers) {
  TestServer server([](Connection& connection, const Request&) {
    for (int i = 0; i < 100'000; ++i) connection.send("HTTP/1.1 100 Continue\r\n\r\n");
    connection.close();
  });
  const Result<HttpResponse> got = get(server);
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();
}

TEST_F(HttpClientTest, ReadsChunksAndIgnoresTrailers) {
  TestServer server(
      always("HTTP/1.1 200 OK\r\nETag: \"a\"\r\nTransfer-Encoding: chunked\r\nTrailer: ETag\r\n\r\n"
             "3\r\nabc\r\n5\r\ndefgh\r\n0\r\nETag: \"b\"\r\nX-Late: 1\r\n\r\n"));
  const Result<HttpResponse> got = get(server);
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_EQ(got->text(), "abcdefgh");
  EXPECT_EQ(*got->find("etag"), "\"a\"");
  EXPECT_EQ(got->find("x-late"), nullptr);
}

TEST_F(HttpClientTest, RefusesChunksWithoutAnEnd) {
  TestServer server(always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"));
  const Result<HttpResponse> got = get(server);
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();
}

TEST_F(HttpClientTest, PassesOverInterimAnswers) {
  TestServer server(
      always("HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n"
             "HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 2\r\n\r\nok"));
  const Result<HttpResponse> got = put(server, "data");
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_EQ(got->status, 200);
  EXPECT_EQ(got->text(), "ok");
  EXPECT_EQ(got->find("x-interim"), nullptr);
}

TEST_F(HttpClientTest, RefusesABodyLongerThanIsWanted) {
  TestServer announced([](Connection& connection, const Request&) {
    connection.answer("200 OK", std::string(1001, 'x'));
  });
  TestServer chunked(
      always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
             "3e8\r\n" +
             std::string(1000, 'x') + "\r\n1\r\nx\r\n0\r\n\r\n"));
  for (TestServer* const server : {&announced, &chunked}) {
    const Result<HttpResponse> got = get(*server, 1000);
    ASSERT_FALSE(got.has_value());
    EXPECT_TRUE(got.error().is(Errc::kOverflow)) << got.error().message();
  }
  EXPECT_TRUE(get(announced, 1001).has_value());
}

TEST_F(HttpClientTest, TakesOnlyTheStartOfALongErrorBody) {
  TestServer server([](Connection& connection, const Request&) {
    connection.answer("503 Busy", std::string(1 << 20, 'e'));
  });
  const Result<HttpResponse> got = get(server, 10);
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_EQ(got->status, 503);
  EXPECT_EQ(got->body.size(), limits::kHttpErrorBodyMax);
}

TEST_F(HttpClientTest, UploadsToASlowReader) {
  std::string seen;
  TestServer server([&seen](Connection& connection, const Request&) {
    for (int i = 0; i < 20; ++i) {
      seen += connection.read_some(256 << 10);
      connection.pause(milliseconds(10));
    }
    seen += connection.read_body();
    connection.answer("200 OK");
  });
  std::string body(16 << 20, '\0');
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 31 >> 3U);
  const Result<HttpResponse> got = put(server, body);
  ASSERT_TRUE(got.has_value()) << got.error().message();
  EXPECT_TRUE(seen == body);
}

TEST_F(HttpClientTest, StopsAnUploadThatIsRefusedEarly) {
  TestServer server([](Connection& connection, const Request&) {
    connection.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    connection.pause(milliseconds(50));
    connection.close();
  });
  const std::string body(32 << 20, 'b');
  const Result<HttpResponse> got = put(server, body);
  if (got.has_value()) {
    EXPECT_EQ(got->status, 403);
  } else {
    EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();  // the reset was faster
  }
}

TEST_F(HttpClientTest, DoesNotFollowRedirects) {
  TestServer server([](Connection& connection, const Request&) {
    connection.answer("307 Elsewhere", "", "Location: http://127.0.0.1:1/\r\n");
  });
  const Result<HttpResponse> got = get(server);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->status, 307);
}

TEST_F(HttpClientTest, TakesNoProxyFromTheEnvironment) {
  ::setenv("http_proxy", "http://127.0.0.1:1", 1);
  TestServer server([](Connection& connection, const Request&) { connection.answer("200 OK"); });
  EXPECT_TRUE(get(server).has_value());
  ::unsetenv("http_proxy");
}

TEST_F(HttpClientTest, SaysWhatKeptItFromConnecting) {
  const Result<HttpResponse> got = send({.method = "GET", .url = "http://127.0.0.1:1/"});
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kIo));
  EXPECT_NE(got.error().context().find("127.0.0.1 port 1"), std::string::npos)
      << got.error().message();
}

TEST_F(HttpClientTest, RefusesUrlsOfOtherKinds) {
  const Result<HttpResponse> got = send({.method = "GET", .url = "file:///etc/passwd"});
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kInvalid)) << got.error().message();
}

TEST_F(HttpClientTest, RefusesACaFileThatCannotBeRead) {
  const Result<std::unique_ptr<HttpClient>> made =
      HttpClient::create(test_.loop(), {.ca_file = "/nonexistent/ca.pem"});
  ASSERT_FALSE(made.has_value());
  EXPECT_TRUE(made.error().is(Errc::kInvalid));
}

TEST_F(HttpClientTest, RefusesWhatIsNotTls) {
  TestServer server([](Connection& connection, const Request&) { connection.close(); });
  const std::string url = "https://127.0.0.1:" + std::to_string(server.port());
  const Result<HttpResponse> got = send({.method = "GET", .url = url});
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();
}

// --- kept connections ----------------------------------------------------------------------------

Task<void> one_of_many(HttpClient& client, std::string url, unsigned& good) {
  HttpRequest request{.method = "GET", .url = std::move(url), .response_max = 100};
  const Result<HttpResponse> got = co_await client.send(std::move(request));
  if (got.has_value() && got->text() == "ok") ++good;
}

Task<unsigned> many(HttpClient& client, std::string url, unsigned count) {
  Scope scope;
  unsigned good = 0;
  for (unsigned i = 0; i < count; ++i) scope.spawn(one_of_many(client, url, good));
  co_await scope.close();
  co_return good;
}

TEST_F(HttpClientTest, MakesAThousandRequestsOverFewConnections) {
  open({.connections_max = 4});
  TestServer server(
      [](Connection& connection, const Request&) { connection.answer("200 OK", "ok"); });
  EXPECT_EQ(test_.run(many(*client_, server.url(), 1000)), 1000U);
  EXPECT_LE(server.connections(), 4U);
}

/// Answers the first request of each connection, and closes at the second without an answer.
TestServer::Handler forgetful(std::atomic<int>& in_connection) {
  return [&in_connection](Connection& connection, const Request&) {
    connection.read_body();
    if (++in_connection == 2) return connection.close();
    connection.answer("200 OK", "ok");
  };
}

TEST_F(HttpClientTest, SendsAChangeNeverTwice) {
  for (const std::string_view body : {"data", ""}) {
    std::atomic<int> count{0};
    TestServer server(forgetful(count));
    ASSERT_TRUE(put(server, body).has_value());
    const Result<HttpResponse> got = put(server, body);
    ASSERT_FALSE(got.has_value());
    EXPECT_TRUE(got.error().is(Errc::kIo)) << got.error().message();
    EXPECT_EQ(server.requests().size(), 2U);
    EXPECT_TRUE(put(server, body).has_value());
  }
}

TEST_F(HttpClientTest, RepeatsAGetOnAClosedConnection) {
  std::atomic<int> count{0};
  TestServer server(forgetful(count));
  ASSERT_TRUE(get(server).has_value());
  EXPECT_TRUE(get(server).has_value());
  EXPECT_EQ(server.requests().size(), 3U);
}

// --- cancelling and closing ----------------------------------------------------------------------

Task<Result<HttpResponse>> canceled_after(HttpClient& client, HttpRequest request, Nanos delay) {
  std::stop_source stop;
  request.stop = stop.get_token();
  Scope scope;
  const auto cancel = [](std::stop_source source, Nanos wait) -> Task<void> {
    co_await Loop::current().sleep_for(wait);
    source.request_stop();
  };
  scope.spawn(cancel(stop, delay));
  Result<HttpResponse> result = co_await client.send(std::move(request));
  co_await scope.close();
  co_return result;
}

TEST_F(HttpClientTest, EndsWhenItIsCanceled) {
  open();
  TestServer server([](Connection& connection, const Request&) { connection.stall(); });
  const std::string body(8 << 20, 'b');
  for (const auto delay : {milliseconds(0), milliseconds(1), milliseconds(60)}) {
    const HttpRequest request{
        .method = "PUT", .url = server.url(), .body = std::as_bytes(std::span(body))};
    const Result<HttpResponse> got = test_.run(canceled_after(*client_, request, delay));
    ASSERT_FALSE(got.has_value());
    EXPECT_TRUE(got.error().is(Errc::kCanceled)) << got.error().message();
  }
}

TEST_F(HttpClientTest, DoesNotBeginWhatIsCanceledAlready) {
  TestServer server([](Connection& connection, const Request&) { connection.answer("200 OK"); });
  std::stop_source stop;
  stop.request_stop();
  const Result<HttpResponse> got =
      send({.method = "GET", .url = server.url(), .stop = stop.get_token()});
  ASSERT_FALSE(got.has_value());
  EXPECT_TRUE(got.error().is(Errc::kCanceled));
  EXPECT_TRUE(server.requests().empty());
}

Task<unsigned> close_over(HttpClient& client, std::string url) {
  Scope scope;
  unsigned good = 0;
  for (int i = 0; i < 10; ++i) scope.spawn(one_of_many(client, url, good));
  co_await client.close();
  co_await scope.close();
  co_return good;
}

TEST_F(HttpClientTest, ClosesOverRequestsOutstanding) {
  open({.connections_max = 3});
  TestServer server([](Connection& connection, const Request&) { connection.stall(); });
  EXPECT_EQ(test_.run(close_over(*client_, server.url())), 0U);
  client_.reset();
}

}  // namespace
}  // namespace usbd::objects

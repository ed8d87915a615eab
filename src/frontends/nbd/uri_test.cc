// SPDX-License-Identifier: Apache-2.0
//
// Endpoints as written on a command line, and URIs as clients read them.

#include "frontends/nbd/uri.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace usbd::nbd {
namespace {

using Kind = Endpoint::Kind;
using testing::HasSubstr;

Endpoint unix_at(std::string path) {
  return {.kind = Kind::kUnix, .path = std::move(path)};
}
Endpoint tcp_at(std::string host, uint16_t port) {
  return {.kind = Kind::kTcp, .host = std::move(host), .port = port};
}

std::string why_not(std::string_view text) {
  const Result<Endpoint> result = parse_endpoint(text);
  EXPECT_FALSE(result.has_value()) << text;
  return result ? "" : result.error().context();
}

TEST(NbdEndpoint, ReadsWhatItWrites) {
  for (const Endpoint& endpoint :
       {unix_at("/run/x.sock"), unix_at("a:b c"), tcp_at("127.0.0.1", 10809),
        tcp_at("localhost", 0), tcp_at("::1", 65535), tcp_at("fe80::1%eth0", 1)}) {
    const Result<Endpoint> read = parse_endpoint(to_text(endpoint));
    ASSERT_TRUE(read.has_value()) << to_text(endpoint);
    EXPECT_EQ(*read, endpoint);
  }
  EXPECT_EQ(to_text(tcp_at("::1", 7)), "tcp:[::1]:7");
}

TEST(NbdEndpoint, SaysWhatIsWrong) {
  EXPECT_THAT(why_not(""), HasSubstr("unix:PATH or tcp:HOST:PORT"));
  EXPECT_THAT(why_not("/run/x.sock"), HasSubstr("unix:PATH"));
  EXPECT_THAT(why_not("unix:"), HasSubstr("path is missing"));
  EXPECT_THAT(why_not(std::string_view("unix:a\0b", 8)), HasSubstr("NUL"));
  EXPECT_THAT(why_not("tcp:localhost"), HasSubstr("port is missing"));
  EXPECT_THAT(why_not("tcp::10809"), HasSubstr("host is missing"));
  EXPECT_THAT(why_not("tcp:[]:1"), HasSubstr("host is missing"));
  EXPECT_THAT(why_not("tcp:::1:10809"), HasSubstr("brackets"));
  for (const char* const port : {"", "x", "1x", "-1", "+1", "65536", "99999999999", " 1"}) {
    EXPECT_THAT(why_not(std::string("tcp:host:") + port), HasSubstr("0 (any free one) to 65535"));
  }
}

TEST(NbdUri, NamesTheSocketAndTheExport) {
  EXPECT_EQ(make_uri(unix_at("/run/usbd/x.sock"), ""), "nbd+unix:///?socket=/run/usbd/x.sock");
  EXPECT_EQ(make_uri(unix_at("/run/usbd/x.sock"), "disk"),
            "nbd+unix:///disk?socket=/run/usbd/x.sock");
  EXPECT_EQ(make_uri(tcp_at("127.0.0.1", 10809), "disk"), "nbd://127.0.0.1:10809/disk");
  EXPECT_EQ(make_uri(tcp_at("::1", 7), ""), "nbd://[::1]:7/");
  EXPECT_EQ(make_uri(tcp_at("fe80::1%eth0", 7), ""), "nbd://[fe80::1%25eth0]:7/");
}

TEST(NbdUri, EncodesWhatWouldEndAPart) {
  EXPECT_EQ(make_uri(unix_at("/a b?c&d=e+f#g%h"), "x y?z/\xc3\xa9"),
            "nbd+unix:///x%20y%3Fz/%C3%A9?socket=/a%20b%3Fc%26d%3De%2Bf%23g%25h");
  EXPECT_EQ(make_uri(tcp_at("h", 1), "/disk"), "nbd://h:1//disk");
}

}  // namespace
}  // namespace usbd::nbd

// SPDX-License-Identifier: Apache-2.0
//
// Three requests and a JSON object.

#include "objects/s3/instance_credentials.h"

#include <charconv>
#include <chrono>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "objects/s3/encoding.h"

namespace usbd::objects::s3 {
namespace {

constexpr std::string_view kDefaultEndpoint = "http://169.254.169.254";
constexpr std::string_view kRoles = "/latest/meta-data/iam/security-credentials/";

/// "2025-01-31T12:00:00Z" in seconds since 1970.
std::optional<int64_t> parse_time(std::string_view text) {
  if (text.size() != 20 || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' ||
      text[16] != ':' || text[19] != 'Z') {
    return std::nullopt;
  }
  const auto number = [&](size_t at, size_t length) {
    int value = -1;
    const char* const end = text.data() + at + length;
    const auto [stop, error] = std::from_chars(text.data() + at, end, value);
    return stop == end && error == std::errc() ? value : -1;
  };
  const int month = number(5, 2);
  const int day = number(8, 2);
  const int hour = number(11, 2);
  const int minute = number(14, 2);
  const int second = number(17, 2);
  if (month < 0 || day < 0 || hour < 0 || minute < 0 || second < 0) return std::nullopt;
  const std::chrono::year_month_day date(std::chrono::year(number(0, 4)),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day)));
  if (number(0, 4) < 0 || !date.ok()) return std::nullopt;
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return int64_t{days} * 86400 + hour * 3600 + minute * 60 + second;
}

std::string member(const nlohmann::json& object, const char* name) {
  const auto at = object.find(name);
  return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

bool is_printable(std::string_view text) {
  for (const char c : text) {
    if (c <= ' ' || c > '~') return false;
  }
  return !text.empty();
}

}  // namespace

Result<Credentials> parse_instance_credentials(std::string_view json) {
  const nlohmann::json object = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return Error(Errc::kIo, "the metadata service gave credentials that are no JSON object");
  }
  if (const std::string code = member(object, "Code"); !code.empty() && code != "Success") {
    return Error(Errc::kIo, "the metadata service gave no credentials of the instance's role");
  }
  Credentials found{.key = {member(object, "AccessKeyId"), member(object, "SecretAccessKey")},
                    .token = member(object, "Token"),
                    .expires = parse_time(member(object, "Expiration"))};
  if (!is_printable(found.key.id) || !is_printable(found.key.secret) ||
      !is_printable(found.token) || !found.expires.has_value()) {
    return Error(Errc::kIo, "the metadata service gave credentials that are not complete");
  }
  return found;
}

InstanceSource::InstanceSource(HttpClient& client, std::string endpoint)
    : client_(client), endpoint_(std::move(endpoint)) {
  if (endpoint_.empty()) endpoint_ = kDefaultEndpoint;
  while (endpoint_.ends_with('/')) endpoint_.pop_back();
}

Task<Result<std::string>> InstanceSource::fetch(std::string method, std::string path,
                                                HttpHeaders headers) {
  HttpRequest request{.method = std::move(method),
                      .url = endpoint_ + path,
                      .headers = std::move(headers),
                      .response_max = limits::kS3MetadataBytesMax,
                      .timeout = limits::kS3MetadataTimeout};
  const std::string what = request.method + " " + path;
  const Result<HttpResponse> answer = co_await client_.send(std::move(request));
  if (!answer) {
    co_return Error(answer.error().code(),
                    fmt::format("instance credentials (auth_type iam): no answer from {}: {}",
                                endpoint_, answer.error().context()));
  }
  if (answer->status == 404 && path == kRoles) {
    co_return Error(Errc::kAccess, "auth_type is iam, but this instance has no role");
  }
  if (answer->status / 100 == 5) {
    co_return Error(Errc::kAgain, fmt::format("the metadata service answers {}", answer->status));
  }
  if (answer->status != 200) {
    co_return Error(Errc::kAccess,
                    fmt::format("the metadata service answers {} to {}", answer->status, what));
  }
  co_return std::string(trim(answer->text()));
}

Task<Result<Credentials>> InstanceSource::read() {
  HttpHeaders lifetime{{"X-aws-ec2-metadata-token-ttl-seconds", "21600"}};
  USBD_CO_TRY(const std::string token,
              co_await fetch("PUT", "/latest/api/token", std::move(lifetime)));
  if (!is_printable(token)) {
    co_return Error(Errc::kIo, "the metadata service gave no session token");
  }
  const HttpHeaders session{{"X-aws-ec2-metadata-token", token}};
  USBD_CO_TRY(std::string role, co_await fetch("GET", std::string(kRoles), session));
  role = role.substr(0, role.find('\n'));
  if (!is_printable(role)) {
    co_return Error(Errc::kAccess, "auth_type is iam, but this instance has no role");
  }
  std::string path = std::string(kRoles) + percent_encode(role, KeepSlash::kNo);
  USBD_CO_TRY(const std::string json, co_await fetch("GET", std::move(path), session));
  co_return parse_instance_credentials(json);
}

}  // namespace usbd::objects::s3

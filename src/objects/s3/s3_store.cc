// SPDX-License-Identifier: Apache-2.0
//
// What all calls have in common: signing, sending, expired credentials, names for messages.

#include "objects/s3/s3_store.h"

#include <utility>

#include <fmt/format.h>

#include "objects/s3/encoding.h"
#include "objects/s3/s3_errors.h"
#include "objects/s3/sigv4.h"

namespace usbd::objects {

S3Store::S3Store(Options options, WorkerPool& pool, s3::S3Config config, s3::BucketAddress address,
                 std::unique_ptr<HttpClient> client)
    : options_(std::move(options)),
      pool_(pool),
      home_(Loop::current()),
      config_(std::move(config)),
      address_(std::move(address)),
      client_(std::move(client)) {}

std::string S3Store::name() const {
  return fmt::format("s3://{}/ at {}", options_.container,
                     (config_.tls ? "https://" : "http://") + config_.authority);
}

std::string S3Store::label(std::string_view method, std::string_view object) const {
  return fmt::format("{} s3://{}/{}", method, options_.container, object);
}

std::string S3Store::label(const Call& call) const {
  return label(call.method, call.object);
}

CallClock S3Store::clock_of(CallLimits call_limits) const {
  return CallClock(home_, std::move(call_limits), options_.http.timeout);
}

Task<std::string> S3Store::payload_hash(Bytes body) {
  if (config_.tls && !body.empty()) co_return std::string(s3::kUnsignedPayload);
  auto hash = [body] { return s3::sha256_hex(body); };
  if (body.size() <= limits::kS3HashHereMax) co_return hash();
  co_return co_await pool_.run(hash);
}

HttpRequest S3Store::signed_request(const Call& call, const std::string& payload_hash,
                                    const s3::Credentials& credentials) const {
  const s3::SigningScope scope{.region = config_.region, .time = options_.clock()};
  std::string path = address_.path + call.object;
  // The bucket itself: `/bucket`, or `/`.
  if (call.object.empty() && path.size() > 1) path.pop_back();
  s3::SignedParts parts{.method = call.method,
                        .path = std::move(path),
                        .query = call.query,
                        .headers = call.headers,
                        .payload_hash = payload_hash};
  parts.headers.emplace_back("Host", address_.host);
  parts.headers.emplace_back("x-amz-date", s3::format_time(scope.time));
  parts.headers.emplace_back("x-amz-content-sha256", payload_hash);
  if (!credentials.token.empty()) {
    parts.headers.emplace_back("x-amz-security-token", credentials.token);
  }
  const std::string query = s3::canonical_query(call.query);
  HttpRequest request{.method = call.method,
                      .url = address_.origin + s3::percent_encode(parts.path, s3::KeepSlash::kYes) +
                             (query.empty() ? "" : "?" + query),
                      .body = call.body,
                      .response_max = call.response_max};
  std::string authorization = s3::authorization(parts, credentials.key, scope);
  request.headers = std::move(parts.headers);
  request.headers.emplace_back("Authorization", std::move(authorization));
  return request;
}

Task<Result<HttpResponse>> S3Store::send(Call call, const CallClock& clock) {
  const std::string what = label(call);
  const std::string hash = co_await payload_hash(call.body);
  for (bool again = false;; again = true) {
    const Result<s3::Credentials> credentials = co_await credentials_->get();
    if (!credentials) {
      co_return Error(credentials.error().code(),
                      fmt::format("{}: {}", what, credentials.error().context()));
    }
    if (const std::optional<Errc> over = clock.over()) co_return Error(*over, what);
    HttpRequest request = signed_request(call, hash, *credentials);
    request.timeout = clock.left();
    request.stop = clock.stop();
    Result<HttpResponse> response = co_await client_->send(std::move(request));
    if (!response) {
      const std::string context = response.error().context();
      co_return Error(response.error().code(),
                      context.empty() ? what : fmt::format("{}: {}", what, context));
    }
    if (again || !s3::says_expired(*response, call.method)) co_return response;
    const bool replaced = co_await credentials_->replace(credentials->key, credentials->token);
    if (!replaced) co_return response;
  }
}

Task<Result<void>> S3Store::remove(std::string name, CallLimits limits) {
  const CallClock clock = clock_of(std::move(limits));
  if (options_.read_only) co_return Error(Errc::kReadOnly, label("DELETE", name));
  Call call{.method = "DELETE", .object = std::move(name)};
  const std::string what = label(call);
  USBD_CO_TRY(const HttpResponse response, co_await send(std::move(call), clock));
  const bool gone =
      response.status == 204 || response.status == 200 || s3::says_no_object(response);
  if (!gone) co_return s3::error_of(response, what);
  co_return Result<void>();
}

Task<void> S3Store::close() {
  co_await client_->close();
}

}  // namespace usbd::objects

// SPDX-License-Identifier: Apache-2.0
//
// Opening: keys, credentials, and the bucket, which is listed (one name of it): unlike a HEAD that
// gives a reason when it is refused.

#include <chrono>
#include <cstdlib>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "objects/s3/s3_errors.h"
#include "objects/s3/s3_store.h"

namespace usbd::objects {
namespace {

std::string from_process(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

int64_t system_time() {
  // tidy(banned): signatures carry the time of day, which no loop knows
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

}  // namespace

Task<Result<std::unique_ptr<S3Store>>> S3Store::open(Options options, WorkerPool& pool) {
  USBD_CO_TRY(s3::S3Config config, s3::read_config(options.keys));
  USBD_CO_TRY(s3::BucketAddress address, s3::address_of(config, options.container));
  if (!options.environment) options.environment = from_process;
  if (!options.clock) options.clock = system_time;
  if (!config.ca_file.empty()) options.http.ca_file = config.ca_file;
  USBD_CO_TRY(std::unique_ptr<HttpClient> client,
              HttpClient::create(Loop::current(), options.http));
  std::unique_ptr<S3Store> store(new S3Store(std::move(options), pool, std::move(config),
                                             std::move(address), std::move(client)));
  const Result<void> entered = co_await store->enter_bucket();
  if (!entered) {
    co_await store->close();
    co_return entered.error();
  }
  co_return std::move(store);
}

Task<Result<void>> S3Store::enter_bucket() {
  USBD_CO_TRY(std::unique_ptr<s3::CredentialSource> source,
              s3::find_credentials(config_, options_.environment, *client_, pool_));
  credentials_ = std::make_unique<s3::CredentialKeeper>(std::move(source), options_.clock);
  const CallClock clock = clock_of({});
  Call call{.method = "GET",
            .query = {{"list-type", "2"}, {"max-keys", "1"}},
            .response_max = limits::kS3ListBytesMax};
  const std::string what = label(call);
  USBD_CO_TRY(const HttpResponse response, co_await send(std::move(call), clock));
  if (response.status == 200) co_return Result<void>();
  const bool missing =
      response.status == 404 && s3::parse_error(response.text()).code != "NoSuchKey";
  if (missing && options_.create && !options_.read_only) co_return co_await make_bucket(clock);
  co_return s3::error_of(response, what);
}

Task<Result<void>> S3Store::make_bucket(const CallClock& clock) {
  // Amazon's first region must not be named; servers of their own often know only that name.
  std::string place;
  if (config_.region != "us-east-1") {
    place = fmt::format(
        "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
        "<LocationConstraint>{}</LocationConstraint></CreateBucketConfiguration>",
        config_.region);
  }
  Call call{.method = "PUT", .body = std::as_bytes(std::span(place))};
  const std::string what = label(call);
  USBD_CO_TRY(const HttpResponse response, co_await send(std::move(call), clock));
  const std::string code = s3::parse_error(response.text()).code;
  if (response.status == 200) {
    log::info("made the bucket {} in the store at {}", options_.container, address_.origin);
    co_return Result<void>();
  }
  // Somebody with the same credentials was faster.
  if (response.status == 409 && code == "BucketAlreadyOwnedByYou") co_return Result<void>();
  if (response.status == 409 && code == "BucketAlreadyExists") {
    co_return Error(Errc::kAccess, what +
                                       ": the bucket belongs to somebody else: choose another "
                                       "name (409 BucketAlreadyExists)");
  }
  co_return s3::error_of(response, what);
}

}  // namespace usbd::objects

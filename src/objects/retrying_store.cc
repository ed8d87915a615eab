// SPDX-License-Identifier: Apache-2.0
//
// The attempts of a call.

#include "objects/retrying_store.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/assert.h"

namespace usbd::objects {
namespace {

/// The last error of several attempts, with their number.
Error after_attempts(const Error& last, unsigned attempts) {
  if (attempts == 1) return last;
  return Error(last.code(), fmt::format("{} attempts, the last: {}", attempts, last.context()));
}

}  // namespace

RetryingStore::RetryingStore(std::unique_ptr<ObjectStore> inner, Options options, Rng& rng)
    : inner_(std::move(inner)), options_(options), rng_(rng) {
  USBD_ASSERT(options_.attempts_max > 0);
  USBD_ASSERT(options_.backoff_min > Nanos(0) && options_.backoff_max >= options_.backoff_min);
}

CallLimits RetryingStore::one_attempt(const CallClock& clock) const {
  // Zero would mean no limit; a call whose time is over ends by itself at its first look.
  const Nanos left = std::max(clock.left(), Nanos(1));
  const bool shorter = options_.attempt_time > Nanos(0) && options_.attempt_time < left;
  return {.timeout = shorter ? options_.attempt_time : left, .stop = clock.stop()};
}

Nanos RetryingStore::pause_after(unsigned attempts) {
  Nanos bound = options_.backoff_min;
  for (unsigned i = 1; i < attempts && bound < options_.backoff_max; ++i) bound += bound;
  bound = std::min(bound, options_.backoff_max);
  return Nanos(static_cast<int64_t>(rng_.between(0, static_cast<uint64_t>(bound.count()))));
}

template <typename T, typename Attempt>
Task<Result<T>> RetryingStore::repeat(Attempt& attempt, CallLimits limits, unsigned attempts_max) {
  Loop& loop = Loop::current();
  const CallClock clock(loop, std::move(limits), options_.time_max);
  for (unsigned attempts = 1;; ++attempts) {
    CallLimits own = one_attempt(clock);
    Result<T> result = co_await attempt(std::move(own));
    if (result || !is_transient(result.error())) co_return std::move(result);
    const Error& error = result.error();
    if (attempts >= attempts_max) co_return after_attempts(error, attempts);
    const Nanos pause = pause_after(attempts);
    if (pause >= clock.left()) co_return after_attempts(error, attempts);
    co_await loop.sleep_for(pause, clock.stop());
    if (clock.stop().stop_requested()) {
      co_return Error(Errc::kCanceled, after_attempts(error, attempts).message());
    }
    ++retries_;
  }
}

Task<Result<std::string>> RetryingStore::put(std::string name, Bytes data, Condition condition,
                                             CallLimits limits) {
  const bool once = condition.kind != Condition::Kind::kAlways;
  auto attempt = [&](CallLimits own) { return inner_->put(name, data, condition, std::move(own)); };
  co_return co_await repeat<std::string>(attempt, std::move(limits),
                                         once ? 1 : options_.attempts_max);
}

Task<Result<Fetched>> RetryingStore::get(std::string name, Part part, CallLimits limits) {
  auto attempt = [&](CallLimits own) { return inner_->get(name, part, std::move(own)); };
  co_return co_await repeat<Fetched>(attempt, std::move(limits), options_.attempts_max);
}

Task<Result<ObjectInfo>> RetryingStore::head(std::string name, CallLimits limits) {
  auto attempt = [&](CallLimits own) { return inner_->head(name, std::move(own)); };
  co_return co_await repeat<ObjectInfo>(attempt, std::move(limits), options_.attempts_max);
}

Task<Result<ListPage>> RetryingStore::list(std::string prefix, std::string after, size_t most,
                                           CallLimits limits) {
  auto attempt = [&](CallLimits own) { return inner_->list(prefix, after, most, std::move(own)); };
  co_return co_await repeat<ListPage>(attempt, std::move(limits), options_.attempts_max);
}

Task<Result<void>> RetryingStore::remove(std::string name, CallLimits limits) {
  auto attempt = [&](CallLimits own) { return inner_->remove(name, std::move(own)); };
  co_return co_await repeat<void>(attempt, std::move(limits), options_.attempts_max);
}

}  // namespace usbd::objects

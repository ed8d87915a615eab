// SPDX-License-Identifier: Apache-2.0
//
// The attempts of a call.

#include "objects/retrying_store.h"

#include <optional>
#include <utility>

namespace usbd::objects {

RetryingStore::RetryingStore(std::unique_ptr<ObjectStore> inner, Options options, Rng& rng)
    : inner_(std::move(inner)), options_(options), rng_(rng) {}

template <typename T, typename Attempt>
Task<Result<T>> RetryingStore::repeat(Attempt& attempt, CallLimits limits) {
  Retrying retrying(options_, rng_, std::move(limits));
  for (;;) {
    Result<T> result = co_await attempt(retrying.one_attempt());
    if (result) co_return std::move(result);
    const std::optional<Error> last = co_await retrying.failed(result.error());
    if (last) co_return *last;
    ++retries_;
  }
}

Task<Result<std::string>> RetryingStore::put(std::string name, Bytes data, Condition condition,
                                             CallLimits limits) {
  auto attempt = [&](CallLimits own) { return inner_->put(name, data, condition, std::move(own)); };
  if (condition.kind == Condition::Kind::kAlways) {
    co_return co_await repeat<std::string>(attempt, std::move(limits));
  }
  co_return co_await attempt(Retrying(options_, rng_, std::move(limits)).one_attempt());
}

Task<Result<Fetched>> RetryingStore::get(std::string name, Part part, CallLimits limits) {
  auto attempt = [&](CallLimits own) { return inner_->get(name, part, std::move(own)); };
  co_return co_await repeat<Fetched>(attempt, std::move(limits));
}

Task<Result<ObjectInfo>> RetryingStore::head(std::string name, CallLimits limits) {
  auto attempt = [&](CallLimits own) { return inner_->head(name, std::move(own)); };
  co_return co_await repeat<ObjectInfo>(attempt, std::move(limits));
}

Task<Result<ListPage>> RetryingStore::list(std::string prefix, std::string after, size_t most,
                                           CallLimits limits) {
  auto attempt = [&](CallLimits own) { return inner_->list(prefix, after, most, std::move(own)); };
  co_return co_await repeat<ListPage>(attempt, std::move(limits));
}

Task<Result<void>> RetryingStore::remove(std::string name, CallLimits limits) {
  auto attempt = [&](CallLimits own) { return inner_->remove(name, std::move(own)); };
  co_return co_await repeat<void>(attempt, std::move(limits));
}

}  // namespace usbd::objects

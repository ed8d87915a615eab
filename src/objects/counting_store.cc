// SPDX-License-Identifier: Apache-2.0
//
// Counting around each call.

#include "objects/counting_store.h"

#include <algorithm>

#include <fmt/format.h>

namespace usbd::objects {

/// One call from its start to its answer.
class CountingStore::Running {
 public:
  Running(StoreStats& stats, StoreCall call)
      : stats_(stats), of_call_(stats.calls[static_cast<size_t>(call)]) {
    ++stats_.in_flight;
    stats_.in_flight_most = std::max(stats_.in_flight_most, stats_.in_flight);
  }

  /// The call has been answered. `sent`, `received`: contents, if it has succeeded.
  template <typename T>
  void answered(const Result<T>& result, uint64_t sent, uint64_t received) {
    const Nanos taken = Loop::current().now() - start_;
    const auto ns = static_cast<uint64_t>(std::max(taken, Nanos(0)).count());
    --stats_.in_flight;
    ++of_call_.calls;
    of_call_.total_ns += ns;
    ++of_call_.latency.counts[LatencyHistogram::bucket_of(ns)];
    if (result) {
      of_call_.bytes_sent += sent;
      of_call_.bytes_received += received;
    } else {
      ++of_call_.errors;
      ++stats_.errors[result.error().number()];
    }
  }

 private:
  StoreStats& stats_;
  StoreCallStats& of_call_;
  const Nanos start_ = Loop::current().now();
};

Task<Result<std::string>> CountingStore::put(std::string name, Bytes data, Condition condition,
                                             CallLimits limits) {
  Running running(stats_, StoreCall::kPut);
  Result<std::string> result =
      co_await inner_->put(std::move(name), data, std::move(condition), std::move(limits));
  running.answered(result, data.size(), 0);
  co_return std::move(result);
}

Task<Result<Fetched>> CountingStore::get(std::string name, Part part, CallLimits limits) {
  Running running(stats_, StoreCall::kGet);
  Result<Fetched> result = co_await inner_->get(std::move(name), part, std::move(limits));
  running.answered(result, 0, result ? result->data.size() : 0);
  co_return std::move(result);
}

Task<Result<ObjectInfo>> CountingStore::head(std::string name, CallLimits limits) {
  Running running(stats_, StoreCall::kHead);
  Result<ObjectInfo> result = co_await inner_->head(std::move(name), std::move(limits));
  running.answered(result, 0, 0);
  co_return std::move(result);
}

Task<Result<ListPage>> CountingStore::list(std::string prefix, std::string after, size_t most,
                                           CallLimits limits) {
  Running running(stats_, StoreCall::kList);
  Result<ListPage> result =
      co_await inner_->list(std::move(prefix), std::move(after), most, std::move(limits));
  running.answered(result, 0, 0);
  co_return std::move(result);
}

Task<Result<void>> CountingStore::remove(std::string name, CallLimits limits) {
  Running running(stats_, StoreCall::kRemove);
  Result<void> result = co_await inner_->remove(std::move(name), std::move(limits));
  running.answered(result, 0, 0);
  co_return std::move(result);
}

std::string StoreStats::summary() const {
  std::string line;
  uint64_t failed = 0;
  for (size_t call = 0; call < kStoreCalls; ++call) {
    const StoreCallStats& of_call = calls[call];
    failed += of_call.errors;
    line += fmt::format("{} {}", store_call_name(static_cast<StoreCall>(call)), of_call.calls);
    if (of_call.bytes_sent > 0) line += fmt::format(" ({} bytes sent)", of_call.bytes_sent);
    if (of_call.bytes_received > 0) {
      line += fmt::format(" ({} bytes received)", of_call.bytes_received);
    }
    line += ", ";
  }
  return line + fmt::format("errors {}, in flight {}", failed, in_flight);
}

}  // namespace usbd::objects

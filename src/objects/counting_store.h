// SPDX-License-Identifier: Apache-2.0
//
// CountingStore: in front of another store it counts what is asked of it: calls by kind, bytes both
// ways, errors by code, what is in flight, and how long calls take. Under a RetryingStore it counts
// requests, above one what the volume waits for.

#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>

#include "core/stats.h"
#include "objects/object_store.h"
#include "objects/store_call.h"

namespace usbd::objects {

/// What is known of the calls of one kind.
struct StoreCallStats {
  uint64_t calls = 0;  ///< answered, with or without an error
  uint64_t errors = 0;
  /// Contents, of calls that succeeded.
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  uint64_t total_ns = 0;
  LatencyHistogram latency;
};

struct StoreStats {
  std::array<StoreCallStats, kStoreCalls> calls;
  /// By errno value. kNotFound and kExists are answers, but stand here too.
  std::map<int, uint64_t> errors;
  uint64_t in_flight = 0;
  uint64_t in_flight_most = 0;

  [[nodiscard]] const StoreCallStats& of(StoreCall call) const {
    return calls[static_cast<size_t>(call)];
  }
  /// One line for people: "put 12 (48 bytes sent), get 3 (9 bytes received), ..., errors 0".
  [[nodiscard]] std::string summary() const;
};

class CountingStore final : public ObjectStore {
 public:
  explicit CountingStore(std::unique_ptr<ObjectStore> inner) : inner_(std::move(inner)) {}

  /// Threads: the loop's. Lifetime: the store's.
  [[nodiscard]] const StoreStats& stats() const { return stats_; }

  [[nodiscard]] std::string name() const override { return inner_->name(); }
  [[nodiscard]] Abilities abilities() const override { return inner_->abilities(); }
  Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                CallLimits limits) override;
  Task<Result<Fetched>> get(std::string name, Part part, CallLimits limits) override;
  Task<Result<ObjectInfo>> head(std::string name, CallLimits limits) override;
  Task<Result<ListPage>> list(std::string prefix, std::string after, size_t most,
                              CallLimits limits) override;
  Task<Result<void>> remove(std::string name, CallLimits limits) override;
  Task<void> close() override { return inner_->close(); }

 private:
  class Running;

  std::unique_ptr<ObjectStore> inner_;
  StoreStats stats_;
};

}  // namespace usbd::objects

// SPDX-License-Identifier: Apache-2.0
//
// RetryingStore: in front of another store it makes a call again as Retrying says.
//
// A conditional put is attempted once. Every error that may pass leaves open whether the put was
// made; if it was, the next attempt would be refused because of our own success and the caller
// could not tell that from a competitor's. Its error is handed up as it is: who chose the condition
// can read the object and see. Everything else may be made twice without harm, if the caller puts
// the same bytes under the same name only; a put or remove that failed may still land after its
// repetition.

#pragma once

#include <memory>
#include <string>

#include "base/random.h"
#include "objects/object_store.h"
#include "objects/retrying.h"

namespace usbd::objects {

class RetryingStore final : public ObjectStore {
 public:
  using Options = RetryOptions;

  /// Lifetime: `rng` outlives the store.
  RetryingStore(std::unique_ptr<ObjectStore> inner, Options options, Rng& rng);

  /// Attempts beyond the first of each call, so far.
  [[nodiscard]] uint64_t retries() const { return retries_; }

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
  /// Calls `attempt(CallLimits)`, which returns a task, until it succeeds or must not be called
  /// again. Lifetime: `attempt` until the task has finished.
  template <typename T, typename Attempt>
  Task<Result<T>> repeat(Attempt& attempt, CallLimits limits);

  const std::unique_ptr<ObjectStore> inner_;
  const Options options_;
  Rng& rng_;
  uint64_t retries_ = 0;
};

}  // namespace usbd::objects

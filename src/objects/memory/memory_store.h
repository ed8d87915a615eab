// SPDX-License-Identifier: Apache-2.0
//
// MemoryStore: a complete object store in memory, for unit tests and simulations. It is
// deterministic: tags come from a counter, there are no threads, and each call yields to its loop
// exactly once, before it takes effect.
//
// The objects live in a MemoryContainer, which outlives the stores that look at it, as a bucket
// outlives the processes that use it.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "objects/call_clock.h"
#include "objects/object_store.h"

namespace usbd::objects {

/// Threads: one loop's.
struct MemoryContainer {
  struct Object {
    std::vector<std::byte> data;
    std::string tag;
  };
  std::map<std::string, Object, std::less<>> objects = {};
  /// What all of them hold, and may hold. Units: bytes.
  uint64_t bytes = 0;
  uint64_t bytes_max = limits::kMemoryStoreBytes;
  /// Tags given so far.
  uint64_t tags = 0;
};

class MemoryStore final : public ObjectStore {
 public:
  /// A store of a container of its own, or of one that others look at too.
  explicit MemoryStore(
      std::shared_ptr<MemoryContainer> container = std::make_shared<MemoryContainer>())
      : container_(std::move(container)) {}

  [[nodiscard]] std::string name() const override { return "memory"; }
  [[nodiscard]] Abilities abilities() const override {
    return {.put_if_absent = true, .put_if_matches = true};
  }

  /// Errors: kExists, kNoSpace, kTimedOut, kCanceled.
  Task<Result<std::string>> put(std::string name, Bytes data, Condition condition,
                                CallLimits limits) override;
  Task<Result<Fetched>> get(std::string name, Part part, CallLimits limits) override;
  Task<Result<ObjectInfo>> head(std::string name, CallLimits limits) override;
  Task<Result<ListPage>> list(std::string prefix, std::string after, size_t most,
                              CallLimits limits) override;
  Task<Result<void>> remove(std::string name, CallLimits limits) override;
  Task<void> close() override;

  [[nodiscard]] const MemoryContainer& container() const { return *container_; }

 private:
  using Object = MemoryContainer::Object;

  /// Yields once; then says whether the call is still wanted.
  static Task<Result<void>> begin(const std::string& name, CallLimits limits);
  Result<std::string> store(std::string name, Bytes data, const Condition& condition);

  std::shared_ptr<MemoryContainer> container_;
};

}  // namespace usbd::objects

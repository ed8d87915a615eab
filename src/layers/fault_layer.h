// SPDX-License-Identifier: Apache-2.0
//
// FaultLayer: makes chosen requests fail without the device below seeing them. Which ones depends
// on the rules and on a seed alone, so that a failure can be had again.
//   fault:op=write,error=ENOSPC,after=100,count=5   writes 101 to 105 find the disk full
//   fault:op=read,rate=0.01,range=1M+64K,seed=7     a bad spot that fails one read in a hundred

#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/random.h"
#include "layers/layer_device.h"
#include "layers/spec.h"

namespace usbd {

class FaultLayer final : public GateLayer {
 public:
  struct Rules {
    /// Kinds that may fail, one bool for each Op.
    std::vector<bool> ops = std::vector<bool>(kOps, true);
    int error = EIO;
    /// The share of the chosen requests that fail.
    double rate = 1;
    /// Chosen requests that go well first.
    uint64_t after = 0;
    /// How many fail at most.
    uint64_t count = UINT64_MAX;
    /// Only requests that touch this; a flush touches none.
    std::optional<ByteRange> range;
    uint64_t seed = 1;
  };

  /// Errors: kInvalid, with what is allowed.
  static Result<Rules> parse(const LayerSpec& spec);

  FaultLayer(std::unique_ptr<Device> below, Rules rules)
      : GateLayer("fault", std::move(below)), rules_(std::move(rules)), rng_(rules_.seed) {}

  /// How many requests have failed so far. Threads: any.
  [[nodiscard]] uint64_t injected() const { return injected_.load(); }

 private:
  Task<Result<void>> admit(Op op, ByteRange range) override;
  bool strikes(Op op, ByteRange range);

  const Rules rules_;
  Mutex mutex_;
  SeededRng rng_ USBD_GUARDED_BY(mutex_);
  uint64_t chosen_ USBD_GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> injected_{0};
};

}  // namespace usbd

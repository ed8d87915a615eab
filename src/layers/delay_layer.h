// SPDX-License-Identifier: Apache-2.0
//
// DelayLayer: makes requests of chosen kinds wait: each for a fixed time, or, as a device that
// hangs, until a window of time is over. The window is counted from the first request of any kind.
//   delay:read=10ms,write=1s         every read waits 10 ms, every write 1 s
//   delay:all=stall,after=5s,for=6s  what arrives from 5 s to 11 s after the first request waits
//                                    until second 11

#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "layers/layer_device.h"
#include "layers/spec.h"
#include "usbd/loop.h"

namespace usbd {

class DelayLayer final : public GateLayer {
 public:
  struct Rules {
    /// What requests of each kind wait.
    std::array<Nanos, kOps> delays{};
    /// Kinds that wait for the window's end instead.
    std::array<bool, kOps> stalls{};
    /// When the rules hold: from `after` the first request on, for `lasting`.
    Nanos after{0};
    Nanos lasting = Nanos::max();
  };

  /// Errors: kInvalid, with what is allowed.
  static Result<Rules> parse(const LayerSpec& spec);

  DelayLayer(std::unique_ptr<Device> below, Rules rules)
      : GateLayer("delay", std::move(below)), rules_(rules) {}

 private:
  Task<Result<void>> admit(Op op, ByteRange range) override;
  /// How long a request of kind `op` that arrives at `now` waits.
  Nanos wait_of(Op op, Nanos now);

  static constexpr int64_t kNotStarted = INT64_MIN;
  const Rules rules_;
  std::atomic<int64_t> start_ns_{kNotStarted};
};

}  // namespace usbd

// SPDX-License-Identifier: Apache-2.0
//
// Retrying: the attempts of one call to a store. It is made again while the error may pass
// (is_transient), after a pause drawn from 0 to a bound that doubles from attempt to attempt.

#pragma once

#include <optional>

#include "base/limits.h"
#include "base/random.h"
#include "objects/call_clock.h"
#include "objects/object_store.h"

namespace usbd::objects {

struct RetryOptions {
  /// Range: > 0.
  unsigned attempts_max = limits::kStoreAttemptsMax;
  /// For all attempts of a call together, where CallLimits says nothing.
  Nanos time_max = limits::kStoreCallTime;
  /// For each attempt; zero: until the time of the call is over.
  Nanos attempt_time{0};
  /// Range: > 0, at most backoff_max.
  Nanos backoff_min = limits::kStoreBackoffMin;
  Nanos backoff_max = limits::kStoreBackoffMax;
};

class Retrying {
 public:
  /// Threads: that of a loop, the current one. Lifetime: `rng` outlives this.
  Retrying(const RetryOptions& options, Rng& rng, CallLimits limits);

  /// For the next attempt.
  [[nodiscard]] CallLimits one_attempt() const;

  /// An attempt has failed. Returns nothing, after a pause, if another is to be made; else what to
  /// tell the caller: `error`, with the number of attempts.
  Task<std::optional<Error>> failed(Error error);

 private:
  [[nodiscard]] Nanos draw_pause();

  const RetryOptions options_;
  Rng& rng_;
  const CallClock clock_;
  unsigned attempts_ = 0;
};

}  // namespace usbd::objects

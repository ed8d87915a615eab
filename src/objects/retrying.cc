// SPDX-License-Identifier: Apache-2.0
//
// When a call is made again.

#include "objects/retrying.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "usbd/loop.h"

namespace usbd::objects {
namespace {

/// The last error of several attempts, with their number.
Error after_attempts(const Error& last, unsigned attempts) {
  if (attempts == 1) return last;
  return Error(last.code(), fmt::format("{} attempts, the last: {}", attempts, last.context()));
}

}  // namespace

Retrying::Retrying(const RetryOptions& options, Rng& rng, CallLimits limits)
    : options_(options), rng_(rng), clock_(Loop::current(), std::move(limits), options_.time_max) {
  USBD_ASSERT(options_.attempts_max > 0);
  USBD_ASSERT(options_.backoff_min > Nanos(0) && options_.backoff_max >= options_.backoff_min);
}

CallLimits Retrying::one_attempt() const {
  // Zero would mean no limit; a call whose time is over ends by itself at its first look.
  const Nanos left = std::max(clock_.left(), Nanos(1));
  const bool shorter = options_.attempt_time > Nanos(0) && options_.attempt_time < left;
  return {.timeout = shorter ? options_.attempt_time : left, .stop = clock_.stop()};
}

Task<std::optional<Error>> Retrying::failed(Error error) {
  ++attempts_;
  if (!is_transient(error)) co_return error;
  if (attempts_ >= options_.attempts_max) co_return after_attempts(error, attempts_);
  const Nanos pause = draw_pause();
  if (pause >= clock_.left()) co_return after_attempts(error, attempts_);
  co_await Loop::current().sleep_for(pause, clock_.stop());
  if (clock_.stop().stop_requested()) {
    co_return Error(Errc::kCanceled, after_attempts(error, attempts_).message());
  }
  co_return std::nullopt;
}

Nanos Retrying::draw_pause() {
  Nanos bound = options_.backoff_min;
  for (unsigned i = 1; i < attempts_ && bound < options_.backoff_max; ++i) bound += bound;
  bound = std::min(bound, options_.backoff_max);
  return Nanos(static_cast<int64_t>(rng_.between(0, static_cast<uint64_t>(bound.count()))));
}

}  // namespace usbd::objects

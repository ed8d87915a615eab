// SPDX-License-Identifier: Apache-2.0
//
// The process-wide log sink and the limiter of repeated lines.

#include "base/log.h"

namespace usbd::log {
namespace {

Sink& sink() {
  static Sink current;
  return current;
}

}  // namespace

void set_sink(Sink replacement) {
  sink() = std::move(replacement);
}

void write(Level level, std::string_view line) {
  if (const Sink& current = sink()) current(level, line);
}

bool Limiter::allow(std::chrono::nanoseconds now, uint64_t& held_back) {
  int64_t start = window_start_.load(std::memory_order_relaxed);
  if (start == INT64_MIN || now.count() - start >= period_.count()) {
    if (window_start_.compare_exchange_strong(start, now.count(), std::memory_order_relaxed)) {
      in_window_.store(0, std::memory_order_relaxed);
    }
  }
  if (in_window_.fetch_add(1, std::memory_order_relaxed) >= burst_) {
    held_back_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  held_back = held_back_.exchange(0, std::memory_order_relaxed);
  return true;
}

}  // namespace usbd::log

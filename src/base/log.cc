// SPDX-License-Identifier: Apache-2.0
//
// The process-wide log sink and the limiter of repeated lines.

#include "base/log.h"

#include <cstdio>
#include <string>

namespace usbd::log {
namespace {

Sink& sink() {
  static Sink current = [](Level level, std::string_view line) {
    static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
    const std::string text = fmt::format("usbd: {}: {}\n", kNames[static_cast<int>(level)], line);
    std::fwrite(text.data(), 1, text.size(), stderr);
  };
  return current;
}

}  // namespace

void set_sink(Sink replacement) {
  sink() = std::move(replacement);
}

void write(Level level, std::string_view line) {
  sink()(level, line);
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

// SPDX-License-Identifier: Apache-2.0
//
// Logging for everything below the daemon: one process-wide sink, which the daemon replaces with
// the form the user asked for. In somebody else's program nothing is written until it sets a sink:
// its standard streams are not ours. Errors of I/O go through a Limiter, so that a failing device
// does not fill the disk that its log is on.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

#include <fmt/core.h>

namespace usbd::log {

enum class Level : uint8_t { kDebug, kInfo, kWarning, kError };

using Sink = std::function<void(Level, std::string_view)>;

/// Replaces the sink. None, which is the default: lines are dropped.
/// Threads: before any other thread logs.
void set_sink(Sink sink);
/// Hands one line, without its newline, to the sink. Threads: any.
void write(Level level, std::string_view line);

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

/// Lets through at most `burst` lines per `period`, and counts what it held back.
/// Threads: any.
class Limiter {
 public:
  explicit Limiter(uint32_t burst = 10, std::chrono::nanoseconds period = std::chrono::seconds(10))
      : burst_(burst), period_(period) {}

  /// Whether a line may be written at time `now`; sets `held_back` to the lines that were refused
  /// since the last one let through.
  bool allow(std::chrono::nanoseconds now, uint64_t& held_back);

 private:
  const uint32_t burst_;
  const std::chrono::nanoseconds period_;
  std::atomic<int64_t> window_start_{INT64_MIN};
  std::atomic<uint32_t> in_window_{0};
  std::atomic<uint64_t> held_back_{0};
};

}  // namespace usbd::log

// SPDX-License-Identifier: Apache-2.0
//
// Where log lines go: stderr, in the form that -log-format asks for.
//   text:    2026-01-31T12:00:00.123+00:00 info: message
//   journal: <6>message                              (the level as journald and syslog number it)
//   json:    {"time":"...","level":"info","message":"message"}
// A line stays one line: control characters of its message (clients choose some of it) are escaped.

#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/log.h"

namespace usbd::daemon {

enum class LogFormat : uint8_t { kText, kJournal, kJson };

/// The form of that name. Range: a value of -log-format.
LogFormat log_format_of(std::string_view name);

/// Makes the process-wide log write lines of that form. Lines of Level::kDebug are dropped.
/// Threads: before any other thread logs.
void set_up_logging(LogFormat format);

/// One line, with its newline.
std::string log_line(LogFormat format, log::Level level, std::string_view message,
                     std::chrono::system_clock::time_point time);

}  // namespace usbd::daemon

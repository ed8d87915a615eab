// SPDX-License-Identifier: Apache-2.0
//
// spdlog does the writing (one locked write a line); the forms are ours, in a formatter of its own.

#include "daemon/logging.h"

#include <array>
#include <memory>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

namespace usbd::daemon {
namespace {

spdlog::level::level_enum to_spdlog(log::Level level) {
  switch (level) {
    case log::Level::kDebug:
      return spdlog::level::debug;
    case log::Level::kInfo:
      return spdlog::level::info;
    case log::Level::kWarning:
      return spdlog::level::warn;
    case log::Level::kError:
      break;
  }
  return spdlog::level::err;
}

log::Level from_spdlog(spdlog::level::level_enum level) {
  if (level <= spdlog::level::debug) return log::Level::kDebug;
  if (level == spdlog::level::info) return log::Level::kInfo;
  return level == spdlog::level::warn ? log::Level::kWarning : log::Level::kError;
}

std::string_view name_of(log::Level level) {
  constexpr std::array<std::string_view, 4> kNames = {"debug", "info", "warning", "error"};
  return kNames.at(static_cast<size_t>(level));
}

/// Ref: syslog(3), LOG_ERR 3, LOG_WARNING 4, LOG_INFO 6, LOG_DEBUG 7.
int syslog_number(log::Level level) {
  switch (level) {
    case log::Level::kDebug:
      return 7;
    case log::Level::kInfo:
      return 6;
    case log::Level::kWarning:
      return 4;
    case log::Level::kError:
      break;
  }
  return 3;
}

std::string escaped(std::string_view message) {
  std::string text;
  text.reserve(message.size());
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      text += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      text += fmt::format("\\x{:02x}", byte);
    } else {
      text += c;
    }
  }
  return text;
}

std::string timestamp(std::chrono::system_clock::time_point time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time - whole).count();
  const std::tm local = fmt::localtime(std::chrono::system_clock::to_time_t(whole));
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}{:%z}", local, ms, local);
}

class Formatter final : public spdlog::formatter {
 public:
  explicit Formatter(LogFormat format) : format_(format) {}

  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const std::string line =
        log_line(format_, from_spdlog(message.level),
                 std::string_view(message.payload.data(), message.payload.size()), message.time);
    out.append(line.data(), line.data() + line.size());
  }
  [[nodiscard]] std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<Formatter>(format_);
  }

 private:
  const LogFormat format_;
};

}  // namespace

LogFormat log_format_of(std::string_view name) {
  if (name == "journal") return LogFormat::kJournal;
  return name == "json" ? LogFormat::kJson : LogFormat::kText;
}

std::string log_line(LogFormat format, log::Level level, std::string_view message,
                     std::chrono::system_clock::time_point time) {
  switch (format) {
    case LogFormat::kJournal:
      return fmt::format("<{}>{}\n", syslog_number(level), escaped(message));
    case LogFormat::kJson: {
      const nlohmann::ordered_json line = {
          {"time", timestamp(time)}, {"level", name_of(level)}, {"message", message}};
      return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    }
    case LogFormat::kText:
      break;
  }
  return fmt::format("{} {}: {}\n", timestamp(time), name_of(level), escaped(message));
}

void set_up_logging(LogFormat format) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  sink->set_formatter(std::make_unique<Formatter>(format));
  auto logger = std::make_shared<spdlog::logger>("usbd", std::move(sink));
  logger->set_level(spdlog::level::info);
  logger->flush_on(spdlog::level::info);
  log::set_sink([logger = std::move(logger)](log::Level level, std::string_view line) {
    logger->log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
  });
}

}  // namespace usbd::daemon

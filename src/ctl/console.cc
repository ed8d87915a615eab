// SPDX-License-Identifier: Apache-2.0
//
// On a terminal the line of progress is written over itself.

#include "ctl/console.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/limits.h"

namespace usbd::ctl {
namespace {

using Json = nlohmann::ordered_json;

std::string words(std::string_view key) {
  std::string text(key);
  for (char& c : text) {
    if (c == '_') c = ' ';
  }
  return text;
}

/// What was found in a store or on a disk may hold anything.
std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool control = byte < 0x20 || byte == 0x7f;
    out += control ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
  }
  return out;
}

std::string value_text(std::string_view key, const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) return printable(value.get_ref<const std::string&>());
  if (value.is_number_integer() && key.ends_with("bytes")) {
    const auto bytes = value.get<uint64_t>();
    return bytes < 1024 ? fmt::format("{} B", bytes)
                        : fmt::format("{} ({})", rough_size(bytes), bytes);
  }
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void add_lines(const Json& object, const std::string& indent, std::string& text);

void add_list(const Json& list, const std::string& indent, std::string& text) {
  for (const Json& item : list) {
    if (!item.is_object()) {
      text += fmt::format("{}- {}\n", indent, value_text("", item));
      continue;
    }
    std::string lines;
    add_lines(item, indent + "  ", lines);
    lines[indent.size()] = '-';
    text += lines;
  }
}

void add_lines(const Json& object, const std::string& indent, std::string& text) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_object()) {
      text += fmt::format("{}{}:\n", indent, words(key));
      add_lines(value, indent + "  ", text);
    } else if (value.is_array() && !value.empty()) {
      text += fmt::format("{}{}:\n", indent, words(key));
      add_list(value, indent + "  ", text);
    } else {
      const std::string shown = value.is_array() ? "none" : value_text(key, value);
      text += fmt::format("{}{}: {}\n", indent, words(key), shown);
    }
  }
}

}  // namespace

std::string rough_size(uint64_t bytes) {
  constexpr std::array<const char*, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string to_lines(const Json& document) {
  std::string text;
  add_lines(document, "", text);
  return text;
}

Console::Console(Options options) : options_(options), terminal_(::isatty(STDERR_FILENO) == 1) {}

void Console::print(std::string_view text) {
  const MutexLock lock(mutex_);
  end_progress();
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) failed_ = true;
}

void Console::print_document(const Json& document) {
  print(options_.json ? document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"
                      : to_lines(document));
}

void Console::say(std::string_view line) {
  const MutexLock lock(mutex_);
  end_progress();
  const std::string text = "usbdctl: " + printable(line) + "\n";
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void Console::progress(const std::function<std::string()>& line) {
  if (!terminal_ && !options_.progress) return;
  const MutexLock lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (now - last_progress_ < limits::kCheckProgressEvery) return;
  last_progress_ = now;
  const std::string text =
      terminal_ ? fmt::format("\r\x1b[K{}", line()) : fmt::format("usbdctl: {}\n", line());
  std::fwrite(text.data(), 1, text.size(), stderr);
  progress_shown_ = terminal_;
}

void Console::end_progress() {
  if (std::exchange(progress_shown_, false)) std::fputs("\r\x1b[K", stderr);
}

Result<void> Console::finish() {
  const MutexLock lock(mutex_);
  end_progress();
  errno = 0;
  if (std::fflush(stdout) != 0) failed_ = true;
  if (!failed_) return {};
  return Error::from_errno(errno > 0 ? errno : EIO, "not everything could be written to stdout");
}

}  // namespace usbd::ctl

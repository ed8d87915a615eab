// SPDX-License-Identifier: Apache-2.0
//
// Console: where a command of usbdctl says what it has found: on stdout for people or as JSON, on
// stderr what concerns only who waits. A document is built once, as JSON; what people read is the
// same, with other words around it, so that neither can lack what the other has.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/mutex.h"
#include "usbd/result.h"

namespace usbd::ctl {

/// `document` for people: a line for each value, what belongs together indented. A value whose name
/// ends in "bytes" is shown in a unit as well; null is a dash.
std::string to_lines(const nlohmann::ordered_json& document);

/// "12.3 MiB".
std::string rough_size(uint64_t bytes);

/// Threads: any.
class Console {
 public:
  struct Options {
    bool json = false;
    /// Say how far a long command is, even if stderr is no terminal.
    bool progress = false;
  };
  explicit Console(Options options);

  [[nodiscard]] bool json() const { return options_.json; }

  /// Writes to stdout.
  void print(std::string_view text);
  /// Writes a whole document, as asked for.
  void print_document(const nlohmann::ordered_json& document);
  /// A line on stderr.
  void say(std::string_view line);
  /// Says how far the command is, if somebody is there to read it and the last time is
  /// limits::kCheckProgressEvery ago. `line` is called only then.
  void progress(const std::function<std::string()>& line);

  /// Errors: kIo, kNoSpace: not all has been written.
  Result<void> finish();

 private:
  void end_progress() USBD_REQUIRES(mutex_);

  const Options options_;
  bool terminal_ = false;
  Mutex mutex_;
  bool progress_shown_ USBD_GUARDED_BY(mutex_) = false;
  bool failed_ USBD_GUARDED_BY(mutex_) = false;
  std::chrono::steady_clock::time_point last_progress_ USBD_GUARDED_BY(mutex_);
};

}  // namespace usbd::ctl

// SPDX-License-Identifier: Apache-2.0
//
// What the daemon asks of its own process: signals as a descriptor, more open files, locked memory.

#pragma once

#include <chrono>
#include <cstdint>

#include "base/unique_fd.h"
#include "usbd/result.h"

namespace usbd::daemon {

/// Receives the process's signals instead of the default actions. SIGPIPE is ignored.
/// Threads: made by the main thread before it starts others, which inherit the blocked signals.
class Signals {
 public:
  enum class Event : uint8_t { kStop, kStatistics, kOther, kTimeout };

  /// Errors: what signalfd or eventfd said.
  static Result<Signals> create();
  Signals(Signals&&) = default;
  Signals& operator=(Signals&&) = default;
  ~Signals() = default;

  /// Waits for a signal (SIGINT, SIGTERM, SIGHUP: kStop; SIGUSR1: kStatistics), for interrupt()
  /// (kOther), or for `timeout` (negative: for ever).
  Event wait(std::chrono::milliseconds timeout);
  /// Makes the present or the next wait() return kOther. Threads: any.
  void interrupt() const;

 private:
  Signals(UniqueFd signals, UniqueFd wake) : signals_(std::move(signals)), wake_(std::move(wake)) {}

  UniqueFd signals_;
  UniqueFd wake_;
};

/// Raises the limit of open files as far as it may go; logs nothing, fails silently at the old one.
void raise_open_files_limit();

/// Keeps all present and future memory resident.
/// Errors: kPerm, kNoMemory; the context says what to do.
Result<void> lock_memory();

}  // namespace usbd::daemon

// SPDX-License-Identifier: Apache-2.0
//
// SyncProcess: syncs of a kernel device by a process of their own, sync(1). A sync waits for the
// device for as long as that takes, and no signal ends the wait: a thread in it would keep its
// process, and with that the device's sockets, from ending. Another process can be left behind.

#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/unique_fd.h"
#include "usbd/result.h"

namespace usbd::nbd {

class SyncProcess {
 public:
  /// Starts each command, the first word its program, at once.
  /// Errors: kNotFound: there is no such program; else what the kernel said. Then none runs on.
  static Result<std::unique_ptr<SyncProcess>> start(
      const std::vector<std::vector<std::string>>& commands);
  /// Kills what still runs; what cannot be killed yet ends by itself, when its device answers.
  ~SyncProcess();
  SyncProcess(const SyncProcess&) = delete;
  SyncProcess& operator=(const SyncProcess&) = delete;

  /// Waits for the end of all, at most for `timeout`. Empty: they have not ended; after the first
  /// answer it is always the same.
  /// Errors: kIo: one of them failed; the context is what it said.
  std::optional<Result<void>> wait(std::chrono::milliseconds timeout);

 private:
  struct Child {
    pid_t pid = -1;
    /// Readable when it has ended.
    UniqueFd handle;
    /// What it writes to stderr.
    UniqueFd said;
    bool ended = false;
  };

  SyncProcess() = default;
  Result<void> add(const std::vector<std::string>& command);
  void reap(Child& child);

  std::vector<Child> children_;
  Result<void> outcome_;
};

}  // namespace usbd::nbd

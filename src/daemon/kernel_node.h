// SPDX-License-Identifier: Apache-2.0
//
// KernelNode: the volume as a kernel device, from attaching to letting go. How it ends is the
// point of it: a device that somebody still uses is synced and waited for, and if the wait is in
// vain left to the next daemon, never disconnected under its filesystem.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "frontends/nbd/kernel/attach.h"
#include "frontends/nbd/server.h"
#include "usbd/result.h"
#include "usbd/serve.h"

namespace usbd::daemon {

/// Threads: all calls wait for the kernel: none is made on a loop.
class KernelNode {
 public:
  /// Attaches the only export of `server`: one of options.devices, or any that is free.
  /// `id` names the volume, for a later daemon; may be empty. `on_lost` is called, from any thread,
  /// when somebody else has disconnected the device.
  /// Lifetime: `server` outlives the node, and is stopped after release().
  /// Errors:   as nbd::KernelAttach::attach(); kBusy only if all options.devices are in use.
  static Result<std::unique_ptr<KernelNode>> attach(nbd::Server& server, const ExportInfo& info,
                                                    const ServeOptions& options,
                                                    const std::string& id,
                                                    std::function<void()> on_lost);

  /// Such as "/dev/nbd0".
  [[nodiscard]] const std::string& path() const { return attach_->device_path(); }

  /// Syncs the device and detaches it. While somebody holds it: says who, and waits until it is
  /// released, `timeout` is over or `hurry` is requested; then leaves it waiting, also if it is the
  /// sync that has not ended: one that nobody holds is given limits::kKernelSyncMin for it at
  /// least. The last call. Returns whether it is detached.
  bool release(std::chrono::nanoseconds timeout, const std::stop_token& hurry);

 private:
  struct Fate {
    std::atomic<bool> lost{false};
    std::function<void()> on_lost;
  };
  explicit KernelNode(std::shared_ptr<Fate> fate) : fate_(std::move(fate)) {}

  enum class Step : uint8_t { kAgain, kDetached };

  void start_sync();
  /// Whether the sync has ended, at the latest after `patience`.
  bool synced(std::chrono::milliseconds patience);
  Step try_to_detach();
  void say_who_holds(std::chrono::nanoseconds timeout);
  void leave_waiting();

  /// Shared with the attach, which may call when this is on its way out.
  const std::shared_ptr<Fate> fate_;
  /// Outlives the attach.
  std::unique_ptr<nbd::SocketSink> sink_;
  std::unique_ptr<nbd::KernelAttach> attach_;
  /// The sync that is running.
  std::unique_ptr<nbd::SyncProcess> sync_;
};

}  // namespace usbd::daemon

// SPDX-License-Identifier: Apache-2.0
//
// No thread of this process syncs while it is not known that the device answers: see SyncProcess.

#include "daemon/kernel_node.h"

#include <optional>
#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/units.h"
#include "frontends/nbd/export_list.h"

namespace usbd::daemon {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

nbd::DriverChoice driver_of(ServeOptions::NbdDriver driver) {
  switch (driver) {
    case ServeOptions::NbdDriver::kNetlink:
      return nbd::DriverChoice::kNetlink;
    case ServeOptions::NbdDriver::kIoctl:
      return nbd::DriverChoice::kIoctl;
    case ServeOptions::NbdDriver::kAuto:
      break;
  }
  return nbd::DriverChoice::kAuto;
}

nbd::KernelAttachOptions attach_options(const ExportInfo& info, const ServeOptions& options,
                                        const std::string& id) {
  nbd::KernelAttachOptions attach;
  attach.block_size = info.block_size_logical;
  attach.size = info.size - info.size % info.block_size_logical;
  if (attach.size != info.size) {
    log::warning("the kernel device has whole blocks only: the last {} bytes are not in it",
                 info.size - attach.size);
  }
  attach.transmission_flags = nbd::transmission_flags(info);
  attach.connections = info.can_multi_connection ? options.kernel_connections : 1;
  attach.timeout = std::chrono::ceil<milliseconds>(options.nbd_timeout);
  attach.dead_timeout = std::chrono::ceil<milliseconds>(options.nbd_dead_timeout);
  attach.backend = id;
  attach.nbds_max = options.devices_max;
  attach.driver = driver_of(options.nbd_driver);
  return attach;
}

/// Attaches the first of `devices` that is not in use; with none, any that is free.
Result<std::unique_ptr<nbd::KernelAttach>> attach_one_of(const std::vector<std::string>& devices,
                                                         nbd::KernelAttachOptions options,
                                                         nbd::SocketSink& sink) {
  if (devices.empty()) return nbd::KernelAttach::attach(std::move(options), sink);
  std::optional<Error> busy;
  for (const std::string& device : devices) {
    options.device = device;
    Result<std::unique_ptr<nbd::KernelAttach>> attached = nbd::KernelAttach::attach(options, sink);
    if (attached || !attached.error().is(Errc::kBusy)) return attached;
    if (devices.size() > 1) log::info("{}", attached.error().message());
    busy = std::move(attached).error();
  }
  return *std::move(busy);
}

/// Whether release() may go on waiting after `waited`.
bool may_wait(std::chrono::nanoseconds waited, bool held, std::chrono::nanoseconds timeout,
              const std::stop_token& hurry) {
  if (!held && waited < limits::kKernelSyncMin) return true;
  return waited < timeout && !hurry.stop_requested();
}

}  // namespace

Result<std::unique_ptr<KernelNode>> KernelNode::attach(nbd::Server& server, const ExportInfo& info,
                                                       const ServeOptions& options,
                                                       const std::string& id,
                                                       std::function<void()> on_lost) {
  auto fate = std::make_shared<Fate>();
  fate->on_lost = std::move(on_lost);
  std::unique_ptr<KernelNode> node(new KernelNode(fate));
  node->sink_ = server.kernel_sink(0, info.name);
  nbd::KernelAttachOptions attach = attach_options(info, options, id);
  attach.on_lost = [fate](const Error& error) {
    log::warning("the kernel device is gone: {}", error.message());
    fate->lost = true;
    fate->on_lost();
  };
  USBD_TRY(node->attach_, attach_one_of(options.devices, std::move(attach), *node->sink_));
  log::info("attached {} by {}", node->path(), node->attach_->driver_name());
  return node;
}

bool KernelNode::release(std::chrono::nanoseconds timeout, const std::stop_token& hurry) {
  const steady_clock::time_point begun = steady_clock::now();
  bool held = attach_->held();
  if (held) say_who_holds(timeout);
  start_sync();
  do {
    if (fate_->lost) {
      attach_->abandon();
      return true;
    }
    if (!synced(limits::kKernelReleasePoll)) continue;
    if (try_to_detach() == Step::kDetached) return true;
    if (!held) say_who_holds(timeout);
    held = true;
    std::this_thread::sleep_for(limits::kKernelReleasePoll);
  } while (may_wait(steady_clock::now() - begun, held, timeout, hurry));
  leave_waiting();
  return false;
}

void KernelNode::say_who_holds(std::chrono::nanoseconds timeout) {
  const std::vector<std::string> who = attach_->holders();
  log::warning(
      "{} is in use: {}; waiting up to {} for its release, a second signal ends the wait", path(),
      who.empty() ? "somebody holds it exclusively" : fmt::format("{}", fmt::join(who, ", ")),
      format_duration(timeout));
}

void KernelNode::start_sync() {
  Result<std::unique_ptr<nbd::SyncProcess>> started = attach_->start_sync();
  if (started) {
    sync_ = *std::move(started);
  } else {
    log::error("{} is not synced: {}", path(), started.error().message());
  }
}

bool KernelNode::synced(milliseconds patience) {
  if (!sync_) return true;
  const std::optional<Result<void>> ended = sync_->wait(patience);
  if (!ended) return false;
  if (!*ended) log::error("syncing {}: {}", path(), ended->error().message());
  sync_.reset();
  return true;
}

KernelNode::Step KernelNode::try_to_detach() {
  const Result<void> detached = attach_->detach();
  if (detached) return Step::kDetached;
  if (detached.error().is(Errc::kBusy)) return Step::kAgain;
  log::error("{}: {}", path(), detached.error().message());
  return Step::kDetached;
}

void KernelNode::leave_waiting() {
  const std::string who = fmt::format("{}", fmt::join(attach_->holders(), ", "));
  if (sync_) log::error("syncing {} has not ended in time: its device does not answer", path());
  sync_.reset();
  const bool waits = attach_->can_outlive_daemon();
  attach_->abandon();
  log::warning("{} is still in use{}{}: {}; once it is unused, remove it with: {}", path(),
               who.empty() ? "" : ": ", who,
               waits ? "it is left waiting for a restart, and its requests with it"
                     : "this driver (ioctl) ends it with this process",
               attach_->removal_command());
}

}  // namespace usbd::daemon

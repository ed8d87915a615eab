// SPDX-License-Identifier: Apache-2.0
//
// The sync of a held device has a thread of its own: it takes as long as the device takes, and the
// wait must end in time all the same.

#include "daemon/kernel_node.h"

#include <optional>
#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/log.h"
#include "daemon/units.h"
#include "frontends/nbd/export_list.h"

namespace usbd::daemon {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kLookEvery{200};

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
  if (fate_->lost) {
    attach_->abandon();
    return true;
  }
  const steady_clock::time_point deadline = steady_clock::now() + timeout;
  const Result<void> detached = attach_->detach();
  if (!detached && detached.error().is(Errc::kBusy)) {
    log::warning("{}; waiting up to {} for its release, a second signal ends the wait",
                 detached.error().context(), format_duration(timeout));
    return wait_for_release(deadline, hurry);
  }
  if (!detached) log::error("{}: {}", path(), detached.error().message());
  return true;
}

bool KernelNode::wait_for_release(steady_clock::time_point deadline, const std::stop_token& hurry) {
  sync_ = std::async(std::launch::async, [this] { return attach_->sync(); });
  while (steady_clock::now() < deadline && !hurry.stop_requested()) {
    if (sync_.valid() && sync_.wait_for(kLookEvery) != std::future_status::ready) continue;
    if (sync_.valid()) {
      const Result<void> synced = sync_.get();
      if (!synced) log::error("{}: {}", path(), synced.error().message());
    }
    if (fate_->lost) {
      attach_->abandon();
      return true;
    }
    const Result<void> detached = attach_->detach();
    if (detached) return true;
    if (!detached.error().is(Errc::kBusy)) {
      log::error("{}: {}", path(), detached.error().message());
      return true;
    }
    std::this_thread::sleep_for(kLookEvery);
  }
  leave_waiting();
  return false;
}

void KernelNode::leave_waiting() {
  const std::string who = fmt::format("{}", fmt::join(attach_->holders(), ", "));
  if (sync_.valid()) log::error("{}: syncing it has not finished in time", path());
  const bool waits = attach_->can_outlive_daemon();
  attach_->abandon();
  log::warning("{} is still in use{}{}: {}; once it is unused, remove it with: {}", path(),
               who.empty() ? "" : ": ", who,
               waits ? "it is left waiting for a restart, and its requests with it"
                     : "this driver (ioctl) ends it with this process",
               attach_->removal_command());
}

}  // namespace usbd::daemon

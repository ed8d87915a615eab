// SPDX-License-Identifier: Apache-2.0
//
// Frontends: all the places where one export is served, opened as -export says and closed together.
// Knows which frontends there are; another kind is another case in open_one().

#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "async/runtime.h"
#include "core/buffer_pool.h"
#include "core/export.h"
#include "daemon/export_spec.h"
#include "daemon/kernel_node.h"
#include "frontends/nbd/export_list.h"
#include "frontends/nbd/server.h"
#include "usbd/serve.h"

namespace usbd::daemon {

/// What is to be served where: every place that `options` name.
/// Errors: kInvalid, as plan_exports() for each of options.devices; kNotSupported: a frontend that
///         this build does not have.
Result<std::vector<ExportSpec>> plan_of(const ServeOptions& options);

/// Threads: all calls wait, none is made on a loop.
class Frontends {
 public:
  /// Opens every place of `options`; all or none. `id` names the volume (OpenedVolume::id);
  /// `on_lost` is called, from any thread, when the kernel device is disconnected by someone else.
  /// Lifetime: `runtime`, `served` and `options` outlive it.
  static Result<std::unique_ptr<Frontends>> open(Runtime& runtime, Export& served,
                                                 const ServeOptions& options, const std::string& id,
                                                 const std::function<void()>& on_lost);
  /// Releases and closes, waiting for nobody, unless close() did.
  ~Frontends();
  Frontends(const Frontends&) = delete;
  Frontends& operator=(const Frontends&) = delete;

  /// Kernel devices first, then sockets.
  [[nodiscard]] const std::vector<ServedAt>& served_at() const { return served_at_; }
  /// What "auto" came to and why, for the log; empty if it came to the first choice.
  [[nodiscard]] const std::string& note() const { return note_; }

  /// Lets the kernel device go (KernelNode::release). Returns those that were left waiting.
  std::vector<std::string> release(std::chrono::nanoseconds timeout, const std::stop_token& hurry);
  /// Ends all sessions (nbd::Server::stop). Order: after release(). The last call.
  void close(const std::stop_token& hurry);

 private:
  Frontends(Runtime& runtime, Export& served, const ServeOptions& options, nbd::ExportList exports);

  Result<void> open_one(const ExportSpec& spec, const std::string& id,
                        const std::function<void()>& on_lost);
  /// A kernel device; if this machine or process can have none, a unix socket.
  Result<void> open_auto(const std::string& id, const std::function<void()>& on_lost);
  Result<void> open_kernel(const std::string& id, const std::function<void()>& on_lost);
  Result<void> start();

  Runtime& runtime_;
  Export& served_;
  const ServeOptions& options_;
  const nbd::ExportList exports_;
  Budget budget_;
  std::unique_ptr<nbd::Server> server_;
  std::unique_ptr<KernelNode> kernel_;
  std::vector<ServedAt> served_at_;
  std::string note_;
  bool closed_ = false;
};

}  // namespace usbd::daemon

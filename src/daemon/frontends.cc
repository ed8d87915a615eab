// SPDX-License-Identifier: Apache-2.0
//
// One NBD server serves the sockets and the kernel device. Sockets are made before it starts, so
// the kernel device is attached first: whether it could be decides which sockets "auto" needs.

#include "daemon/frontends.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "base/limits.h"
#include "daemon/describe.h"

namespace usbd::daemon {
namespace {

using Kind = ExportSpec::Kind;

ServedAt place_at(const nbd::Endpoint& endpoint, const std::string& export_name) {
  ServedAt place;
  place.uri = nbd::make_uri(endpoint, export_name);
  if (endpoint.kind == nbd::Endpoint::Kind::kUnix) {
    place.kind = ServedAt::Kind::kUnixSocket;
    place.name = endpoint.path;
  } else {
    place.kind = ServedAt::Kind::kTcpSocket;
    place.name = nbd::to_text(endpoint).substr(4);  // without "tcp:"
  }
  return place;
}

std::vector<EventLoop*> loops_of(Runtime& runtime) {
  std::vector<EventLoop*> loops;
  for (unsigned index = 0; index < runtime.loop_count(); ++index) {
    loops.push_back(&runtime.loop(index));
  }
  return loops;
}

Task<Result<void>> start_server(nbd::Server& server) {
  co_return server.start();
}

}  // namespace

Result<std::vector<ExportSpec>> plan_of(const ServeOptions& options) {
  for (const std::string& device : options.devices) {
    USBD_TRY_VOID(plan_exports(options.exports, device));
  }
  USBD_TRY(std::vector<ExportSpec> plan,
           plan_exports(options.exports, options.devices.empty() ? "" : options.devices.front()));
  if (std::ranges::find(plan, Kind::kUblk, &ExportSpec::kind) == plan.end()) return plan;
  return Error(Errc::kNotSupported,
               "-export=ublk: this build has no ublk frontend yet; it has nbd, unix:PATH and "
               "tcp:HOST:PORT");
}

Frontends::Frontends(Runtime& runtime, Export& served, const ServeOptions& options,
                     nbd::ExportList exports)
    : runtime_(runtime),
      served_(served),
      options_(options),
      exports_(std::move(exports)),
      budget_(limits::kBytesTotalMax),
      server_(std::make_unique<nbd::Server>(
          loops_of(runtime), exports_, budget_,
          nbd::Server::Options{.insecure_tcp = options.insecure_tcp,
                               .connections_max = options.connections_max})) {}

Result<std::unique_ptr<Frontends>> Frontends::open(Runtime& runtime, Export& served,
                                                   const ServeOptions& options,
                                                   const std::string& id,
                                                   const std::function<void()>& on_lost) {
  USBD_TRY(const std::vector<ExportSpec> plan, plan_of(options));
  USBD_TRY(nbd::ExportList exports, nbd::ExportList::create({&served}));
  std::unique_ptr<Frontends> frontends(new Frontends(runtime, served, options, std::move(exports)));
  for (const ExportSpec& spec : plan) USBD_TRY_VOID(frontends->open_one(spec, id, on_lost));
  USBD_TRY_VOID(frontends->start());
  return frontends;
}

Frontends::~Frontends() {
  if (closed_) return;
  std::stop_source hurry;
  hurry.request_stop();
  release(std::chrono::nanoseconds(0), hurry.get_token());
  close(hurry.get_token());
}

Result<void> Frontends::open_one(const ExportSpec& spec, const std::string& id,
                                 const std::function<void()>& on_lost) {
  switch (spec.kind) {
    case Kind::kAuto:
      return open_auto(id, on_lost);
    case Kind::kNbd:
      return open_kernel(id, on_lost);
    case Kind::kUnix:
    case Kind::kTcp:
      return server_->listen(spec.endpoint);
    case Kind::kUblk:  // refused by plan_of()
    case Kind::kNone:
      break;
  }
  return {};
}

Result<void> Frontends::open_auto(const std::string& id, const std::function<void()>& on_lost) {
  const Result<void> kernel = open_kernel(id, on_lost);
  if (kernel) return {};
  // Who gets a socket where a device was to be had would look for the reason in the wrong place.
  if (!nbd::is_unavailable(kernel.error())) {
    return Error(kernel.error().code(),
                 fmt::format("-export=auto: {} (-export=unix:PATH does without the kernel)",
                             explain(kernel.error())));
  }
  const std::string why = fmt::format(
      "no kernel nbd device ({}), and no ublk (this build has none)", explain(kernel.error()));
  const std::filesystem::path path =
      std::filesystem::path(options_.socket_directory) / (options_.name + ".sock");
  const Result<void> listening =
      server_->listen({.kind = nbd::Endpoint::Kind::kUnix, .path = path.lexically_normal()});
  if (!listening) {
    return Error(listening.error().code(), fmt::format("-export=auto: {}; and no unix socket: {}",
                                                       why, explain(listening.error())));
  }
  note_ = fmt::format("-export=auto: {}: serving NBD clients on a unix socket instead", why);
  return {};
}

Result<void> Frontends::open_kernel(const std::string& id, const std::function<void()>& on_lost) {
  USBD_TRY(kernel_, KernelNode::attach(*server_, served_.info(), options_, id, on_lost));
  served_at_.push_back({.kind = ServedAt::Kind::kKernelDevice, .name = kernel_->path()});
  return {};
}

Result<void> Frontends::start() {
  for (const nbd::Endpoint& endpoint : server_->endpoints()) {
    served_at_.push_back(place_at(endpoint, served_.info().name));
  }
  return runtime_.run(start_server(*server_));
}

std::vector<std::string> Frontends::release(std::chrono::nanoseconds timeout,
                                            const std::stop_token& hurry) {
  std::vector<std::string> left;
  if (kernel_ && !kernel_->release(timeout, hurry)) left.push_back(kernel_->path());
  return left;
}

void Frontends::close(const std::stop_token& hurry) {
  closed_ = true;
  runtime_.run(server_->stop(limits::kDrainTimeout, hurry));
}

}  // namespace usbd::daemon

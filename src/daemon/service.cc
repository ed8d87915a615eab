// SPDX-License-Identifier: Apache-2.0
//
// The life cycle of a served volume.

#include "daemon/service.h"

#include <algorithm>
#include <thread>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/units.h"
#include "layers/layers.h"

namespace usbd::daemon {
namespace {

unsigned loop_count(unsigned asked) {
  if (asked > 0) return asked;
  return std::clamp(std::thread::hardware_concurrency(), 1U, limits::kLoopsDefaultMax);
}

ServeStatistics::Operation operation(const StatsSnapshot& snapshot, Op op) {
  const OpStats& stats = snapshot.of(op);
  return {.operations = stats.operations, .bytes = stats.bytes, .errors = stats.errors};
}

}  // namespace

Service::Service(ServeOptions options, std::function<void()> on_lost)
    : options_(std::move(options)), on_lost_(std::move(on_lost)) {}

Result<std::unique_ptr<Service>> Service::start(const VolumeOpener& opener, ServeOptions options,
                                                std::function<void()> on_lost) {
  std::unique_ptr<Service> service(new Service(std::move(options), std::move(on_lost)));
  USBD_TRY_VOID(service->open(opener));
  return service;
}

Result<void> Service::open(const VolumeOpener& opener) {
  for (const std::string& spec : options_.layers) USBD_TRY_VOID(check_layer(spec));
  USBD_TRY_VOID(plan_of(options_));
  if (options_.busy_poll < Nanos(0) || options_.busy_poll > limits::kBusyPollMax) {
    return Error(Errc::kInvalid, fmt::format("busy_poll is {} to {}", format_duration(Nanos(0)),
                                             format_duration(limits::kBusyPollMax)));
  }
  const unsigned blocking = std::max(limits::kBlockingThreadsMax, options_.blocking_calls_max);
  USBD_TRY(runtime_, Runtime::start({.loops = loop_count(options_.threads),
                                     .blocking_threads_max = blocking,
                                     .busy_poll = options_.busy_poll}));
  USBD_TRY(OpenedVolume volume, runtime_->run(opener(*runtime_)));
  device_ = std::move(volume.device);
  description_ = std::move(volume.description);
  id_ = std::move(volume.id);
  upkeep_ = std::move(volume.upkeep);
  if (upkeep_.on_taken_over) {
    upkeep_.on_taken_over([this] { lost("the volume was taken over by another daemon"); });
  }
  USBD_TRY_VOID(open_layers());
  return open_frontends();
}

Result<void> Service::open_layers() {
  for (const std::string& spec : options_.layers) {
    USBD_TRY(device_, make_layer(spec, std::move(device_)));
  }
  return {};
}

Result<void> Service::open_frontends() {
  Export::Options export_options;
  export_options.name = options_.name;
  export_options.description = description_;
  export_options.read_only = options_.read_only;
  export_options.loops = runtime_->loop_count();
  export_ = std::make_unique<Export>(*device_, std::move(export_options));
  USBD_TRY(frontends_, Frontends::open(*runtime_, *export_, options_, id_,
                                       [this] { lost("its kernel device is gone"); }));
  return {};
}

Service::~Service() {
  if (stopped_ || !device_) return;
  hurry_.request_stop();
  frontends_.reset();
  const std::jthread limit([this](const std::stop_token& closed) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any never;
    never.wait_for(lock, closed, limits::kGiveUpTime, [] { return false; });
    if (!closed.stop_requested()) hurry_device();
  });
  const Result<void> closed = close_device();
  if (!closed) log::error("closing the device: {}", closed.error().message());
}

void Service::hurry() {
  hurry_.request_stop();
  hurry_device();
}

bool Service::hurry_device() {
  if (!upkeep_.hurry) return false;
  upkeep_.hurry();
  return true;
}

Ending Service::ending() const {
  return upkeep_.ending ? upkeep_.ending() : Ending::kComplete;
}

std::string Service::why_lost() {
  const std::lock_guard lock(mutex_);
  return why_lost_;
}

void Service::lost(std::string why) {
  {
    const std::lock_guard lock(mutex_);
    lost_ = true;
    if (why_lost_.empty()) why_lost_ = std::move(why);
  }
  lost_changed_.notify_all();
  if (on_lost_) on_lost_();
}

ServeStatistics Service::statistics() const {
  const StatsSnapshot snapshot = export_->stats().snapshot();
  return {.read = operation(snapshot, Op::kRead),
          .write = operation(snapshot, Op::kWrite),
          .flush = operation(snapshot, Op::kFlush),
          .trim = operation(snapshot, Op::kTrim),
          .write_zeroes = operation(snapshot, Op::kWriteZeroes),
          .in_flight = snapshot.in_flight};
}

Result<StopReport> Service::wait() {
  {
    std::unique_lock lock(mutex_);
    lost_changed_.wait(lock, options_.stop, [this] { return lost_; });
  }
  return stop();
}

Result<StopReport> Service::stop() {
  USBD_ASSERT(!stopped_);
  stopped_ = true;
  StopReport report;
  report.left_waiting = frontends_->release(options_.stop_timeout, hurry_.get_token());
  step_ = Step::kAnswer;
  frontends_->close(hurry_.get_token());
  step_ = Step::kClose;
  report.statistics = statistics();
  USBD_TRY_VOID(close_device());
  return report;
}

std::string Service::waits_for() const {
  switch (step_.load()) {
    case Step::kRelease:
      return "its kernel device is not released";
    case Step::kAnswer:
      return fmt::format("the device has not answered {} requests, and nothing was flushed after",
                         export_->stats().snapshot().in_flight);
    case Step::kClose:
      break;
  }
  if (upkeep_.waits_for) return upkeep_.waits_for();
  return "the last flush of the volume has not ended";
}

Result<void> Service::close_device() {
  return runtime_->run(device_->close());
}

}  // namespace usbd::daemon

// SPDX-License-Identifier: Apache-2.0
//
// The main thread only waits for signals; whatever may take long while stopping runs on a thread
// beside it, so that a second signal is heard. A third one ends the process where it stands, and so
// does the main thread when the time of a stop is over: nothing else helps against a device that
// has a request and does not come back.

#include "daemon/program.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
#include <thread>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/limits.h"
#include "base/log.h"
#include "daemon/command_line.h"
#include "daemon/describe.h"
#include "daemon/flag_table.h"
#include "daemon/notify.h"
#include "daemon/pidfile.h"
#include "daemon/process.h"
#include "daemon/service.h"

namespace usbd::daemon {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kForEver{-1};
/// More than any process lives; what is longer might overflow a clock.
constexpr std::chrono::hours kVeryLong(24 * 365 * 20);

/// For Signals::wait(): at most a while, after which the caller looks again.
std::chrono::milliseconds left_until(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  return std::clamp<std::chrono::milliseconds>(left, std::chrono::milliseconds(0),
                                               std::chrono::minutes(1));
}

void print(std::FILE* to, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), to);
}

int usage_error(const std::string& program, const Error& error) {
  const std::string why = error.context().empty() ? error.message() : error.context();
  print(stderr, fmt::format("{}: {}\n", program, why));
  return kExitUsage;
}

/// The served volume with everything that the process has around it.
class Program {
 public:
  Program(std::string name, Settings settings, Signals signals)
      : name_(fmt::format("USBD Server ({})", name)),
        settings_(std::move(settings)),
        signals_(std::move(signals)),
        notifier_(Notifier::from_environment()) {}

  int run(const VolumeOpener& opener) {
    const Result<void> started = start(opener);
    if (!started) {
      log::error("{} could not be started: {}", name_, explain(started.error()));
      return kExitFailed;
    }
    wait();
    const Result<StopReport> stopped = stop();
    pidfile_.reset();
    log::info("{} statistics: {}", name_, service_->summary());
    return say_stopped(stopped);
  }

 private:
  Result<void> start(const VolumeOpener& opener) {
    raise_open_files_limit();
    if (settings_.process.lock_memory) USBD_TRY_VOID(lock_memory());
    USBD_TRY(service_, Service::start(opener, settings_.serve, [this] { signals_.interrupt(); }));
    say_started();
    if (!settings_.process.pidfile.empty()) {
      USBD_TRY(pidfile_, Pidfile::create(settings_.process.pidfile));
    }
    notifier_.ready(fmt::format("serving {}", fmt::join(place_names(service_->served_at()), ", ")));
    return {};
  }

  void say_started() const {
    log::info("{} started.", name_);
    log::info("{} using config: {}", name_,
              describe(service_->info(), service_->description(), service_->options()));
    if (!service_->uses_uring()) {
      log::warning("this system refuses io_uring: files are read and written by threads instead");
    }
    if (!service_->note().empty()) log::warning("{}", service_->note());
    for (const std::string& place : place_names(service_->served_at())) {
      log::info("{} is processing requests for \"{}\"", name_, place);
    }
    for (const ServedAt& place : service_->served_at()) {
      log::info("{}", how_to_connect(place, service_->info().name));
    }
    if (service_->served_at().empty()) log::info("-export=none: nobody is served");
  }

  /// The last lines. Returns the exit status.
  [[nodiscard]] int say_stopped(const Result<StopReport>& stopped) const {
    const std::string why = stopped ? std::string() : stopped.error().message();
    switch (service_->ending()) {
      case Ending::kTakenOver:
        log::error("the volume was taken over by another daemon: {}", why);
        log::info("{} terminated: what was not published is kept in its journal", name_);
        return kExitTakenOver;
      case Ending::kUnpublished:
        log::warning("{}", why);
        log::warning("start it again with the same -store-dir, and it publishes what is left");
        log::info("{} terminated with unpublished data in its journal", name_);
        return kExitUnpublished;
      case Ending::kComplete:
        break;
    }
    if (!stopped) {
      log::error(
          "the last flush of the volume failed, data that was not flushed before may be "
          "lost: {}",
          why);
      log::info("{} terminated with an error", name_);
      return kExitFailed;
    }
    log::info("{} terminated normally", name_);
    return kExitClean;
  }

  /// Until a signal asks to stop, or the kernel device or the volume is gone.
  void wait() {
    while (true) {
      switch (signals_.wait(kForEver)) {
        case Signals::Event::kStop:
          log::info("{} is stopping", name_);
          return;
        case Signals::Event::kOther:
          log::warning("{} is stopping: {}", name_, service_->why_lost());
          return;
        case Signals::Event::kStatistics:
          log::info("{} statistics: {}", name_, service_->summary());
          break;
        case Signals::Event::kTimeout:
          break;
      }
    }
  }

  Result<StopReport> stop() {
    notifier_.stopping("stopping");
    std::optional<Result<StopReport>> stopped;
    std::atomic<bool> done{false};
    std::thread stopper([this, &stopped, &done] {
      stopped.emplace(service_->stop());
      done = true;
      signals_.interrupt();
    });
    wait_for_stop(done);
    stopper.join();
    return *std::move(stopped);
  }

  /// Hears further signals until `done`, and sees to it that the process ends in time.
  void wait_for_stop(const std::atomic<bool>& done) {
    Clock::time_point last_asked = Clock::now();
    Clock::time_point deadline = last_asked + close_time() +
                                 std::min<Clock::duration>(settings_.serve.stop_timeout, kVeryLong);
    bool given_up = false;
    for (unsigned asked = 0; !done;) {
      const Signals::Event event = signals_.wait(left_until(deadline));
      const Clock::time_point now = Clock::now();
      if (event == Signals::Event::kStatistics) {
        log::info("{} statistics: {}", name_, service_->summary());
      }
      if (done) return;
      if (now >= deadline && !std::exchange(given_up, true) && service_->hurry_device()) {
        log::warning("{} does not wait for its store any longer (-close-timeout)", name_);
        deadline = now + limits::kGiveUpTime;
        continue;
      }
      if (now >= deadline) end_at_once("in time (-close-timeout)");
      if (event != Signals::Event::kStop) continue;
      if (now - std::exchange(last_asked, now) < limits::kSameSignal) continue;
      if (++asked > 1) end_at_once("when it was told to end at once");
      deadline = std::min(deadline, now + close_time());
      log::warning("{} is hurrying: it waits for nobody any more", name_);
      service_->hurry();
    }
  }

  /// Room for the rest of a stop once nobody waits for the release of a kernel device.
  [[nodiscard]] Clock::duration close_time() const {
    return limits::kKernelSyncMin +
           std::min<Clock::duration>(settings_.process.close_timeout, kVeryLong);
  }

  /// For a device, or a kernel, that does not come back: what waits for it cannot be taken apart.
  [[noreturn]] void end_at_once(std::string_view when) {
    log::error("{} has not stopped {}: {}", name_, when, service_->waits_for());
    log::error("{} ended at once; data that was not flushed may be lost", name_);
    pidfile_.reset();
    ::_exit(kExitFailed);
  }

  const std::string name_;
  const Settings settings_;
  Signals signals_;
  const Notifier notifier_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Pidfile> pidfile_;
};

int run_checked(const ProgramSpec& spec, int argc, char** argv) {
  const std::string name = argc > 0 ? argv[0] : spec.about.program;
  const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  FlagValues values(spec.flags);
  const Result<void> parsed = parse_arguments(words, values);
  if (!parsed) return usage_error(name, parsed.error());
  hide_secrets(values, argc, argv);
  if (values.on("help")) {
    print(stdout, help_text(spec.about, spec.flags));
    return kExitClean;
  }
  if (values.on("version")) {
    print(stdout, version_text(spec.about.program));
    return kExitClean;
  }
  const Result<std::vector<std::string>> warnings = read_sources(environment_words(), values);
  if (!warnings) return usage_error(name, warnings.error());
  const Result<Settings> settings = to_settings(values);
  if (!settings) return usage_error(name, settings.error());

  set_up_logging(settings->process.log_format);
  for (const std::string& line : *warnings) log::warning("{}", line);
  for (const std::string& line : ignored_flags(values, settings->volume.type)) {
    log::warning("{}", line);
  }
  Result<Signals> signals = Signals::create();
  if (!signals) {
    log::error("cannot receive signals: {}", signals.error().message());
    return kExitFailed;
  }
  return Program(name, *settings, *std::move(signals)).run(spec.opener(*settings));
}

}  // namespace

int run_program(const ProgramSpec& spec, int argc, char** argv) {
  try {
    return run_checked(spec, argc, argv);
  } catch (const std::exception& error) {
    print(stderr, fmt::format("{}: {}\n", spec.about.program, error.what()));
    return kExitFailed;
  }
}

int run_daemon(int argc, char** argv) {
  ProgramSpec spec;
  spec.about = {.program = "usbdsrvd", .is_daemon = true};
  spec.flags = daemon_flags();
  spec.opener = [](const Settings& settings) -> VolumeOpener {
    return [volume = settings.volume](Runtime& runtime) { return open_volume(volume, runtime); };
  };
  return run_program(spec, argc, argv);
}

}  // namespace usbd::daemon

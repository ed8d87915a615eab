// SPDX-License-Identifier: Apache-2.0
//
// The public API (usbd/serve.h) on top of Service and run_program.

#include "usbd/serve.h"

#include <filesystem>
#include <functional>
#include <memory>

#include "base/log.h"
#include "daemon/flag_table.h"
#include "daemon/program.h"
#include "daemon/service.h"

namespace usbd {
namespace {

/// Makes the Device, once there are threads for it to run on.
using DeviceMaker = std::function<std::unique_ptr<Device>(Runtime&)>;

Task<Result<daemon::OpenedVolume>> opened(std::unique_ptr<Device> device) {
  daemon::OpenedVolume volume;
  volume.description = device->name();
  volume.device = std::move(device);
  co_return volume;
}

daemon::VolumeOpener opener_of(DeviceMaker maker) {
  return [maker = std::move(maker)](Runtime& runtime) { return opened(maker(runtime)); };
}

/// std::function needs what it calls to be copyable; the device is handed over once all the same.
DeviceMaker maker_of(std::unique_ptr<Device> device) {
  auto held = std::make_shared<std::unique_ptr<Device>>(std::move(device));
  return [held](Runtime&) { return std::move(*held); };
}

DeviceMaker maker_of(std::unique_ptr<BlockingDevice> device, unsigned calls_max) {
  auto held = std::make_shared<std::unique_ptr<BlockingDevice>>(std::move(device));
  return [held, calls_max](Runtime& runtime) {
    return make_device(std::move(*held), runtime.blocking_pool(), calls_max);
  };
}

Result<std::unique_ptr<Server>> start_server(DeviceMaker maker, ServeOptions options) {
  USBD_TRY(std::unique_ptr<daemon::Service> service,
           daemon::Service::start(opener_of(std::move(maker)), std::move(options), nullptr));
  return std::unique_ptr<Server>(std::move(service));
}

int run(const std::string& name, DeviceMaker maker, int argc, char** argv) {
  daemon::ProgramSpec spec;
  const std::string path = argc > 0 ? argv[0] : "usbd";
  spec.about = {.program = std::filesystem::path(path).filename(), .is_daemon = false};
  spec.flags = daemon::author_flags(name);
  spec.opener = [maker = std::move(maker)](const daemon::Settings&) { return opener_of(maker); };
  return daemon::run_program(spec, argc, argv);
}

static_assert(static_cast<int>(LogLevel::kDebug) == static_cast<int>(log::Level::kDebug) &&
              static_cast<int>(LogLevel::kError) == static_cast<int>(log::Level::kError));

}  // namespace

void set_log_sink(std::function<void(LogLevel, std::string_view)> sink) {
  if (!sink) return log::set_sink({});
  log::set_sink([sink = std::move(sink)](log::Level level, std::string_view line) {
    sink(static_cast<LogLevel>(level), line);
  });
}

Result<std::unique_ptr<Server>> Server::start(std::unique_ptr<Device> device,
                                              ServeOptions options) {
  return start_server(maker_of(std::move(device)), std::move(options));
}

Result<std::unique_ptr<Server>> Server::start(std::unique_ptr<BlockingDevice> device,
                                              ServeOptions options) {
  const unsigned calls_max = options.blocking_calls_max;
  return start_server(maker_of(std::move(device), calls_max), std::move(options));
}

int serve(std::unique_ptr<Device> device, int argc, char** argv) {
  const std::string name = device->name();
  return run(name, maker_of(std::move(device)), argc, argv);
}

int serve(std::unique_ptr<BlockingDevice> device, int argc, char** argv) {
  const std::string name = device->name();
  return run(name, maker_of(std::move(device), ServeOptions().blocking_calls_max), argc, argv);
}

}  // namespace usbd

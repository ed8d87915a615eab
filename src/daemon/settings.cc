// SPDX-License-Identifier: Apache-2.0
//
// A flag that the table lacks (an author's program has no volume flags) keeps its setting's
// default.

#include "daemon/settings.h"

#include <filesystem>

#include <fmt/format.h>

#include "base/units.h"
#include "daemon/config_file.h"
#include "daemon/export_spec.h"
#include "daemon/flag_table.h"
#include "daemon/objstore_flags.h"

namespace usbd::daemon {
namespace {

VolumeSettings::Create create_of(const std::string& name) {
  if (name == "never") return VolumeSettings::Create::kNever;
  return name == "only" ? VolumeSettings::Create::kOnly : VolumeSettings::Create::kAuto;
}

ServeOptions::NbdDriver driver_of(const std::string& name) {
  if (name == "netlink") return ServeOptions::NbdDriver::kNetlink;
  return name == "ioctl" ? ServeOptions::NbdDriver::kIoctl : ServeOptions::NbdDriver::kAuto;
}

ObjstoreSettings objstore_settings(const FlagValues& values) {
  ObjstoreSettings objstore;
  objstore.kind = values.text("objstore-kind");
  objstore.cfg = values.text("objstore-cfg");
  objstore.container = values.text("objstore-container");
  objstore.key_source = values.text("objstore-aeskey");
  objstore.cipher = values.text("objstore-aesmode");
  objstore.cipher_given = values.given("objstore-aesmode");
  objstore.codec = values.text("objstore-compress");
  objstore.object_bytes = values.size("objstore-objsize");
  objstore.gc_target = values.ratio("objstore-gctarget");
  objstore.journal_bytes = values.size("objstore-journalsize");
  objstore.flush_every = values.duration("objstore-flushevery");
  objstore.dirty_age_max = values.duration("objstore-maxdirtyage");
  objstore.timeout = values.duration("objstore-timeout");
  objstore.uploads_max = static_cast<unsigned>(values.count("objstore-concurflush"));
  objstore.cache_bytes = values.size("objstore-diskcache");
  objstore.map_bytes = values.size("objstore-mapmem");
  objstore.keeps_cache = values.on("objstore-persistcache");
  objstore.flushes_remotely = values.text("objstore-flushmode") == "remote";
  objstore.takeover = values.on("objstore-takeover");
  objstore.fencing = values.text("objstore-fencing") != "none";
  return objstore;
}

VolumeSettings volume_settings(const FlagValues& values) {
  VolumeSettings volume;
  volume.directory = values.text("store-dir");
  volume.name = values.text("store-name");
  volume.block_size = static_cast<uint32_t>(values.count("block-size"));
  volume.block_size_given = values.given("block-size");
  volume.read_only = values.on("read-only");
  if (values.find("dev-type") == nullptr) return volume;
  volume.type = values.text("dev-type");
  volume.size = values.size("store-size");
  volume.size_given = values.given("store-size");
  volume.create = create_of(values.text("create"));
  volume.direct = values.on("file-direct");
  volume.objstore = objstore_settings(values);
  return volume;
}

ServeOptions serve_options(const FlagValues& values) {
  ServeOptions serve;
  serve.name = values.text("store-name");
  if (values.given("export")) serve.exports = values.list("export");
  if (!values.text("device").empty()) serve.devices = {values.text("device")};
  serve.socket_directory = values.text("store-dir");
  serve.layers = values.list("layer");
  serve.read_only = values.on("read-only");
  serve.devices_max = static_cast<unsigned>(values.count("nbd-max-devs"));
  serve.nbd_driver = driver_of(values.text("nbd-driver"));
  serve.kernel_connections = static_cast<unsigned>(values.count("connections"));
  serve.nbd_timeout = values.duration("nbd-timeout");
  serve.nbd_dead_timeout = values.duration("nbd-dead-timeout");
  serve.stop_timeout = values.duration("stop-timeout");
  serve.insecure_tcp = values.on("insecure-tcp");
  serve.connections_max = static_cast<unsigned>(values.count("max-connections"));
  serve.threads = static_cast<unsigned>(values.count("threads"));
  serve.busy_poll = values.duration("busy-poll");
  return serve;
}

Result<void> check_journal_size(uint64_t bytes) {
  if (bytes == 0 || bytes >= limits::kJournalBytesMin) return {};
  return Error(Errc::kInvalid,
               fmt::format("-objstore-journalsize: {} is not allowed: it is 0 (by the size of the "
                           "volume), or at least {}",
                           format_size(bytes), format_size(limits::kJournalBytesMin)));
}

/// The store's configuration is only read when it is used: it may be in a file or a variable.
Result<void> check_objstore(const FlagValues& values) {
  USBD_TRY_VOID(check_journal_size(values.size("objstore-journalsize")));
  const std::string& text = values.text("objstore-cfg");
  const std::string& kind = values.text("objstore-kind");
  if (text.empty() && kind == "s3") return {};
  Result<StoreConfig> config =
      text.empty() ? Result<StoreConfig>(StoreConfig()) : read_store_config(text);
  Result<void> good = config ? check_store_keys(kind, *config) : Result<void>(config.error());
  if (good) return {};
  return Error(Errc::kInvalid, "-objstore-cfg: " + good.error().message());
}

Result<void> check_directory(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) return {};
  return Error(
      Errc::kInvalid,
      fmt::format("-store-dir: \"{}\" {}; it is to be an existing directory", path,
                  std::filesystem::exists(status) ? "is not a directory" : "does not exist"));
}

}  // namespace

Result<std::vector<std::string>> read_sources(std::span<const std::string> environment,
                                              FlagValues& values) {
  USBD_TRY(std::vector<std::string> warnings, parse_environment(environment, values));
  const std::string& config = values.text("config");
  if (!config.empty()) USBD_TRY_VOID(read_config_file(config, values));
  return warnings;
}

Result<Settings> to_settings(const FlagValues& values) {
  Settings settings;
  settings.volume = volume_settings(values);
  settings.serve = serve_options(values);
  settings.process.log_format = log_format_of(values.text("log-format"));
  settings.process.pidfile = values.text("pidfile");
  settings.process.lock_memory = values.on("lock-memory");
  settings.process.close_timeout = values.duration("close-timeout");
  USBD_TRY_VOID(check_directory(settings.volume.directory));
  USBD_TRY_VOID(plan_exports(settings.serve.exports, values.text("device")));
  if (settings.volume.type == "objstore") USBD_TRY_VOID(check_objstore(values));
  return settings;
}

std::vector<std::string> ignored_flags(const FlagValues& values, const std::string& device_type) {
  const std::optional<FlagGroup> own = group_of_device_type(device_type);
  std::vector<std::string> warnings;
  for (const FlagSpec& spec : values.specs()) {
    const bool of_a_type = spec.group >= FlagGroup::kFile;
    if (!of_a_type || spec.group == own || !values.given(spec.name)) continue;
    warnings.push_back(fmt::format("-{} is not for -dev-type={}; ignored", spec.name, device_type));
  }
  for (const char* name : {"recover", "state-dir"}) {
    if (!values.given(name)) continue;
    warnings.push_back(
        fmt::format("-{} has no effect: this build does not take kernel devices over yet", name));
  }
  return warnings;
}

}  // namespace usbd::daemon

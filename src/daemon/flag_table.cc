// SPDX-License-Identifier: Apache-2.0
//
// The table. Texts of `help` are sentences for -help, which adds the choices and the default.

#include "daemon/flag_table.h"

#include "base/limits.h"
#include "base/units.h"
#include "daemon/export_spec.h"
#include "daemon/objstore_flags.h"
#include "layers/layers.h"

namespace usbd::daemon {
namespace {

using Group = FlagGroup;
using Kind = FlagKind;

constexpr uint64_t kMinute = 60'000'000'000;
constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kMiB = 1U << 20;
/// Ref: linux drivers/block/nbd.c, nbds_max is an int; a minor is needed for each.
constexpr uint64_t kKernelDevicesMax = 65'536;
/// Leaves room for what is added to it within the 255 bytes of a file's name.
constexpr size_t kStoreNameMax = 200;
constexpr std::string_view kMinioConfig =
    R"({"access_key_id":"minioadmin","endpoint":"http://127.0.0.1:9000","secret_key":"minioadmin"})";

Result<void> check_export(std::string_view value) {
  USBD_TRY_VOID(parse_export(value));
  return {};
}

Result<void> check_device(std::string_view value) {
  USBD_TRY_VOID(parse_device_name(value));
  return {};
}

Result<void> check_not_empty(std::string_view value) {
  if (value.empty()) return Error(Errc::kInvalid, "it is empty");
  return {};
}

/// A store name becomes a file's name, an export's name and an object's prefix.
Result<void> check_store_name(std::string_view value) {
  const bool path = value.find('/') != std::string_view::npos || value == "." || value == "..";
  bool control = false;
  for (const char c : value) control |= static_cast<unsigned char>(c) < ' ' || c == '\x7f';
  if (value.empty() || value.size() > kStoreNameMax || path || control) {
    return Error(Errc::kInvalid, "a name is 1 to 200 bytes, without / and control characters");
  }
  return {};
}

void add_general(std::vector<FlagSpec>& table) {
  table.push_back({.name = "help", .kind = Kind::kSwitch, .help = "Print this text and exit."});
  table.push_back(
      {.name = "version", .kind = Kind::kSwitch, .help = "Print the version and exit."});
  table.push_back({.name = "config",
                   .value_name = "FILE",
                   .help = "Read further settings from this TOML file: the names of the flags "
                           "without the dash. Flags win over the environment (USBD_STORE_DIR for "
                           "-store-dir), which wins over the file."});
  table.push_back({.name = "log-format",
                   .kind = Kind::kChoice,
                   .fallback = "text",
                   .help = "How log lines are written to stderr.",
                   .choices = {{"text", {}}, {"journal", {"journald"}}, {"json", {}}}});
  table.push_back({.name = "pidfile",
                   .value_name = "FILE",
                   .help = "Write the process id there once requests are being served."});
  table.push_back({.name = "state-dir",
                   .value_name = "DIR",
                   .help = "Where the state for taking a kernel device over after a restart is.",
                   .fallback_help = "/run/usbd or $XDG_RUNTIME_DIR/usbd"});
  table.push_back({.name = "lock-memory",
                   .kind = Kind::kSwitch,
                   .help =
                       "Keep the daemon's memory from being swapped out (mlockall); needed when "
                       "swap lies on the served device."});
  table.push_back({.name = "stop-timeout",
                   .kind = Kind::kDuration,
                   .value_name = "DURATION",
                   .fallback = "30s",
                   .help = "How long a stop waits for whoever holds the device to release it."});
  table.push_back({.name = "close-timeout",
                   .kind = Kind::kDuration,
                   .value_name = "DURATION",
                   .fallback = "1m0s",
                   .help = "How long a stop then waits for the device to answer what is in flight "
                           "and to flush. After that the process ends all the same, and says what "
                           "was left.",
                   .least = kSecond});
  table.push_back({.name = "threads",
                   .kind = Kind::kCount,
                   .value_name = "N",
                   .fallback = "0",
                   .help = "Threads that serve requests; 0 is one per CPU, at most 4.",
                   .greatest = 256});
  table.push_back({.name = "busy-poll",
                   .kind = Kind::kDuration,
                   .value_name = "DURATION",
                   .fallback = format_duration(limits::kBusyPoll),
                   .help = "How long a thread looks for the next request before it sleeps, while "
                           "clients ask again that soon; 0 is never. Saves the time that waking "
                           "it takes; costs processor time, at most while requests come.",
                   .greatest = std::chrono::nanoseconds(limits::kBusyPollMax).count()});
}

void add_volume_choice(std::vector<FlagSpec>& table) {
  table.push_back({.name = "dev-type",
                   .group = Group::kVolume,
                   .kind = Kind::kChoice,
                   .fallback = "mem",
                   .help = "The device to serve; this build has mem and file.",
                   .choices = {{"mem", {"memory"}},
                               {"file", {"disk"}},
                               {"dedup", {"dedup-file", "dedup-disk"}},
                               {"objstore", {"osbd"}}}});
  table.push_back({.name = "create",
                   .group = Group::kVolume,
                   .kind = Kind::kChoice,
                   .fallback = "auto",
                   .help = "Whether the volume is made: if there is none (auto), not at all "
                           "(never), or it must be new (only).",
                   .choices = {{"auto", {}}, {"never", {}}, {"only", {}}}});
  table.push_back({.name = "store-size",
                   .group = Group::kVolume,
                   .kind = Kind::kSize,
                   .value_name = "SIZE",
                   .fallback = "1GiB",
                   .help = "Size of a new volume, such as 100MiB, 20GiB or 1GB, rounded up to its "
                           "block size. An existing volume keeps its own.",
                   .least = 1,
                   .greatest = uint64_t{1} << 60});
}

void add_volume(std::vector<FlagSpec>& table, const std::string& name) {
  table.push_back({.name = "store-dir",
                   .group = Group::kVolume,
                   .value_name = "DIR",
                   .fallback = "./",
                   .help = "Existing directory for local files.",
                   .check = check_not_empty});
  table.push_back({.name = "store-name",
                   .group = Group::kVolume,
                   .value_name = "NAME",
                   .fallback = name,
                   .help = "Name of the volume: of its local files, and of the export.",
                   .check = check_store_name});
  table.push_back({.name = "read-only",
                   .group = Group::kVolume,
                   .kind = Kind::kSwitch,
                   .help = "Refuse every write."});
  table.push_back({.name = "block-size",
                   .group = Group::kVolume,
                   .kind = Kind::kChoice,
                   .fallback = "4096",
                   .help = "The logical block size that the kernel sees.",
                   .choices = {{"512", {}}, {"4096", {}}}});
  table.push_back({.name = "layer",
                   .group = Group::kVolume,
                   .value_name = "SPEC",
                   .help =
                       "Put a layer over the device (see Layers below). The first one given lies "
                       "lowest.",
                   .check = check_layer,
                   .repeatable = true});
}

void add_export(std::vector<FlagSpec>& table) {
  table.push_back({.name = "export",
                   .group = Group::kExport,
                   .value_name = "WHERE",
                   .fallback = "auto",
                   .help = "Where the volume is served: nbd (a kernel device), unix:PATH, "
                           "tcp:HOST:PORT, ublk, none. auto is nbd, and if this kernel or this "
                           "user cannot have one, unix:<store-dir>/<store-name>.sock.",
                   .check = check_export,
                   .repeatable = true});
  table.push_back({.name = "insecure-tcp",
                   .group = Group::kExport,
                   .kind = Kind::kSwitch,
                   .help = "Serve without encryption on addresses other than loopback."});
  table.push_back({.name = "max-connections",
                   .group = Group::kExport,
                   .kind = Kind::kCount,
                   .value_name = "N",
                   .fallback = std::to_string(limits::kConnectionsMax),
                   .help = "Connections of network clients served at once.",
                   .least = 1,
                   .greatest = 65'536});
}

void add_kernel(std::vector<FlagSpec>& table) {
  table.push_back({.name = "device",
                   .group = Group::kKernel,
                   .value_name = "DEVICE",
                   .help = "The kernel device to use, such as /dev/nbd0; one that is in use is "
                           "refused.",
                   .check = check_device,
                   .fallback_help = "the first that is free",
                   .positional = true});
  table.push_back({.name = "nbd-driver",
                   .group = Group::kKernel,
                   .kind = Kind::kChoice,
                   .fallback = "auto",
                   .help = "How the kernel's NBD driver is told; auto is netlink, and ioctl where "
                           "there is none.",
                   .choices = {{"auto", {}}, {"netlink", {}}, {"ioctl", {}}}});
  table.push_back({.name = "nbd-max-devs",
                   .group = Group::kKernel,
                   .kind = Kind::kCount,
                   .value_name = "N",
                   .fallback = "32",
                   .help = "If this daemon loads the NBD module: how many devices it makes.",
                   .least = 1,
                   .greatest = kKernelDevicesMax});
  table.push_back(
      {.name = "connections",
       .group = Group::kKernel,
       .kind = Kind::kCount,
       .value_name = "N",
       .fallback = "0",
       .help = "Sockets between the kernel and this daemon; 0 is one per CPU, at most 4.",
       .greatest = 64});
  table.push_back(
      {.name = "nbd-timeout",
       .group = Group::kKernel,
       .kind = Kind::kDuration,
       .value_name = "DURATION",
       .fallback = "60s",
       .help = "When the kernel gives a request that is not answered to another socket.",
       .least = kSecond,
       .greatest = 60 * 24 * kMinute});
  table.push_back({.name = "nbd-dead-timeout",
                   .group = Group::kKernel,
                   .kind = Kind::kDuration,
                   .value_name = "DURATION",
                   .fallback = "10m",
                   .help = "How long the kernel waits for a daemon that is gone before it fails "
                           "requests.",
                   .greatest = 60 * 24 * kMinute});
  table.push_back({.name = "recover",
                   .group = Group::kKernel,
                   .kind = Kind::kSwitch,
                   .fallback = "true",
                   .help = "Take this volume's own kernel device over after a crash."});
}

void add_file(std::vector<FlagSpec>& table) {
  table.push_back({.name = "file-direct",
                   .group = Group::kFile,
                   .kind = Kind::kSwitch,
                   .help = "Bypass the page cache (O_DIRECT)."});
}

void add_dedup(std::vector<FlagSpec>& table) {
  table.push_back({.name = "dedup-memcache",
                   .group = Group::kDedup,
                   .kind = Kind::kSize,
                   .value_name = "SIZE",
                   .fallback = "512MiB",
                   .help = "Memory of the index of known blocks.",
                   .least = 8 * kMiB});
  table.push_back({.name = "dedup-compress",
                   .group = Group::kDedup,
                   .value_name = "CODEC",
                   .fallback = "lz4",
                   .help = "Compression of stored blocks: lz4, zstd, zstd:LEVEL, identity.",
                   .check = check_dedup_codec});
}

void add_objstore_place(std::vector<FlagSpec>& table) {
  table.push_back({.name = "objstore-kind",
                   .group = Group::kObjstore,
                   .kind = Kind::kChoice,
                   .fallback = "s3",
                   .help = "Kind of object store.",
                   .choices = {{"s3", {}},
                               {"b2", {}},
                               {"local", {}},
                               {"azure", {}},
                               {"swift", {}},
                               {"google", {}},
                               {"oracle", {}},
                               {"sftp", {}}}});
  table.push_back(
      {.name = "objstore-cfg",
       .group = Group::kObjstore,
       .value_name = "JSON",
       .help = "How to reach the store: a JSON object of strings, or @FILE, or env:NAME.",
       .check = check_store_config,
       .fallback_help = "for s3, a MinIO with its own defaults: " + std::string(kMinioConfig),
       .secret = true});
  table.push_back({.name = "objstore-container",
                   .group = Group::kObjstore,
                   .value_name = "NAME",
                   .help = "Container (bucket) that several volumes share.",
                   .check = check_store_name,
                   .fallback_help = "the store name"});
  table.push_back({.name = "objstore-takeover",
                   .group = Group::kObjstore,
                   .kind = Kind::kSwitch,
                   .help = "Open a volume that another host has not closed, and may hold flushed "
                           "data of."});
  table.push_back({.name = "objstore-fencing",
                   .group = Group::kObjstore,
                   .kind = Kind::kChoice,
                   .fallback = "on",
                   .help =
                       "Whether the store keeps two daemons from writing one volume; none allows "
                       "stores that cannot.",
                   .choices = {{"on", {}}, {"none", {"off"}}}});
}

void add_objstore_data(std::vector<FlagSpec>& table) {
  table.push_back({.name = "objstore-aesmode",
                   .group = Group::kObjstore,
                   .kind = Kind::kChoice,
                   .fallback = "aes-gcm",
                   .help = "Encryption of objects; identity is none.",
                   .choices = {{"aes-gcm", {"aes-rec"}},
                               {"chacha20-poly1305", {}},
                               {"aes-ctr", {}},
                               {"aes-cfb", {}},
                               {"aes-ofb", {}},
                               {"identity", {}}}});
  table.push_back({.name = "objstore-aeskey",
                   .group = Group::kObjstore,
                   .value_name = "KEY",
                   .help = "The encryption key: key:VALUE, file:PATH, env:NAME, fd:N, cred:NAME.",
                   .check = check_key_source,
                   .fallback_help = "<store-dir>/key.aes, made if it is missing",
                   .secret = true});
  table.push_back({.name = "objstore-compress",
                   .group = Group::kObjstore,
                   .value_name = "CODEC",
                   .fallback = "lz4",
                   .help = "Compression of objects: lz4, zstd, zstd:LEVEL, s2, gzip, identity.",
                   .check = check_objstore_codec});
  table.push_back({.name = "objstore-objsize",
                   .group = Group::kObjstore,
                   .kind = Kind::kSize,
                   .value_name = "SIZE",
                   .fallback = "64MiB",
                   .help = "Largest object, in stored bytes.",
                   .least = kMiB,
                   .greatest = 4096 * kMiB});
  table.push_back({.name = "objstore-gctarget",
                   .group = Group::kObjstore,
                   .kind = Kind::kRatio,
                   .value_name = "RATIO",
                   .fallback = "1.40",
                   .help = "Stored bytes per live byte above which objects are rewritten.",
                   .least = 1,
                   .greatest = 100});
}

void add_objstore_local(std::vector<FlagSpec>& table) {
  table.push_back(
      {.name = "objstore-diskcache",
       .group = Group::kObjstore,
       .kind = Kind::kSize,
       .value_name = "SIZE",
       .fallback = "0",
       .help = "Local disk for blocks that were read; 0 is up to the size of the volume."});
  table.push_back({.name = "objstore-persistcache",
                   .group = Group::kObjstore,
                   .kind = Kind::kSwitch,
                   .help = "Keep the read cache when the daemon stops."});
  table.push_back({.name = "objstore-journalsize",
                   .group = Group::kObjstore,
                   .kind = Kind::kSize,
                   .value_name = "SIZE",
                   .fallback = "0",
                   .help = "Local journal of what is not uploaded yet.",
                   .fallback_help = "a quarter of the volume, 64 MiB to 1 GiB"});
  table.push_back({.name = "objstore-mapmem",
                   .group = Group::kObjstore,
                   .kind = Kind::kSize,
                   .value_name = "SIZE",
                   .fallback = "256MiB",
                   .help = "Memory of the map from blocks to objects; the rest of it is on disk.",
                   .least = kMiB});
}

void add_objstore_times(std::vector<FlagSpec>& table) {
  table.push_back({.name = "objstore-flushmode",
                   .group = Group::kObjstore,
                   .kind = Kind::kChoice,
                   .fallback = "local",
                   .help = "What a flush waits for: the local journal, or the remote store.",
                   .choices = {{"local", {}}, {"remote", {}}}});
  table.push_back({.name = "objstore-flushevery",
                   .group = Group::kObjstore,
                   .kind = Kind::kDuration,
                   .value_name = "DURATION",
                   .fallback = "10s",
                   .help = "How old written data gets before it is uploaded; 0 is no limit."});
  table.push_back({.name = "objstore-maxdirtyage",
                   .group = Group::kObjstore,
                   .kind = Kind::kDuration,
                   .value_name = "DURATION",
                   .fallback = "5m",
                   .help = "How old data that is only here may get before writes wait.",
                   .least = kSecond});
  table.push_back({.name = "objstore-concurflush",
                   .group = Group::kObjstore,
                   .kind = Kind::kCount,
                   .value_name = "N",
                   .fallback = "0",
                   .help = "Parallel uploads; 0 is adaptive.",
                   .greatest = 256});
  table.push_back({.name = "objstore-timeout",
                   .group = Group::kObjstore,
                   .kind = Kind::kDuration,
                   .value_name = "DURATION",
                   .fallback = "0",
                   .help = "When a request that waits for the store fails; 0 is never."});
}

}  // namespace

std::vector<FlagSpec> daemon_flags() {
  std::vector<FlagSpec> table;
  add_general(table);
  add_volume_choice(table);
  add_volume(table, "test-lun");
  add_export(table);
  add_kernel(table);
  add_file(table);
  add_dedup(table);
  add_objstore_place(table);
  add_objstore_data(table);
  add_objstore_local(table);
  add_objstore_times(table);
  return table;
}

std::vector<FlagSpec> author_flags(const std::string& device_name) {
  std::string name = device_name.substr(0, kStoreNameMax);
  for (char& c : name) {
    if (c == '/' || static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '_';
  }
  if (!check_store_name(name)) name = "device";
  std::vector<FlagSpec> table;
  add_general(table);
  add_volume(table, name);
  add_export(table);
  add_kernel(table);
  return table;
}

std::optional<FlagGroup> group_of_device_type(const std::string& device_type) {
  if (device_type == "file") return FlagGroup::kFile;
  if (device_type == "dedup") return FlagGroup::kDedup;
  if (device_type == "objstore") return FlagGroup::kObjstore;
  return std::nullopt;
}

}  // namespace usbd::daemon

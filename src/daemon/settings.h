// SPDX-License-Identifier: Apache-2.0
//
// From flags to settings: reads the command line, the environment and the configuration file, and
// sorts their values into what each part of the daemon takes.

#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/limits.h"
#include "daemon/flags.h"
#include "daemon/logging.h"
#include "usbd/serve.h"

namespace usbd::daemon {

/// The flags of -dev-type=objstore, each named as its flag.
struct ObjstoreSettings {
  std::string kind = "s3";
  /// As given; empty: the default.
  std::string cfg = {};
  /// Empty: the store name.
  std::string container = {};
  /// As crypto::load_key() takes it. Empty: the file key.aes of the directory.
  std::string key_source = {};
  std::string cipher = "aes-gcm";
  bool cipher_given = false;
  std::string codec = "lz4";
  uint64_t object_bytes = 64U << 20;
  /// Bytes stored for each live one, above which objects are cleaned.
  double gc_target = 1.40;
  /// 0: by the volume's size.
  uint64_t journal_bytes = 0;
  std::chrono::nanoseconds flush_every = std::chrono::seconds(10);
  std::chrono::nanoseconds dirty_age_max = std::chrono::minutes(5);
  std::chrono::nanoseconds timeout{0};
  /// 0: the default.
  unsigned uploads_max = 0;
  /// Of blocks read, on the local disk; 0: up to the volume's size. Units: bytes.
  uint64_t cache_bytes = 0;
  uint64_t map_bytes = limits::kMapMemory;
  bool keeps_cache = false;
  bool flushes_remotely = false;
  bool takeover = false;
  bool fencing = true;
};

/// Which volume to open, or to make.
struct VolumeSettings {
  enum class Create : uint8_t { kAuto, kNever, kOnly };

  /// A value of -dev-type.
  std::string type = "mem";
  std::string directory = "./";
  std::string name = "test-lun";
  /// Units: bytes, not rounded yet.
  uint64_t size = 0;
  bool size_given = false;
  Create create = Create::kAuto;
  uint32_t block_size = 4096;
  bool block_size_given = false;
  bool read_only = false;
  bool direct = false;
  ObjstoreSettings objstore = {};
};

/// What concerns the process.
struct ProcessSettings {
  LogFormat log_format = LogFormat::kText;
  std::string pidfile = {};
  bool lock_memory = false;
  /// How long the last of the stop may take, from the end of ServeOptions::stop_timeout.
  std::chrono::nanoseconds close_timeout = limits::kCloseTimeout;
};

struct Settings {
  VolumeSettings volume;
  ServeOptions serve;
  ProcessSettings process;
};

/// Adds the environment and the configuration file to what the command line gave.
/// Units:  `environment` as parse_environment() takes it.
/// Errors: kInvalid. Returns warnings, to be logged once logging is set up.
Result<std::vector<std::string>> read_sources(std::span<const std::string> environment,
                                              FlagValues& values);

/// Sorts the values of the daemon's table, or of an author's. Checks what concerns several flags
/// or the system: that -store-dir exists, that -export and DEVICE go together, -objstore-cfg.
/// Errors: kInvalid, naming the flags.
Result<Settings> to_settings(const FlagValues& values);

/// One warning for each flag that was given and has no effect: it is for another device type than
/// `device_type`, or for what this build lacks.
std::vector<std::string> ignored_flags(const FlagValues& values, const std::string& device_type);

}  // namespace usbd::daemon

// SPDX-License-Identifier: Apache-2.0
//
// What `-export` and the device argument name: where a volume is to be served.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "frontends/nbd/uri.h"
#include "usbd/result.h"

namespace usbd::daemon {

struct ExportSpec {
  enum class Kind : uint8_t { kAuto, kNbd, kUblk, kUnix, kTcp, kNone };

  Kind kind = Kind::kAuto;
  /// kUnix, kTcp: where.
  nbd::Endpoint endpoint = {};

  friend bool operator==(const ExportSpec&, const ExportSpec&) = default;
};

/// Reads `auto`, `nbd`, `ublk`, `unix:PATH`, `tcp:HOST:PORT` (`tcp:[ADDRESS]:PORT` for IPv6; port
/// 0: any free one) or `none`. Errors: kInvalid; the context says what is allowed.
Result<ExportSpec> parse_export(std::string_view text);

/// The way `spec` is written on a command line.
std::string to_text(const ExportSpec& spec);

/// A kernel device that somebody named.
struct DeviceName {
  /// kNbd or kUblk.
  ExportSpec::Kind driver = ExportSpec::Kind::kNbd;
  uint32_t index = 0;
  /// "/dev/nbd0"
  std::string path = {};
};

/// Reads "/dev/nbd0", "nbd0" or "/dev/ublkb0".
/// Errors: kInvalid.
Result<DeviceName> parse_device_name(std::string_view text);

/// What is to be served where, from all `-export` values and the device argument (may be empty): a
/// named device adds its driver, and takes the place of `auto`.
/// Errors: kInvalid: `none` or `auto` beside others, the same one twice, or a device whose driver
///         the exports do not use.
Result<std::vector<ExportSpec>> plan_exports(const std::vector<std::string>& exports,
                                             const std::string& device);

}  // namespace usbd::daemon

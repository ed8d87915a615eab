// SPDX-License-Identifier: Apache-2.0
//
// The texts of -help and -version. -help teaches: what the program does, examples that can be
// pasted, how to use what is served, and every flag by device type.

#pragma once

#include <span>
#include <string>

#include "daemon/flags.h"

namespace usbd::daemon {

struct HelpText {
  /// How the program was called, such as "usbdsrvd".
  std::string program = {};
  /// Whether it is the daemon, which opens devices by type, rather than an author's program.
  bool is_daemon = true;
};

/// The whole text of -help, with a newline at its end.
std::string help_text(const HelpText& about, std::span<const FlagSpec> specs);

/// One line of -version, with a newline.
std::string version_text(const std::string& program);

}  // namespace usbd::daemon

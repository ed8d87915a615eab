// SPDX-License-Identifier: Apache-2.0
//
// Every flag there is. Adding one is one entry here; docs and -help follow from it.

#pragma once

#include <string>
#include <vector>

#include "daemon/flags.h"

namespace usbd::daemon {

/// The flags of the daemon.
std::vector<FlagSpec> daemon_flags();

/// The flags of a program that serves its author's own device: those of the daemon that are not
/// about which device to open. `device_name` is the default of -store-name, made fit for it.
std::vector<FlagSpec> author_flags(const std::string& device_name);

/// The group of a device type's own flags. Empty: it has none (mem).
/// Range: `device_type` is a value of -dev-type.
std::optional<FlagGroup> group_of_device_type(const std::string& device_type);

}  // namespace usbd::daemon

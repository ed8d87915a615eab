// SPDX-License-Identifier: Apache-2.0
//
// Who uses a kernel nbd device: mounts, swap, devices stacked on it, and processes that have its
// node open. Asked before a device is disconnected, and told to the user when it cannot be.
//
// The kernel itself knows only exclusive users (an O_EXCL open fails); a program that merely has
// the node open is found in /proc, as far as this process may look there.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "frontends/nbd/kernel/sysfs.h"
#include "usbd/result.h"

namespace usbd::nbd {

struct HolderOptions {
  Sysfs sysfs;
  std::string proc_root = "/proc";
  /// Where the nodes are.
  std::string device_directory = "/dev";
};

/// Mount points of file systems on the device or on a partition of it, in mount order.
std::vector<std::string> mount_points(uint32_t index, const HolderOptions& options);

/// One phrase for each user, such as "mounted on /mnt" or "open in process 17 (dd)"; empty: none
/// was found. This process itself does not count.
std::vector<std::string> holders(uint32_t index, const HolderOptions& options);

/// The commands that make durable what is written to the device: to the file systems mounted on it,
/// and to the node. For SyncProcess.
std::vector<std::vector<std::string>> sync_commands(uint32_t index, const HolderOptions& options);

}  // namespace usbd::nbd

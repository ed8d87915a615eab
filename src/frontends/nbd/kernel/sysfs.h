// SPDX-License-Identifier: Apache-2.0
//
// What the kernel says of its nbd devices in sysfs, and how such a device is named. Looking here
// touches no device: opening a node would already count as a use of it.
//
// Ref: linux drivers/block/nbd.c, pid_attr and backend_attr: both exist only while a device is
// connected, whether by netlink or by ioctl.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "usbd/result.h"

namespace usbd::nbd {

/// The index in "/dev/nbd5". Partitions, leading zeros and other paths are refused.
/// Errors: kInvalid, with what is allowed.
Result<uint32_t> parse_device_path(std::string_view path);

class Sysfs {
 public:
  explicit Sysfs(std::string root = "/sys") : root_(std::move(root)) {}

  /// Whether the kernel has the nbd driver, loaded or built in.
  [[nodiscard]] bool has_driver() const;
  /// Every nbd device there is, used or not, in ascending order.
  [[nodiscard]] std::vector<uint32_t> indices() const;
  [[nodiscard]] bool exists(uint32_t index) const;
  /// The task that connected the device; empty: it is not connected.
  [[nodiscard]] std::optional<pid_t> pid(uint32_t index) const;
  /// The identifier given when the device was connected; empty if there was none.
  [[nodiscard]] std::string backend(uint32_t index) const;
  /// Units: bytes. Errors: kNotFound, kIo (what stands there is no size).
  [[nodiscard]] Result<uint64_t> size(uint32_t index) const;
  /// The device's and its partitions' numbers, as "43:0".
  [[nodiscard]] std::vector<std::string> device_numbers(uint32_t index) const;
  /// Block devices made on top of the device or a partition of it, as "dm-0".
  [[nodiscard]] std::vector<std::string> stacked_devices(uint32_t index) const;

 private:
  [[nodiscard]] std::string directory(uint32_t index) const;
  /// The device's directory and those of its partitions.
  [[nodiscard]] std::vector<std::string> all_directories(uint32_t index) const;

  const std::string root_;
};

}  // namespace usbd::nbd

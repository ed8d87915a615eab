// SPDX-License-Identifier: Apache-2.0
//
// The old way to connect a kernel nbd device, for kernels (or network namespaces) without the
// netlink family. What it cannot do: a dead socket cannot be replaced, so the device ends with its
// socket and with this process. Therefore it gets a single socket and no timeout: a device that
// stalls is waited for, without end.
//
// Whoever sets the first socket owns the device's set-up; for anybody else that call is EBUSY. So
// it is the claim, made before anything else is changed, and NBD_CLEAR_SOCK is sent only to a
// device whose claim is ours.
//
// Ref: linux drivers/block/nbd.c, nbd_add_socket, nbd_start_device_ioctl, nbd_xmit_timeout.

#pragma once

#include <memory>
#include <string>

#include "frontends/nbd/kernel/driver.h"
#include "frontends/nbd/kernel/sysfs.h"

namespace usbd::nbd {

struct IoctlOptions {
  Sysfs sysfs;
  /// Where the nodes are.
  std::string device_directory = "/dev";
};

std::unique_ptr<KernelDriver> make_ioctl_driver(IoctlOptions options);

}  // namespace usbd::nbd

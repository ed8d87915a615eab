// SPDX-License-Identifier: Apache-2.0
//
// Getting the kernel's nbd driver in place: it is built in, loaded already, or loaded here.

#pragma once

#include <string>

#include "usbd/result.h"

namespace usbd::nbd {

struct ModuleOptions {
  /// How many devices the module makes at once when it is loaded here. Ref: module parameter
  /// nbds_max.
  unsigned devices_max = 32;
  std::string sysfs_root = "/sys";
  /// Where the running kernel's modules are; empty: /lib/modules/<release>.
  std::string modules_directory;
};

enum class ModuleState : uint8_t {
  kPresent,  ///< It was there before, built in or loaded by somebody else.
  kLoaded,   ///< It was loaded by this call.
};

/// Makes sure that the kernel has the nbd driver.
/// Errors: kNotFound: this kernel has no such module; kPerm: it may not be loaded by this process;
///         else what the kernel said. Each says what to do.
Result<ModuleState> ensure_nbd_module(const ModuleOptions& options);

}  // namespace usbd::nbd

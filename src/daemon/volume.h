// SPDX-License-Identifier: Apache-2.0
//
// Opening the volume that the settings describe. A table says which function opens which type of
// device; another device is another line in it.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "async/runtime.h"
#include "daemon/settings.h"
#include "usbd/device.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::daemon {

struct OpenedVolume {
  std::unique_ptr<Device> device = nullptr;
  /// For the start-up message: what stands behind the volume.
  std::string description = {};
  /// Names the volume across restarts, so that a kernel device can be told it is the same. Empty:
  /// it does not outlive the process.
  std::string id = {};
};

/// Makes the task that opens a volume; called on one of the runtime's loops.
/// Lifetime: the runtime outlives the device.
using VolumeOpener = std::function<Task<Result<OpenedVolume>>(Runtime&)>;

/// Opens, or makes, the volume.
/// Threads: a loop's.
/// Errors:  kNotSupported: this build has no device of that type; what the device said.
Task<Result<OpenedVolume>> open_volume(VolumeSettings settings, Runtime& runtime);

/// `size` rounded up to whole blocks. Errors: kOverflow.
Result<uint64_t> round_up(uint64_t size, uint32_t block_size);

}  // namespace usbd::daemon

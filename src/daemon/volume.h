// SPDX-License-Identifier: Apache-2.0
//
// Opening the volume that the settings describe. A table says which function opens which type of
// device; another device is another line in it.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "async/kernel_file.h"
#include "async/runtime.h"
#include "daemon/settings.h"
#include "usbd/device.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::daemon {

/// How a volume ended that is kept elsewhere.
enum class Ending : uint8_t {
  kComplete,
  kUnpublished,  ///< A part of it is only in the local journal.
  kTakenOver,    ///< Another daemon has it.
};

/// What the daemon asks of a volume that is kept elsewhere, beyond what a Device has. An empty
/// function: nothing. Lifetime: all end with the device. Threads: any.
struct VolumeUpkeep {
  /// Has its argument called, from any thread, once the volume has been taken over by another
  /// daemon.
  std::function<void(std::function<void()>)> on_taken_over = {};
  /// Ends what the device waits for, as far as nothing that was flushed gets lost by it.
  std::function<void()> hurry = {};
  /// What close() waits for, as a phrase.
  std::function<std::string()> waits_for = {};
  /// How it ended. Order: after close().
  std::function<Ending()> ending = {};
};

struct OpenedVolume {
  std::unique_ptr<Device> device = nullptr;
  /// For the start-up message: what stands behind the volume.
  std::string description = {};
  /// Names the volume across restarts, so that a kernel device can be told it is the same. Empty:
  /// it does not outlive the process.
  std::string id = {};
  VolumeUpkeep upkeep = {};
};

/// Makes the task that opens a volume; called on one of the runtime's loops.
/// Lifetime: the runtime outlives the device.
using VolumeOpener = std::function<Task<Result<OpenedVolume>>(Runtime&)>;

/// Opens, or makes, the volume.
/// Threads: a loop's.
/// Errors:  kNotSupported: this build has no device of that type; what the device said.
Task<Result<OpenedVolume>> open_volume(VolumeSettings settings, Runtime& runtime);

CreatePolicy policy_of(VolumeSettings::Create create);

/// `size` rounded up to whole blocks. Errors: kOverflow.
Result<uint64_t> round_up(uint64_t size, uint32_t block_size);

}  // namespace usbd::daemon

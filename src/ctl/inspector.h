// SPDX-License-Identifier: Apache-2.0
//
// VolumeInspector: looks at a volume of one type of device from outside, without serving it and
// without changing anything. A type of device has a folder here with its inspector, and a line in
// the table of inspector.cc; nothing else knows which types there are.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "async/runtime.h"
#include "ctl/console.h"
#include "daemon/settings.h"
#include "usbd/result.h"
#include "usbd/task.h"

namespace usbd::ctl {

enum class Verdict : uint8_t { kSound, kDamaged };

/// Threads: one loop's; one call at a time. Nothing is written but to the console.
class VolumeInspector {
 public:
  virtual ~VolumeInspector() = default;

  /// Prints what the volume is, how far it is published, and what is only on this host.
  /// Errors: what kept it from that; what could be found out has been printed.
  virtual Task<Result<void>> show(Console& console) = 0;

  /// Prints every piece that the volume is stored in, and what is not its own among them.
  /// Errors: as show().
  virtual Task<Result<void>> list_objects(Console& console) = 0;

  /// Proves all that the volume has stored, and prints what is damaged.
  /// Errors: it could not be checked to its end. Damage is none.
  virtual Task<Result<Verdict>> check(Console& console) = 0;

  /// Gives everything up; the last call.
  virtual Task<void> close() = 0;
};

/// Whether volumes of this type can be looked at. Errors: kNotSupported, naming those that can.
Result<void> check_inspectable(const std::string& device_type);

/// Opens an inspector for the volume that the flags name. Threads: a loop's.
/// Lifetime: the runtime outlives the inspector.
/// Errors:   kNotSupported, as above; what kept it from reaching the volume.
Task<Result<std::unique_ptr<VolumeInspector>>> open_inspector(daemon::VolumeSettings settings,
                                                              Runtime& runtime);

}  // namespace usbd::ctl

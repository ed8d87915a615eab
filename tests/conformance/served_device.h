// SPDX-License-Identifier: Apache-2.0
//
// ServedDevice: an opened device behind core's Export, and the way one operation goes through it,
// as a frontend would take it. What the two kinds of device subjects share.

#pragma once

#include <memory>

#include "core/export.h"
#include "usbd/testing/conformance.h"
#include "usbd/testing/subject.h"

namespace usbd::testing {

/// Which of the ways that a frontend has is tried first. All end at the same device.
enum class Path : uint8_t { kTask, kClaimedTask, kTry, kDirect };
inline constexpr uint64_t kPaths = 4;

struct ServedDevice {
  ServedDevice(std::unique_ptr<Device> opened, unsigned loops);

  [[nodiscard]] SubjectTraits traits(const DeviceUnderTest& test, unsigned connections) const;

  /// Does `op` and stores its answer. Lifetime: `op` until the task has finished.
  Task<void> carry_out(Operation& op, Path path);
  /// Closes the device; the last call.
  Task<Result<void>> close() { return device->close(); }

  std::unique_ptr<Device> device;
  std::unique_ptr<Export> served;

 private:
  Task<Result<void>> read(Operation& op, Path path);
  Task<Result<void>> change(Operation& op, Request request, Path path);
  Task<Result<void>> list_extents(Operation& op);
};

}  // namespace usbd::testing

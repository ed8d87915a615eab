// SPDX-License-Identifier: Apache-2.0
//
// One who waits in a call of a Volume: a node in that coroutine's frame.

#pragma once

#include <cstdint>
#include <optional>

#include "devices/objstore/volume.h"
#include "usbd/loop.h"

namespace usbd::objstore {

struct Volume::Waiter {
  explicit Waiter(Loop& loop) : home(loop) {}

  Loop& home;
  ResumeWork resume;
  Waiter* next = nullptr;
  /// Of flushers: up to which number all must be published, and until when they wait.
  uint64_t number = 0;
  Nanos deadline = Nanos::max();
  /// Set before it is resumed.
  std::optional<Error> error;
};

}  // namespace usbd::objstore

// SPDX-License-Identifier: Apache-2.0
//
// One who waits in Journal::sync(): a node in that coroutine's frame.

#pragma once

#include <cstdint>
#include <optional>

#include "journal/journal.h"
#include "usbd/loop.h"

namespace usbd::journal {

struct Journal::SyncWaiter {
  explicit SyncWaiter(Loop& loop) : home(loop) {}

  Loop& home;
  ResumeWork resume;
  SyncWaiter* next = nullptr;
  /// The record up to which all must be durable.
  uint64_t ordinal = 0;
  /// Set before it is resumed.
  std::optional<Error> error;
};

}  // namespace usbd::journal

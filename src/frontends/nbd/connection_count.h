// SPDX-License-Identifier: Apache-2.0
//
// ConnectionCount: how many connections a server has on all its loops, and how to wait until there
// are none.

#pragma once

#include <atomic>
#include <stop_token>

#include "usbd/loop.h"
#include "usbd/task.h"

namespace usbd::nbd {

/// Threads: any, but for wait_for_none().
class ConnectionCount {
 public:
  /// Counts one more, which remove() will take back. False: close_door() was called, nothing is
  /// counted.
  [[nodiscard]] bool add();
  void remove();
  /// From now on add() counts nothing, so that the number only falls.
  void close_door() { closed_.store(true); }

  [[nodiscard]] unsigned total() const { return total_.load(); }

  /// Waits until there are none, at most for `timeout` and until `hurry` is requested; true: there
  /// are none.
  /// Order:   after close_door(). Threads: one at a time, on the loop it is awaited on.
  [[nodiscard]] Task<bool> wait_for_none(Nanos timeout, std::stop_token hurry = {});

 private:
  std::atomic<unsigned> total_{0};
  std::atomic<bool> closed_{false};
  std::stop_source none_;
};

}  // namespace usbd::nbd

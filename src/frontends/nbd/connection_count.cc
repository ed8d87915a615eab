// SPDX-License-Identifier: Apache-2.0
//
// The count and the closed door are looked at in opposite orders by whoever enters and whoever
// waits (sequentially consistent), so that one of the two sees the other.

#include "frontends/nbd/connection_count.h"

#include <utility>

#include "base/assert.h"

namespace usbd::nbd {

bool ConnectionCount::add() {
  total_.fetch_add(1);
  if (!closed_.load()) return true;
  remove();
  return false;
}

void ConnectionCount::remove() {
  const unsigned before = total_.fetch_sub(1);
  USBD_ASSERT(before > 0);
  if (before == 1 && closed_.load()) none_.request_stop();
}

Task<bool> ConnectionCount::wait_for_none(Nanos timeout, std::stop_token hurry) {
  USBD_ASSERT(closed_.load());
  std::stop_source over;
  const auto wake = [&over] { over.request_stop(); };
  const std::stop_callback on_none(none_.get_token(), wake);
  const std::stop_callback on_hurry(std::move(hurry), wake);
  if (total_.load() > 0) co_await Loop::current().sleep_for(timeout, over.get_token());
  co_return total_.load() == 0;
}

}  // namespace usbd::nbd

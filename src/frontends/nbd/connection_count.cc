// SPDX-License-Identifier: Apache-2.0
//
// The count and the closed door are looked at in opposite orders by whoever enters and whoever
// waits (sequentially consistent), so that one of the two sees the other.

#include "frontends/nbd/connection_count.h"

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

Task<bool> ConnectionCount::wait_for_none(Nanos timeout) {
  USBD_ASSERT(closed_.load());
  if (total_.load() > 0) co_await Loop::current().sleep_for(timeout, none_.get_token());
  co_return total_.load() == 0;
}

}  // namespace usbd::nbd

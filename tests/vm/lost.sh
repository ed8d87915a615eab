#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Somebody else disconnects our device: the daemon says so and ends by itself.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"
need nbd-client

ended() { ! alive "$daemon"; }

attach volume -dev-type=mem -store-size=16MiB
nbd-client -d "$device" >/dev/null 2>&1
wait_for 30 ended
grep -q 'somebody has disconnected the device' volume.log || { cat volume.log; fail "no reason"; }
not_connected "$device" || fail "$device is still connected"

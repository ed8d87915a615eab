# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# For checks with an object store outside: Ceph's S3 gateway, which the guest reaches at
# 127.0.0.1:9000 (run makes that so if tests/store/s3_served.sh has started one). Source it in place
# of lib.sh.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"
[[ -d /sys/class/net/eth0 ]] || skip "no store is served; start this by tests/store/s3_served.sh"

# serve_volume DIRECTORY [usbdsrvd OPTION...]: a daemon with an objstore volume on /dev/nbd0;
# returns when it is ready, with $daemon and $log.
serve_volume() {
  local began=$EPOCHSECONDS
  log=daemon.$((${served:=0} + 1)).log
  served=$((served + 1))
  start "$log" env -u USBD_BIN_DIR usbdsrvd -dev-type=objstore -store-dir="$1" "${@:2}"
  daemon=$last_pid
  until grep -q 'is processing requests for "/dev/nbd0"' "$log"; do
    alive "$daemon" || { cat "$log"; fail "usbdsrvd ended before it was ready: $*"; }
    ((EPOCHSECONDS - began < 120)) || { cat "$log"; fail "usbdsrvd is not ready: $*"; }
    sleep 0.1
  done
}

# ended PID [EXPECTED_STATUS]: waits for the end of the process.
ended() {
  local status=0
  wait "$1" || status=$?
  [[ $status == "${2:-0}" ]] || { cat "$log"; fail "status $status after SIGINT, not ${2:-0}"; }
}

# interrupt PID [EXPECTED_STATUS]: Ctrl+C, and the end of the process.
interrupt() {
  kill -INT "$1"
  ended "$@"
}

# An outage: nothing gets through any more, and nobody says so.
store_leaves() { ip link set eth0 down; }
store_returns() { ip link set eth0 up; }

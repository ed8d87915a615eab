#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A device that another server's client has connected is refused, by either driver, and goes on
# working while we try; without a name the next free one is taken.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"
need nbdkit nbd-client
modprobe nbd

# refused DRIVER: our daemon must not get /dev/nbd0, and must say why.
refused() {
  local status=0
  usbdsrvd -dev-type=mem -store-size=16MiB -nbd-driver="$1" /dev/nbd0 >refused.log 2>&1 || status=$?
  same "$status" 1 "exit status with a busy device"
  grep -q '/dev/nbd0 is in use by process' refused.log || { cat refused.log; fail "no reason"; }
}

# churn COUNT_FILE: writes and reads back through the page cache's back until told to stop.
churn() {
  local round=0
  while [[ ! -e churn.stop ]]; do
    head -c 65536 /dev/urandom >block
    dd if=block of=/dev/nbd0 bs=64k seek=$((round % 200)) oflag=direct conv=notrunc status=none
    dd if=/dev/nbd0 bs=64k skip=$((round % 200)) count=1 iflag=direct status=none | cmp -s - block
    echo $((++round)) >"$1.new"
    mv "$1.new" "$1"
  done
}
rounds_reach() { [[ -s rounds ]] && (($(<rounds) >= $1)); }

start nbdkit.log nbdkit -f -U "$PWD/other" memory 16M
wait_for 10 test -S other
for interface in "" -nonetlink; do
  # shellcheck disable=SC2086 # no word when empty
  nbd-client -unix other /dev/nbd0 $interface -b 4096 >client.log 2>&1 || { cat client.log; fail; }
  wait_for 10 connected /dev/nbd0
  owner=$(</sys/block/nbd0/pid)
  rm -f churn.stop rounds
  (set -e; churn rounds) &
  churner=$!
  started+=("$churner")
  wait_for 30 rounds_reach 3
  for driver in netlink ioctl; do refused "$driver"; done
  attach free -dev-type=mem -store-size=16MiB
  [[ $device != /dev/nbd0 ]] || fail "we were given somebody else's device"
  wait_for 60 rounds_reach $(($(<rounds) + 5))
  touch churn.stop
  wait "$churner" || fail "the other server's device stopped working"
  same "$(</sys/block/nbd0/pid)" "$owner" "owner of /dev/nbd0"
  stop "$daemon"
  echo "connected by nbd-client ${interface:-by netlink}: refused twice, $(<rounds) rounds of I/O"
  nbd-client -d /dev/nbd0 >client.log 2>&1 || { cat client.log; fail; }
  wait_for 10 not_connected /dev/nbd0
done

# Merely open, and connected by nobody: netlink would get EBUSY without a reason.
sleep 60 <>/dev/nbd0 &
started+=($!)
status=0
usbdsrvd -dev-type=mem -store-size=16MiB -nbd-driver=netlink /dev/nbd0 >open.log 2>&1 || status=$?
same "$status" 1 "exit status with an open device"
grep -q 'open in process' open.log || { cat open.log; fail "it does not say who has it open"; }
no_kernel_errors

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A device that hangs for more than three request timeouts under a mounted filesystem: the kernel
# shuts the sockets, the daemon replaces them, and no program sees an error.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"
timeout=2
stall=$((3 * timeout + 2))

attach volume -dev-type=file -store-size=256MiB
make_filesystem ext4 "$device"
stop "$daemon"

attach volume -dev-type=file -nbd-timeout="${timeout}s" -nbd-dead-timeout=60s -connections=2 \
  -layer="delay:all=stall,after=6s,for=${stall}s"
mkdir mnt
mount "$device" mnt
longest=0
rounds=0
began=$EPOCHSECONDS
while ((EPOCHSECONDS - began < 12 + stall)); do
  before=$EPOCHSECONDS
  rounds=$((rounds + 1))
  head -c 200000 /dev/urandom >expected
  dd if=expected of="mnt/$rounds" bs=64k conv=fsync status=none || fail "write $rounds failed"
  cp expected "kept.$rounds"
  took=$((EPOCHSECONDS - before))
  longest=$((took > longest ? took : longest))
done
((longest >= 2 * timeout)) || fail "the stall was not felt: the longest write took $longest s"
timeouts=$(dmesg | grep -c 'Connection timed out' || true)
reconnects=$(dmesg | grep -c 'reconnected socket' || true)
((timeouts >= 1 && reconnects >= 1)) || fail "$timeouts timeouts, $reconnects reconnects"
echo "$rounds writes with fsync, the longest took $longest s;" \
  "$timeouts timeouts, $reconnects sockets replaced, $(count volume errors) errors"
! grep ' error: ' volume.log || fail "the daemon logged errors"
same "$(count volume errors)" 0 "requests that the daemon failed"
umount mnt
drop_caches
check_filesystem ext4 "$device"
mount -o ro "$device" mnt
for ((i = 1; i <= rounds; ++i)); do
  cmp "mnt/$i" "kept.$i" || fail "file $i differs"
done
umount mnt
stop "$daemon"
no_kernel_errors

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Partitions on a kernel device are seen by the kernel, and a mount of one holds the device.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"
need sfdisk

attach volume -dev-type=mem -store-size=256MiB -stop-timeout=60s
echo ',,L' | sfdisk -q --label gpt "$device"
wait_for 10 test -b "${device}p1"
make_filesystem ext4 "${device}p1"
mkdir mnt
mount "${device}p1" mnt
echo text >mnt/file
kill -TERM "$daemon"
held() { grep -q "mounted on $PWD/mnt" volume.log; }
wait_for 20 held
umount mnt
wait "$daemon" || fail "exit status $?"
not_connected "$device" || fail "$device is still connected"
no_kernel_errors

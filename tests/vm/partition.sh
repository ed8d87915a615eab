#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Partitions on a kernel device are seen by the kernel, and a mount of one holds the device.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"

# make_partition DEVICE: a partition table (MBR) with one partition of 32 MiB from 1 MiB on. The
# table counts blocks of 4096 bytes, little-endian: 256 (start), 8192 (count); type 0x83 is Linux.
make_partition() {
  printf '\0\0\0\0\x83\0\0\0\0\1\0\0\0\x20\0\0' |
    dd of="$1" bs=1 seek=446 conv=notrunc status=none
  printf '\x55\xaa' | dd of="$1" bs=1 seek=510 conv=notrunc,fsync status=none
  blockdev --rereadpt "$1"
}

attach volume -dev-type=mem -store-size=256MiB -stop-timeout=60s
make_partition "$device"
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

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fsync reaches the device as FLUSH: of a program on a mounted filesystem, and of one that writes to
# the node; the kernel is told of the volatile cache, and of trim, zeroing and FUA.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"

attach volume -dev-type=file -store-size=64MiB
queue=/sys/block/${device##*/}/queue
same "$(<"$queue/write_cache")" "write back" "write cache"
same "$(<"$queue/fua")" 1 "FUA"
same "$(<"$queue/logical_block_size")" 4096 "logical block size"
(($(<"$queue/discard_max_bytes") > 0)) || fail "the kernel does not know of trim"
(($(<"$queue/write_zeroes_max_bytes") > 0)) || fail "the kernel does not know of write_zeroes"

before=$(count volume flush)
dd if=/dev/zero of="$device" bs=4k count=1 conv=fsync status=none
after=$(count volume flush)
((after > before)) || fail "fsync of the node made no FLUSH ($before before, $after after)"
echo "fsync of the node: FLUSH $before -> $after"

make_filesystem ext4 "$device"
mkdir mnt
# No flushes of ext4's own: neither its timed commits nor the zeroing of its inode tables.
mount -o commit=3600,noinit_itable "$device" mnt
before=$(count volume flush)
for i in {1..20}; do dd if=/dev/zero of="mnt/$i" bs=4k count=1 conv=fsync status=none; done
after=$(count volume flush)
((after - before >= 20)) || fail "20 fsyncs made only $((after - before)) FLUSHes"
echo "20 fsyncs on ext4: FLUSH $before -> $after"

before=$(count volume flush)
dd if=/dev/urandom of=mnt/big bs=64k count=64 status=none
same "$(count volume flush)" "$before" "FLUSHes of a write without fsync"

before=$(count volume trim)
fallocate -l 8MiB mnt/hole && rm mnt/hole && sync -f mnt && fstrim mnt
(($(count volume trim) > before)) || fail "fstrim made no TRIM"
umount mnt
before=$(count volume write_zeroes)
blkdiscard --force --zeroout "$device"
(($(count volume write_zeroes) > before)) || fail "zeroing the node made no WRITE_ZEROES"
cmp -n $((64 << 20)) "$device" /dev/zero || fail "zeroed bytes do not read as zeros"
stop "$daemon"
no_kernel_errors

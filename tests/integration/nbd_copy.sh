#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# nbdcopy and qemu-img move whole images to and from volumes, and qemu-io patterns in them.
# Timeout: 180
# shellcheck source=tests/integration/lib.sh
. "$USBD_SOURCE_DIR/tests/integration/lib.sh"
need usbdsrvd nbdcopy qemu-img qemu-io

mem="nbd+unix:///?socket=$PWD/mem.sock"
file="nbd+unix:///?socket=$PWD/file.sock"
serve mem.sock -dev-type=mem -store-size=256MiB
mem_pid=$last_pid
serve file.sock -dev-type=file -store-dir=. -store-name=volume -store-size=256MiB
file_pid=$last_pid

echo "an image with data, zeros and holes"
truncate -s 256M image
for place in 0 1 2 77 130 255; do
  dd if=/dev/urandom of=image bs=1M count=1 seek=$place conv=notrunc status=none
done
dd if=/dev/zero of=image bs=1M count=3 seek=10 conv=notrunc status=none

echo "nbdcopy: to mem, to file, and back"
nbdcopy --connections=4 image "$mem"
nbdcopy --connections=4 "$mem" "$file"
nbdcopy --connections=4 --flush "$file" back
cmp image back
cmp image volume.bin
used=$(($(stat -c '%b * %B' volume.bin)))
((used <= 16 << 20)) || fail "holes were not kept: the volume takes $used bytes"

echo "nbdcopy: without structured replies or block status, and synchronously"
nbdcopy --allocated --no-extents --synchronous "$mem" plain
cmp image plain

echo "qemu-img: compare and convert"
qemu-img compare -f raw -F raw image "$file"
qemu-img convert -f raw -O qcow2 "$file" image.qcow2
qemu-img compare -f qcow2 -F raw image.qcow2 "$mem"
dd if=/dev/urandom of=image bs=64k count=3 seek=1000 conv=notrunc status=none
if qemu-img compare -f raw -F raw image "$mem"; then fail "a difference was not seen"; fi
qemu-img convert -n -f raw -O raw image "$mem"
qemu-img compare -f raw -F raw image "$mem"

echo "qemu-io: patterns, unaligned, discarded, zeroed"
for uri in "$mem" "$file"; do
  qemu-io -f raw "$uri" -c 'write -P 0xa5 1M 3M' -c 'read -P 0xa5 1M 3M' \
    -c 'write -P 0x11 1000001 7777' -c 'read -P 0x11 1000001 7777' \
    -c 'write -f -P 0x22 8M 64k' -c 'read -P 0x22 8M 64k' \
    -c 'discard 1M 1M' -c 'read -P 0 1M 1M' -c 'read -P 0xa5 2M 2M' \
    -c 'write -z 2M 64k' -c 'write -z -u 3M 64k' -c 'read -P 0 2M 64k' -c 'read -P 0 3M 64k' \
    -c 'read -P 0xa5 3211264 64k' -c flush >qemu-io.log || fail "$(cat qemu-io.log)"
  if grep -iE 'fail|error|verification' qemu-io.log; then fail "$uri"; fi
done

stop "$mem_pid"
stop "$file_pid"

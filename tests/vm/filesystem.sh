#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# filesystem TYPE [DRIVER]: a filesystem's life on a `file` volume: made, mounted, a real tree
# copied to it, synced, unmounted, the daemon stopped by SIGTERM and started again on the same
# volume: every checksum agrees. Then all is deleted, and fstrim gives the file's space back.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"
type=$1
driver=${2:-netlink}

options=(-dev-type=file -store-size=1GiB -nbd-driver="$driver")
attach volume "${options[@]}"
grep -q "attached $device by $driver" volume.log || fail "not attached by $driver"
make_filesystem "$type" "$device"
mkdir mnt tree
mount "$device" mnt
unpack_tree tree
cp -a tree mnt/copy
sync -f mnt
echo "copied: $(count volume write) writes, $(count volume flush) flushes," \
  "volume takes $(disk_bytes volume.bin) bytes"
umount mnt
stop "$daemon"
not_connected "$device" || fail "$device is still connected after the daemon has stopped"
same "$(last_count volume errors)" 0 "errors"
rm -r tree

attach volume "${options[@]}"
check_filesystem "$type" "$device"
mount "$device" mnt
verify_tree mnt/copy
echo "verified: $(wc -l <"$share/tree.sums") files"

full=$(disk_bytes volume.bin)
rm -r mnt/copy
sync -f mnt
fstrim -v mnt
sync -f mnt
empty=$(disk_bytes volume.bin)
echo "fstrim: $full bytes before, $empty after, $(count volume trim) trims"
# The filesystem keeps its own structures; what the files took must be free again.
data=$(stat -c %s "$share/tree.tar")
((full - empty > data * 8 / 10)) || fail "fstrim gave back $((full - empty)) of $data bytes"
umount mnt
check_filesystem "$type" "$device"
stop "$daemon"
same "$(last_count volume errors)" 0 "errors"
no_kernel_errors

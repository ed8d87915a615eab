#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A first volume in S3 as a newcomer makes one, with nothing but the defaults: ext4 on it with a
# real tree; stopped; opened again from an empty directory that holds only the key; and the ways to
# end it all in another order.
. "$USBD_SOURCE_DIR/tests/vm/store.sh"

mkdir DIR
serve_volume DIR -store-name=tutorial-vol -store-size=10GiB
mkfs.ext4 -q /dev/nbd0
mkdir mnt
mount /dev/nbd0 mnt
chmod a+rw mnt
mount | grep nbd
echo "hello" >mnt/file
same "$(cat mnt/file)" hello "the file"
unpack_tree mnt/tree
ls -l DIR DIR/tutorial-vol.objstore
umount mnt
interrupt "$daemon"
same "$(tail -n 1 "$log" | grep -c 'terminated normally')" 1 "last line"

mkdir elsewhere
cp DIR/key.aes elsewhere/
rm -r DIR
serve_volume elsewhere -store-name=tutorial-vol
check_filesystem ext4 /dev/nbd0
mount /dev/nbd0 mnt
same "$(cat mnt/file)" hello "the file, elsewhere"
verify_tree mnt/tree
echo "verified elsewhere: $(wc -l <"$share/tree.sums") files"

# Ctrl+C of the daemon first: what is mounted is waited for.
echo "second" >mnt/second
kill -INT "$daemon"
sleep 3
alive "$daemon" || fail "the daemon ended under a mounted filesystem"
umount mnt
ended "$daemon"

# The store first: what is not published stays in the journal, and the status says so.
serve_volume elsewhere -store-name=tutorial-vol -stop-timeout=5s -close-timeout=5s
mount /dev/nbd0 mnt
same "$(cat mnt/second)" second "the second file"
store_leaves
echo "third" >mnt/third
umount mnt
interrupt "$daemon" 3
grep -q 'unpublished data' "$log" || { cat "$log"; fail "nothing was said of unpublished data"; }
store_returns
serve_volume elsewhere -store-name=tutorial-vol
mount -o ro /dev/nbd0 mnt
same "$(cat mnt/third)" third "the third file"
verify_tree mnt/tree
umount mnt
check_filesystem ext4 /dev/nbd0
interrupt "$daemon"
no_kernel_errors

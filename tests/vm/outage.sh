#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The store is away for more than ten request timeouts under a mounted filesystem, and more is
# written than the journal holds: writers wait, the kernel replaces its sockets, and no program sees
# an error; reads of what is local and the journal go on until it is full.
. "$USBD_SOURCE_DIR/tests/vm/store.sh"
timeout=2
away=$((10 * timeout + 4))

mkdir local
serve_volume local -store-name=outage-vol -store-size=1GiB -nbd-timeout="${timeout}s" \
  -nbd-dead-timeout=120s -connections=2 -objstore-journalsize=16MiB -objstore-objsize=4MiB \
  -objstore-flushevery=1s -objstore-maxdirtyage=10m
mkfs.ext4 -q /dev/nbd0
mkdir mnt
mount /dev/nbd0 mnt
head -c 1M /dev/urandom >small
head -c 48M /dev/urandom >large
dd if=small of=mnt/before bs=64k conv=fsync status=none

store_leaves
left=$EPOCHSECONDS
dd if=small of=mnt/during bs=64k conv=fsync status=none || fail "a write and fsync into the journal"
echo "written and synced while the store was away: $((EPOCHSECONDS - left)) s"
dd if=large of=mnt/large bs=64k conv=fsync status=none &
writer=$!
while ((EPOCHSECONDS - left < away)); do sleep 0.5; done
alive "$writer" || fail "48 MiB went into a journal of 16 MiB while the store was away"
store_returns
wait "$writer" || fail "the writer saw an error"
echo "back after $away s; the writer ended $((EPOCHSECONDS - left - away)) s later;" \
  "$(dmesg | grep -c 'Connection timed out' || true) timeouts"
kill -USR1 "$daemon"; sleep 1; grep -v " info: " "$log" || true
umount mnt
drop_caches
check_filesystem ext4 /dev/nbd0
mount -o ro /dev/nbd0 mnt
cmp small mnt/before
cmp small mnt/during
cmp large mnt/large
umount mnt
stop "$daemon"
no_kernel_errors

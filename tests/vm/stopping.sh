#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# SIGTERM under a mounted filesystem: what is written is synced, the log says who holds the device,
# and the daemon goes once it is released; else it leaves the device waiting, and never disconnects
# it. The command that it then names removes it.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"
need nbd-client

held() { grep -q "mounted on $PWD/mnt" volume.log; }
ended() { ! alive "$daemon"; }

attach volume -dev-type=file -store-size=256MiB -stop-timeout=60s
make_filesystem ext4 "$device"
mkdir mnt
mount "$device" mnt
head -c 3000000 /dev/urandom >expected
cp expected mnt/file
kill -TERM "$daemon"
wait_for 20 held
alive "$daemon" || fail "the daemon is gone under its filesystem"
cp expected mnt/second || fail "the device does not work while the daemon waits"
umount mnt
wait_for 30 ended
wait "$daemon" || fail "released in time, yet exit status $?"
not_connected "$device" || fail "$device is still connected"
echo "released in time: detached"

attach volume -dev-type=file -stop-timeout=2s
mount "$device" mnt
cmp expected mnt/file
cmp expected mnt/second
cp expected mnt/third
kill -TERM "$daemon"
wait_for 60 ended
wait "$daemon" || true
connected "$device" || fail "a held device was disconnected under its filesystem"
command=$(grep -oE 'nbd-client -d /dev/nbd[0-9]+' volume.log | tail -n 1)
same "$command" "nbd-client -d $device" "the command that removes the device"
no_kernel_errors
$command >/dev/null 2>&1
umount -l mnt
wait_for 30 not_connected "$device"
echo "not released: left waiting, and removed by: $command"

# What was synced while the daemon waited is there.
attach volume -dev-type=file
mount "$device" mnt
cmp expected mnt/third
umount mnt
check_filesystem ext4 "$device"
stop "$daemon"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fio writes over four connections and verifies the checksum of every block, for each device.
# Timeout: 180
# shellcheck source=tests/integration/lib.sh
. "$USBD_SOURCE_DIR/tests/integration/lib.sh"
need usbdsrvd fio
fio --enghelp 2>/dev/null | grep -qw nbd || skip "fio has no nbd engine"

# check NAME DAEMON_OPTION...: serves a volume and has fio work on four parts of it at once.
check() {
  local name=$1
  shift
  serve "$name.sock" -store-size=256MiB "$@"
  local pid=$last_pid block
  for block in 512-4k 4k-4k 16k-1m; do
    fio --name="$name" --ioengine=nbd --uri="nbd+unix:///?socket=$PWD/$name.sock" \
      --numjobs=4 --group_reporting --offset_increment=64M --size=64M --io_size=24M \
      --rw=randwrite --bsrange="$block" --iodepth=32 --fsync=64 \
      --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=4711 \
      --output="$name.fio" || { cat "$name.fio"; fail "$name, blocks of $block"; }
    grep -q 'err= 0' "$name.fio" || { cat "$name.fio"; fail "$name, blocks of $block"; }
  done
  stop "$pid"
}

check mem -dev-type=mem
check file -dev-type=file -store-dir=. -store-name=volume

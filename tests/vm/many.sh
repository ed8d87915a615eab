#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# many [COUNT]: so many devices at once (20), more than the module makes by itself, each with bytes
# of its own; all of them released at the end.
. "$USBD_SOURCE_DIR/tests/vm/lib.sh"
count=${1:-20}

modprobe -r nbd 2>/dev/null || true
pids=()
devices=()
for ((i = 0; i < count; ++i)); do
  attach "many$i" -dev-type=mem -store-size=16MiB -nbd-max-devs=4 -connections=1
  pids+=("$daemon")
  devices+=("$device")
done
same "$(printf '%s\n' "${devices[@]}" | sort -u | wc -l)" "$count" "number of different devices"

pattern() { head -c 1000000 < <(yes "this is device $1"); }
for ((i = 0; i < count; ++i)); do
  pattern "$i" | dd of="${devices[i]}" bs=64k iflag=fullblock conv=fsync status=none
done
drop_caches
for ((i = 0; i < count; ++i)); do
  pattern "$i" | cmp -n 1000000 - "${devices[i]}" || fail "${devices[i]} has lost its bytes"
done
echo "$count devices at once: ${devices[0]} to ${devices[-1]}"

for pid in "${pids[@]}"; do kill -TERM "$pid"; done
for ((i = 0; i < count; ++i)); do
  wait "${pids[i]}" || fail "daemon $i ended with status $?"
  not_connected "${devices[i]}" || fail "${devices[i]} is still connected"
  [[ -b ${devices[i]} ]] || fail "the node ${devices[i]} is gone: it is the kernel's"
done
no_kernel_errors

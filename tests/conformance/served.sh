#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The conformance program against NBD servers: usbdsrvd with each device, and servers of others,
# which say whether the client and the model expect no more than the protocol promises.
. "$USBD_SOURCE_DIR/tests/integration/lib.sh"
need usbdsrvd usbd-conformance

# check ARGUMENT... : the suite over what listens at disk.sock.
check() {
  usbd-conformance -operations="${USBD_CONFORMANCE_OPERATIONS:-8000}" "$@" \
    "nbd+unix:///?socket=$PWD/disk.sock" || fail "usbd-conformance $*"
}

# listen PROGRAM ARGUMENT... : and waits for its socket.
listen() {
  rm -f disk.sock
  start "${1##*/}.log" "$@"
  wait_for 30 test -S disk.sock
}

for device in mem file; do
  for block in 512 4096; do
    listen usbdsrvd -dev-type="$device" -store-dir=. -store-name="$device-$block" \
      -store-size=$((6 * 1024 * 1024 + 4096)) -block-size="$block" -export="unix:$PWD/disk.sock"
    check
    check -simple-replies -connections=1
    stop "$last_pid"
  done
done

for peer in nbdkit qemu-nbd; do
  if ! command -v "$peer" >/dev/null; then
    echo "without $peer, which is not installed"
    continue
  fi
  truncate -s 10000384 peer.raw
  case $peer in
    nbdkit) listen nbdkit -f -U "$PWD/disk.sock" memory 10000001 ;;
    qemu-nbd) listen qemu-nbd -f raw -t -e 8 --discard=unmap -k "$PWD/disk.sock" peer.raw ;;
  esac
  check -lenient
  stop "$last_pid"
done

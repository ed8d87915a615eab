#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The sockets themselves: who may connect, what is left behind, what is refused with which words.
# shellcheck source=tests/integration/lib.sh
. "$USBD_SOURCE_DIR/tests/integration/lib.sh"
need usbdsrvd nbdinfo

# refuses WORDS OPTION...: usbdsrvd must not start, and say so in these words.
refuses() {
  local words=$1 status=0
  shift
  timeout 20 usbdsrvd -dev-type=mem -store-size=1MiB "$@" >refused.log 2>&1 || status=$?
  [[ $status == 1 || $status == 2 ]] || { cat refused.log >&2; fail "status $status: $*"; }
  grep -qF -- "$words" refused.log || { cat refused.log >&2; fail "no word of '$words': $*"; }
}

echo "0600 under any umask, and gone at the end"
for mask in 0000 0022 0777; do
  before=$(umask)
  umask "$mask"
  start own.log usbdsrvd -dev-type=mem -store-size=1MiB "-export=unix:$PWD/own.sock"
  umask "$before"
  wait_for 20 nbdinfo --size "nbd+unix:///?socket=$PWD/own.sock"
  same "$(stat -c %a own.sock)" 600 "mode of the socket under umask $mask"
  stop "$last_pid"
  [[ ! -e own.sock ]] || fail "the socket was left behind"
done

echo "a relative path is told as an absolute one"
start relative.log usbdsrvd -dev-type=mem -store-size=1MiB -export=unix:relative.sock
wait_for 20 grep -qF "socket=$PWD/relative.sock" relative.log
stop "$last_pid"

echo "a socket that a killed server left is replaced"
serve stale.sock -dev-type=mem -store-size=1MiB
kill -KILL "$last_pid"
wait "$last_pid" || true
[[ -S stale.sock ]] || fail "the killed server's socket is not there"
rm stale.sock.pid
serve stale.sock -dev-type=mem -store-size=2MiB
same "$(nbdinfo --size "nbd+unix:///?socket=$PWD/stale.sock")" 2097152 "size"

echo "a live server's socket is not taken, nor is a file"
refuses "already answering" "-export=unix:$PWD/stale.sock"
same "$(nbdinfo --size "nbd+unix:///?socket=$PWD/stale.sock")" 2097152 "size"
stop "$last_pid"
echo precious >file
refuses "no socket" "-export=unix:$PWD/file"
same "$(cat file)" precious "the file"

echo "paths and addresses that cannot be"
refuses "107" "-export=unix:$PWD/$(printf 'x%.0s' {1..120})"
refuses "missing/s.sock" "-export=unix:$PWD/missing/s.sock"
refuses "-insecure-tcp" -export=tcp:0.0.0.0:0
refuses "-insecure-tcp" "-export=tcp:[::]:0"

echo "tcp"
start tcp.log usbdsrvd -dev-type=mem -store-size=1MiB -export=tcp:127.0.0.1:0
wait_for 20 grep -q 'nbd://127.0.0.1:[1-9]' tcp.log
uri=$(grep -o 'nbd://127.0.0.1:[0-9]*' tcp.log | head -1)
same "$(nbdinfo --size "$uri")" 1048576 "size"
refuses "port ${uri##*:}" "-export=tcp:127.0.0.1:${uri##*:}"
stop "$last_pid"
start open.log usbdsrvd -dev-type=mem -store-size=1MiB -export=tcp:0.0.0.0:0 -insecure-tcp
wait_for 20 grep -q 'nbd://0.0.0.0:[1-9]' open.log
stop "$last_pid"

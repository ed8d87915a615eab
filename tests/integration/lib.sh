# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What integration tests share. Source it first: `. "$USBD_SOURCE_DIR/tests/integration/lib.sh"`.
# Every process that start() made is ended, by its pid, when the test exits.
set -euo pipefail

started=()

# fail MESSAGE...: ends the test as failed.
fail() {
  echo "FAIL: $*" >&2
  exit 1
}

# skip WHAT_IS_MISSING: ends the test as skipped.
skip() {
  echo "SKIP: $*"
  exit 77
}

# need PROGRAM...: skips unless all of them can be called.
need() {
  local program
  for program; do
    command -v "$program" >/dev/null || skip "$program is not installed"
  done
}

# wait_for SECONDS COMMAND...: until COMMAND succeeds; fails the test when it does not in time.
wait_for() {
  local limit=$1 start=${EPOCHREALTIME/[.,]/}
  shift
  until "$@" >/dev/null 2>&1; do
    ((${EPOCHREALTIME/[.,]/} - start < limit * 1000000)) || fail "not within $limit seconds: $*"
    sleep 0.02
  done
}

# start LOG COMMAND...: starts COMMAND in the background, output to LOG; its pid is $last_pid.
start() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 </dev/null &
  last_pid=$!
  started+=("$last_pid")
}

# alive PID
alive() { kill -0 "$1" 2>/dev/null; }

# serve SOCKET [usbdsrvd OPTION...]: a daemon that serves on SOCKET; returns when it is ready.
serve() {
  local socket=$1
  shift
  start "$socket.log" usbdsrvd -export="unix:$socket" -pidfile="$socket.pid" "$@"
  local pid=$last_pid start=$EPOCHSECONDS
  until [[ -s $socket.pid ]]; do
    alive "$pid" || { cat "$socket.log" >&2; fail "usbdsrvd ended before it was ready: $*"; }
    ((EPOCHSECONDS - start < 30)) || fail "usbdsrvd was not ready in 30 seconds: $*"
    sleep 0.02
  done
}

# stop PID [EXPECTED_STATUS]: SIGTERM, waits for the end, compares the exit status (default 0).
stop() {
  local status=0
  kill -TERM "$1"
  wait "$1" || status=$?
  [[ $status == "${2:-0}" ]] || fail "process $1 ended with status $status, not ${2:-0}"
}

# same ACTUAL EXPECTED WHAT
same() { [[ $1 == "$2" ]] || fail "$3: expected '$2', got '$1'"; }

end_started() {
  local pid
  for pid in "${started[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
  done
  for pid in "${started[@]}"; do
    for _ in {1..250}; do
      alive "$pid" || break
      sleep 0.02
    done
    kill -KILL "$pid" 2>/dev/null || true
  done
}
trap end_started EXIT

# SPDX-License-Identifier: Apache-2.0
#
# What the scripts that run servers have in common. Each server is a process with an entry in
# DIR/pids, "NAME PID START", START being when it began (field 22 of /proc/PID/stat): a number that
# some other process has got since is left alone. Who sources this sets `dir`.

# shellcheck shell=bash
set -euo pipefail
dir=

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# need PACKAGE:PROGRAM... : ends with 77 if a program is not there.
need() {
  local missing=() each
  for each in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${each#*:}" >/dev/null || missing+=("${each%%:*}")
  done
  ((${#missing[@]})) || return 0
  echo "SKIP: missing packages: ${missing[*]} (scripts/install-deps test)"
  exit 77
}

started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name before the last parenthesis may hold blanks.
  awk '{ print $20 }' <<<"${stat##*) }"
}

# launch NAME COMMAND... : runs it in the background, in a session of its own.
launch() {
  local name=$1
  shift
  setsid "$@" >"$dir/log/$name.out" 2>&1 </dev/null &
  echo "$name $! $(started_at $!)" >>"$dir/pids"
}

# pid_of NAME : the number of the running process; false if it does not run.
pid_of() {
  local name pid start
  [[ -f $dir/pids ]] || return 1
  while read -r name pid start; do
    if [[ $name == "$1" && -n $start && $(started_at "$pid" || true) == "$start" ]]; then
      echo "$pid"
      return 0
    fi
  done <"$dir/pids"
  return 1
}

# finish NAME [SIGNAL] : ends it, with force after ten seconds.
finish() {
  local pid i
  pid=$(pid_of "$1") || return 0
  kill "-${2:-TERM}" "$pid" 2>/dev/null || true
  for ((i = 0; i < 100; i++)); do
    pid_of "$1" >/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

# wait_for SECONDS WHAT COMMAND... : until COMMAND succeeds.
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "$what did not come up; see $dir/log"
    sleep 0.1
  done
}

answers() {
  curl -s --noproxy '*' --max-time 5 -o /dev/null "$1"
}

# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the checks share, on top of the integration tests' lib.sh (start, stop, wait_for, same, fail,
# skip). Source it first. Inside the machine everything is root's and about 20 times slower.
. "$USBD_SOURCE_DIR/tests/integration/lib.sh"

# Where run has put things; the daemon reads every other USBD_ variable as an option of its own.
share=$USBD_CHECK_SHARE
unset USBD_SOURCE_DIR USBD_CHECK_SHARE "${!USBD_VM@}" "${!USBD_S3@}"

# attach NAME [usbdsrvd OPTION...]: starts a daemon with a kernel device; returns when it is ready,
# with $daemon (pid) and $device (/dev/nbdN). Its log is NAME.log.
attach() {
  local name=$1 began=$EPOCHSECONDS
  shift
  rm -f "$name.pid"
  start "$name.log" env -u USBD_BIN_DIR usbdsrvd -store-name="$name" -export=nbd \
    -pidfile="$name.pid" "$@"
  daemon=$last_pid
  until [[ -s $name.pid ]]; do
    alive "$daemon" || { cat "$name.log"; fail "usbdsrvd ended before it was ready: $*"; }
    ((EPOCHSECONDS - began < 60)) || fail "usbdsrvd was not ready in 60 seconds: $*"
    sleep 0.05
  done
  device=$(sed -n 's/.*processing requests for "\(\/dev\/nbd[0-9]*\)".*/\1/p' "$name.log")
  [[ -b $device ]] || { cat "$name.log"; fail "$name has no device"; }
}

# statistics_lines LOG
statistics_lines() { grep -c ' statistics: ' "$1" || true; }

# has_more_statistics LOG COUNT
has_more_statistics() { (($(statistics_lines "$1") > $2)); }

# count NAME KIND: prints how many requests of KIND (read, write, flush, trim, write_zeroes, errors)
# the daemon of attach NAME has had.
count() {
  local log=$1.log before
  before=$(statistics_lines "$log")
  kill -USR1 "$(<"$1.pid")"
  wait_for 10 has_more_statistics "$log" "$before"
  last_count "$1" "$2"
}

# last_count NAME KIND: the same from the last statistics in the log, such as those of the stop.
last_count() {
  grep ' statistics: ' "$1.log" | tail -n 1 | grep -oE "[ ]$2 [0-9]+" | grep -oE '[0-9]+'
}

# disk_bytes FILE: the space that it takes.
disk_bytes() { echo $(($(stat -c %b "$1") * $(stat -c %B "$1"))); }

# connected DEVICE: whether the kernel has it connected.
connected() { [[ -e /sys/block/${1##*/}/pid ]]; }

not_connected() { ! connected "$1"; }

# make_filesystem TYPE DEVICE
make_filesystem() {
  need "mkfs.$1"
  "mkfs.$1" -q "$2"
}

# check_filesystem TYPE DEVICE: fails if it is damaged.
check_filesystem() {
  case $1 in
    ext4) e2fsck -fn "$2" >fsck.log 2>&1 ;;
    xfs) xfs_repair -n "$2" >fsck.log 2>&1 ;;
    btrfs) btrfs check --readonly "$2" >fsck.log 2>&1 ;;
  esac || { cat fsck.log; fail "$1 on $2 is damaged"; }
}

# unpack_tree DIRECTORY: the tree of real files that run has put together.
unpack_tree() {
  mkdir -p "$1"
  tar -C "$1" -xf "$share/tree.tar"
}

# verify_tree DIRECTORY: every file is there with the checksum that it has on the host.
verify_tree() {
  (cd "$1" && sha256sum --quiet -c "$share/tree.sums") || fail "files in $1 differ"
  same "$(find "$1" -type f | wc -l)" "$(wc -l <"$share/tree.sums")" "number of files in $1"
}

drop_caches() { echo 3 >/proc/sys/vm/drop_caches; }

# no_kernel_errors: since the check began.
no_kernel_errors() {
  local found bad='I/O error|lost (async )?page write|EXT4-fs (error|warning)'
  bad+='|XFS .*(error|corrupt|shutdown)|BTRFS.* (error|warning)'
  found=$(dmesg | grep -iE "$bad" || true)
  [[ -z $found ]] || fail "the kernel complained: $found"
}

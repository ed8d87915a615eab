#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# s3_served.sh ceph|swift SECONDS PROGRAM [ARGUMENT...]: starts the server on free ports, in a
# folder of its own, runs PROGRAM for at most SECONDS with the server's address in the environment,
# and ends the server whatever happens. Exit status: the program's; 77 if the server is not
# installed.
#
# USBD_S3_SERVER ceph or swift; USBD_S3_ENDPOINT; USBD_S3_KEY and USBD_S3_SECRET. ceph also:
# USBD_S3_TLS_ENDPOINT, USBD_S3_CA (its certificate), USBD_S3_OTHER_KEY, USBD_S3_OTHER_SECRET.
set -uo pipefail

kind=$1
seconds=$2
shift 2
server=$(dirname "$(readlink -f "$0")")/servers/$kind
folder=$(mktemp -d /tmp/usbd-s3.XXXXXX)
program=

finish() {
  trap '' TERM INT HUP
  [[ -z $program ]] || kill -KILL -- "-$program" 2>/dev/null
  "$server" down "$folder"
  rm -rf -- "$folder"
}
trap finish EXIT
trap 'exit 143' TERM INT HUP

# The first of five ports in a row that are free, below those that the kernel gives out.
free_ports() {
  python3 - <<'EOF'
import random
import socket

while True:
    first = random.randrange(20000, 32000)
    taken = []
    try:
        for port in range(first, first + 5):
            taken.append(socket.create_server(("127.0.0.1", port)))
        print(first)
        break
    except OSError:
        pass
    finally:
        for each in taken:
            each.close()
EOF
}

# Somebody else may take a port in between.
for attempt in 1 2 3; do
  port=$(free_ports)
  export CEPH_TLS_PORT=$((port + 2))
  "$server" up "$folder" "$port"
  status=$?
  ((status != 0)) || break
  ((status != 77)) || exit 77
  echo "s3_served.sh: attempt $attempt to start $kind failed" >&2
done
((status == 0)) || { tail -n 5 "$folder"/log/*.out >&2; exit 1; }

export USBD_S3_SERVER=$kind USBD_S3_ENDPOINT=http://127.0.0.1:$port
if [[ $kind == ceph ]]; then
  export USBD_S3_KEY=minioadmin USBD_S3_SECRET=minioadmin
  export USBD_S3_OTHER_KEY=other USBD_S3_OTHER_SECRET=otherother
  export USBD_S3_TLS_ENDPOINT=https://127.0.0.1:$CEPH_TLS_PORT USBD_S3_CA=$folder/tls.crt
else
  export USBD_S3_KEY=test:tester USBD_S3_SECRET=testing
fi

set -m # a process group for the program
timeout --kill-after=10 "$seconds" "$@" &
program=$!
wait "$program"
status=$?
program=
((status != 124)) || echo "s3_served.sh: the program took longer than $seconds seconds" >&2
exit "$status"

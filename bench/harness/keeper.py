# SPDX-License-Identifier: Apache-2.0
#
# Keeps a server that insists on becoming a daemon: starts it as the program's arguments say, stays
# its ancestor when it forks away (PR_SET_CHILD_SUBREAPER), and ends it when told to end. So such a
# server is one process tree with one process id to end, like all the others.

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def children() -> list:
    # The file holds the main thread's children, and we have no other thread.
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(word) for word in text.split()]


def end_children(*_):
    for pid in children():
        os.kill(pid, signal.SIGTERM)


def main() -> int:
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        return 1
    signal.signal(signal.SIGTERM, end_children)
    started = subprocess.run(sys.argv[1:], check=False)
    if started.returncode != 0:
        return started.returncode
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return 0


if __name__ == "__main__":
    sys.exit(main())

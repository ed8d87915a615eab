# SPDX-License-Identifier: Apache-2.0
#
# On which CPUs a server and its client run. A single connection has two regimes that differ by
# factors: both sides on one CPU (no wake-up across CPUs, a warm cache) or on two. Left alone, the
# scheduler changes between them from run to run, so a ratio would compare regimes, not servers.

import os
from pathlib import Path

from .servers import Running
from .workloads import Workload

MODES = {
    "apart": "with one connection the client has the last CPU, the server the others; with more, "
             "the scheduler chooses",
    "same": "client and server share the last CPU",
    "none": "the scheduler chooses",
}


def _tasks_of(pid: int) -> list:
    """All threads of a process and of its descendants."""
    tasks = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        tasks.append(int(task.name))
        for child in (task / "children").read_text().split():
            tasks += _tasks_of(int(child))
    return tasks


def _keep_on(pid: int, cpus: set):
    # What a thread starts later inherits its CPUs.
    try:
        for task in _tasks_of(pid):
            os.sched_setaffinity(task, cpus)
    except (FileNotFoundError, ProcessLookupError):
        _keep_on(pid, cpus)  # One has just ended: look again.


class Affinity:
    def __init__(self, mode: str):
        self.all = os.sched_getaffinity(0)
        self.mode = mode if len(self.all) > 1 else "none"

    def apply(self, running: Running, workload: Workload) -> set:
        """Places the server; returns the CPUs for the client."""
        last = {max(self.all)}
        if self.mode == "same":
            server, client = last, last
        elif self.mode == "apart" and workload.connections == 1:
            server, client = self.all - last, last
        else:
            server, client = self.all, self.all
        _keep_on(running.pid, server)
        return client

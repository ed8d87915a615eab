# SPDX-License-Identifier: Apache-2.0
#
# The workloads, and how one of them is run against one server with nbdload.

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .servers import BenchError, Running

KIB = 1 << 10
MIB = 1 << 20
# Beyond what a run is meant to take, before nbdload counts as hung.
GRACE_SECONDS = 60


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    operation: str
    block: int
    depth: int
    connections: int = 1

    @property
    def unit(self) -> str:
        return "IOPS" if self.block < 64 * KIB else "MB/s"

    def rate(self, result: dict) -> float:
        return result["iops"] if self.unit == "IOPS" else result["mb_per_s"]

    @property
    def writes(self) -> bool:
        return "write" in self.operation


WORKLOADS = [
    Workload("4k-read", "4 KiB random read, depth 32, 1 connection", "randread", 4 * KIB, 32),
    Workload("4k-write", "4 KiB random write, depth 32, 1 connection", "randwrite", 4 * KIB, 32),
    Workload("4k-read-x4", "4 KiB random read, depth 32, 4 connections", "randread", 4 * KIB, 32,
             4),
    Workload("4k-write-x4", "4 KiB random write, depth 32, 4 connections", "randwrite", 4 * KIB,
             32, 4),
    Workload("64k-read", "64 KiB random read, depth 8", "randread", 64 * KIB, 8),
    Workload("64k-write", "64 KiB random write, depth 8", "randwrite", 64 * KIB, 8),
    Workload("1m-read", "1 MiB random read, depth 8", "randread", MIB, 8),
    Workload("1m-write", "1 MiB random write, depth 8", "randwrite", MIB, 8),
    Workload("d1-read", "4 KiB random read, depth 1", "randread", 4 * KIB, 1),
    Workload("d1-write", "4 KiB random write, depth 1", "randwrite", 4 * KIB, 1),
]


def by_name(name: str) -> Workload:
    for workload in WORKLOADS:
        if workload.name == name:
            return workload
    known = ", ".join(workload.name for workload in WORKLOADS)
    raise BenchError(f'there is no workload "{name}"; there are {known}')


class LoadGenerator:
    """Runs nbdload against a server and returns what it says."""

    def __init__(self, programs: Path, seed: int, fill_block: int):
        self.program = programs / "nbdload"
        self.seed = seed
        self.fill_block = fill_block
        if not self.program.exists():
            raise BenchError(f"nbdload is not in {programs} (build it first)")

    def call(self, running: Running, *arguments, timeout: float,
             cpus: set | None = None) -> tuple[int, str, str]:
        """nbdload's exit status and what it printed. Runs on `cpus` if they are given."""
        command = [self.program, "--unix", running.place.socket, "--export",
                   running.server.export, "--server-pid", running.pid, "--label",
                   running.server.name, *arguments]
        try:
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                                  timeout=timeout, check=False,
                                  preexec_fn=lambda: cpus and os.sched_setaffinity(0, cpus))
        except subprocess.TimeoutExpired:
            raise BenchError(f"{running.server.name}: no answer in {timeout:.0f} s") from None
        return done.returncode, done.stdout, done.stderr.strip()

    def must(self, running: Running, *arguments, timeout: float, cpus: set | None = None) -> dict:
        """As call(), for what has to succeed."""
        status, printed, complaint = self.call(running, *arguments, timeout=timeout,
                                               cpus=cpus)
        if status != 0:
            raise BenchError(f"{running.server.name}: nbdload ended with status {status}: "
                             f"{complaint or 'no message'}; the server's log: "
                             f"{running.log_tail()}")
        return json.loads(printed)

    def precondition(self, running: Running):
        """Writes every block once, with the verifiable pattern."""
        self.must(running, "--op", "fill", "--block", self.fill_block, "--depth", 16, "--verify",
                  "--seed", self.seed, timeout=10 * GRACE_SECONDS)

    def verify(self, running: Running, seconds: float):
        """Reads and rewrites at random for a while, and compares every byte that is read."""
        for operation in ("randread", "randmix"):
            self.must(running, "--op", operation, "--depth", 16, "--verify", "--seed", self.seed,
                      "--seconds", seconds, "--ramp", 0, timeout=seconds + GRACE_SECONDS)

    def measure(self, running: Running, workload: Workload, seconds: float, ramp: float,
                round_number: int, cpus: set | None = None) -> dict:
        # A short run may find the server waiting for a CPU on a busy machine all the time.
        for length in (seconds, 5 * seconds + 2):
            result = self.must(
                running, "--op", workload.operation, "--block", workload.block, "--depth",
                workload.depth, "--connections", workload.connections, "--threads",
                workload.connections, "--seed", self.seed + round_number, "--seconds", length,
                "--ramp", ramp, timeout=length + ramp + GRACE_SECONDS, cpus=cpus)
            if result["iops"] > 0:
                return result
        raise BenchError(f"{running.server.name}: {workload.name}: nothing was done in "
                         f"{length:.1f} s")

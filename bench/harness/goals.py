# SPDX-License-Identifier: Apache-2.0
#
# What our servers are meant to reach, as ratios within one run. Printed at the end of a comparison;
# never a reason to fail it: a busy machine is no regression.

from dataclasses import dataclass

from .report import DISTURBED, Board
from .workloads import WORKLOADS, Workload

SMALL = ("4k-read", "4k-write")
SMALL_X4 = ("4k-read-x4", "4k-write-x4")
LARGE = ("64k-read", "64k-write", "1m-read", "1m-write")
MIB = ("1m-read", "1m-write")
ALONE = ("d1-read", "d1-write")
ALL = tuple(workload.name for workload in WORKLOADS)


@dataclass(frozen=True)
class Goal:
    server: str
    workloads: tuple
    # A server's name, or "limit": the best setting of the bare server.
    base: str
    bound: float
    # "rate": at least `bound` times the base's; "cpu": at most.
    measure: str = "rate"


GOALS = [
    Goal("usbd-mem", SMALL + SMALL_X4, "limit", 0.85),
    Goal("usbd-mem", SMALL, "nbdkit-memory", 3),
    Goal("usbd-mem", SMALL_X4, "nbdkit-memory", 5),
    Goal("usbd-mem", SMALL + SMALL_X4, "limit", 1.25, "cpu"),
    Goal("usbd-mem", LARGE, "limit", 0.9),
    Goal("usbd-mem", ALONE, "limit", 0.9),
    Goal("usbd-mem", ALL, "nbdkit-memory", 1),
    Goal("usbd-file", SMALL + SMALL_X4, "nbdkit-file", 2),
    Goal("usbd-file", MIB, "nbdkit-file", 1),
    Goal("usbd-file", ALL, "nbdkit-file", 1),
    Goal("usbd-blocking", ALL, "nbdkit-memory", 1),
]


def _check(board: Board, goal: Goal, workload: Workload) -> str | None:
    ours = board.cell(goal.server, workload)
    base = (board.limit(workload) if goal.base == "limit" else board.cell(goal.base, workload))
    if not ours or not base:
        return None
    if goal.measure == "cpu":
        ratio, met, sign = ours.cpu / base.cpu, ours.cpu <= goal.bound * base.cpu, "<="
    else:
        ratio, met, sign = ours.rate / base.rate, ours.rate >= goal.bound * base.rate, ">="
    return (f"  {'met   ' if met else 'MISSED'}  {workload.name:<12} {goal.server} "
            f"{goal.measure} {ratio:.2f} of {base.server.name} (goal {sign} {goal.bound:.2f})")


def report(board: Board) -> str:
    lines = [line for goal in GOALS for workload in board.workloads
             if workload.name in goal.workloads and (line := _check(board, goal, workload))]
    disturbed = " (on a disturbed machine: only the CPU figures say something)"
    title = f"Goals{disturbed if board.disturbance > DISTURBED else ''}:"
    return "\n".join([title, *lines, ""]) if lines else ""

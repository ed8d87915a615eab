# SPDX-License-Identifier: Apache-2.0
#
# From runs to medians, ratios and tables.

from dataclasses import dataclass, field
from statistics import median

from .servers import Server
from .workloads import Workload

# How much of a CPU others may use before a comparison counts as disturbed.
DISTURBED = 0.1
LIMITS = ("bare", "bare-huge")
# The peer that a server of a kind is compared to.
PEERS = {"memory": "nbdkit-memory", "null": "nbdkit-memory", "file": "nbdkit-file"}


@dataclass
class Cell:
    """All runs of one server under one workload."""

    server: Server
    workload: Workload
    results: list = field(default_factory=list)

    @property
    def rates(self) -> list:
        return [self.workload.rate(result) for result in self.results]

    @property
    def rate(self) -> float:
        return median(self.rates)

    @property
    def cpu(self) -> float:
        """Server CPU seconds for 100,000 operations."""
        return median(result["server_cpu_s_per_100k"] for result in self.results)

    def latency(self, percentile: str) -> float:
        return median(result["latency_us"][percentile] for result in self.results)

    @property
    def disturbance(self) -> float:
        """The share of one CPU that went to others, or was stolen, in the middle run."""
        return median((result["other_cpu_s"] + result["stolen_cpu_s"]) / result["seconds"]
                      for result in self.results)


class Board:
    """The cells of a comparison. Cells without a run do not count as present."""

    def __init__(self, servers: list, workloads: list):
        self.servers = servers
        self.workloads = workloads
        self._cells = {(server.name, workload.name): Cell(server, workload)
                       for server in servers for workload in workloads}

    def cell(self, server_name: str, workload: Workload) -> Cell | None:
        found = self._cells.get((server_name, workload.name))
        return found if found and found.results else None

    def add(self, server: Server, workload: Workload, result: dict):
        self._cells[server.name, workload.name].results.append(result)

    def limit(self, workload: Workload) -> Cell | None:
        """The best of the bare server's settings: what counts as the limit."""
        cells = [self.cell(name, workload) for name in LIMITS]
        return max((cell for cell in cells if cell), key=lambda cell: cell.rate, default=None)

    @property
    def disturbance(self) -> float:
        """The worst of all cells'."""
        return max((cell.disturbance for cell in self._cells.values() if cell.results), default=0)

    def peer(self, server: Server, workload: Workload) -> Cell | None:
        return self.cell(PEERS[server.kind], workload)


def _ratio(value: float, base: float | None) -> str:
    return f"{value / base:.2f}" if base else "-"


def _number(value: float) -> str:
    return f"{value:,.0f}"


COLUMNS = ("server", "median", "of limit", "of nbdkit", "CPU s/100k", "of limit", "p50 us",
           "p99 us", "all runs")


def _row(board: Board, cell: Cell) -> tuple:
    limit = board.limit(cell.workload)
    peer = board.peer(cell.server, cell.workload)
    return (cell.server.name, _number(cell.rate), _ratio(cell.rate, limit and limit.rate),
            _ratio(cell.rate, peer and peer.rate), f"{cell.cpu:.3f}",
            _ratio(cell.cpu, limit and limit.cpu), f"{cell.latency('p50'):.1f}",
            f"{cell.latency('p99'):.1f}", " ".join(_number(rate) for rate in cell.rates))


def _aligned(rows: list) -> list:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *middle, last = (text.rjust(width) for text, width in zip(row, widths))
        lines.append("  ".join(["  " + row[0].ljust(len(first)), *middle, last.strip()]))
    return lines


def table(board: Board, workload: Workload) -> str:
    cells = [cell for server in board.servers if (cell := board.cell(server.name, workload))]
    if not cells:
        return f"{workload.name}: no server finished it\n"
    rows = [COLUMNS] + [_row(board, cell) for cell in cells]
    return "\n".join([f"{workload.name}: {workload.title} ({workload.unit})", *_aligned(rows), ""])


def disturbance_warning(board: Board) -> str:
    if board.disturbance <= DISTURBED:
        return ""
    return (f"Others used up to {board.disturbance:.2f} CPUs during a median run: the rates are "
            "worth little, the CPU figures something.")


def to_json(board: Board, header: dict) -> dict:
    return {
        "header": header,
        "results": [
            {"server": server.name, "workload": workload.name, "unit": workload.unit,
             "median": cell.rate, "server_cpu_s_per_100k": cell.cpu,
             "p50_us": cell.latency("p50"), "p99_us": cell.latency("p99"), "runs": cell.results}
            for workload in board.workloads for server in board.servers
            if (cell := board.cell(server.name, workload))
        ],
    }

"""Every server's figures as a table for the page and the plots."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.results import Table
from benchmarks.rounds import Measured

PLOTS = "plots"
COLUMNS = (
    "server", "protocol", "clients", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "memory MiB", "start s",
)  # fmt: skip


def figures(name: str, title: str, found: Measured, notes: Sequence[str], plots: Sequence[str]) -> Table:
    """One row a cell: medians of the rounds; by protocol and clients, the cheapest first. What is absent is a note."""
    cells = sorted(
        found.samples, key=lambda cell: (cell.protocol, cell.concurrency, found.median(cell, "cpu_us"))
    )
    rows = []
    for cell in cells:
        medians = [found.median(cell, figure) for figure in ("rps", "p50_ms", "p99_ms", "cpu_us")]
        memory = found.memory_mib.get(cell.server)
        start = found.start_s.get(cell.server)
        rows.append(
            (
                cell.server, cell.protocol, cell.concurrency, *medians,
                statistics.median(memory) if memory else None, statistics.median(start) if start else None,
            )
        )  # fmt: skip
    lines = [*notes, *(f"absent: {what}: {why}" for what, why in sorted(found.absent.items()))]
    return Table(name, title, COLUMNS, rows, lines, tuple(f"{PLOTS}/{plot}.png" for plot in plots))

"""Draws the warm floor's picture: two days of the diurnal demand under both policies, and what each policy comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot

from benchmarks.warmfloor import SEEDS, SETTINGS, WORKLOAD
from glowplug.warmfloor import replay, traces

_OURS, _PEERS, _FILL = "#d9480f", "#667085", "#e4e7ec"
_EVERY_S = 10


def draw(rows: Sequence[Mapping[str, Any]], title: str) -> Any:
    """Above the second to the third morning, simulated again; below the rows: cost against late requests."""
    figure = pyplot.figure(figsize=(9.0, 7.6), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(1.25, 1))
    _days(figure.add_subplot(grid[0, :]))
    for place, name in enumerate(traces.GENERATED):
        chosen = [row for row in rows if row["demand"] == name and row["start s"] == WORKLOAD.start_s]
        _policies(figure.add_subplot(grid[1, place]), name, chosen, is_first=place == 0)
    return figure


def _days(axis: Any) -> None:
    demand = traces.diurnal(WORKLOAD.service_s, SEEDS[0])
    reactive = replay.reactive(demand, WORKLOAD)
    warm = replay.warm_floor(demand, WORKLOAD, SETTINGS)
    start, end = traces.DAY_S, 3 * traces.DAY_S
    hours = [(second - start) / traces.DAY_S * 24 for second in range(start, end, _EVERY_S)]
    target = WORKLOAD.parameters.target
    needed = [
        sum(demand.work[second : second + _EVERY_S]) / _EVERY_S / target
        for second in range(start, end, _EVERY_S)
    ]
    axis.fill_between(hours, needed, color=_FILL, label="demand / target", step="post")
    axis.step(
        hours, reactive.replicas[start:end:_EVERY_S], color=_PEERS, label="replicas, reactive", where="post"
    )
    axis.step(
        hours, warm.replicas[start:end:_EVERY_S], color=_OURS, label="replicas, warm floor", where="post"
    )
    axis.step(
        hours,
        warm.floors[start:end:_EVERY_S],
        color=_OURS,
        linewidth=0.9,
        linestyle=":",
        label="the floor",
        where="post",
    )
    late = [
        second for second in range(start, end, _EVERY_S) if sum(reactive.late[second : second + _EVERY_S])
    ]
    axis.scatter(
        [(second - start) / traces.DAY_S * 24 for second in late], [-0.6] * len(late), marker="|", color=_PEERS, s=60,
        label="late requests, reactive",
    )  # fmt: skip
    late = [second for second in range(start, end, _EVERY_S) if sum(warm.late[second : second + _EVERY_S])]
    axis.scatter(
        [(second - start) / traces.DAY_S * 24 for second in late], [-1.2] * len(late), marker="|", color=_OURS, s=60,
        label="late requests, warm floor",
    )  # fmt: skip
    axis.set_xlim(0, 48)
    axis.set_xticks(range(0, 49, 6), [f"{hour % 24}:00" for hour in range(0, 49, 6)])
    axis.set_ylabel("replicas")
    axis.legend(loc="upper left", frameon=False, fontsize=8, ncols=2)
    axis.set_ylim(-1.6, max(reactive.replicas[start:end] + warm.replicas[start:end]) * 1.35)
    axis.set_title("Diurnal demand, day 2 and 3 (a day in 2 hours, a pod takes 30 s to start)")


def _policies(axis: Any, name: str, rows: Sequence[Mapping[str, Any]], *, is_first: bool) -> None:
    drawn: set[tuple[float, float]] = set()
    for row in rows:
        is_ours = row["policy"] == "warm floor"
        place = row["replica-s ratio"], row["late %"]
        if place in drawn:
            continue  # a floor of one is what reactive scaling has anyway
        drawn.add(place)
        axis.scatter(
            row["replica-s ratio"], row["late %"], color=_OURS if is_ours else _PEERS, s=55, zorder=3
        )
        axis.annotate(
            row["policy"], place, xytext=(6, 4 if len(drawn) % 2 else -12), textcoords="offset points",
            fontsize=8, color=_OURS if is_ours else _PEERS, fontweight="bold" if is_ours else "normal",
        )  # fmt: skip
    axis.set_title(name)
    axis.set_xlabel("replica-seconds to reactive's")
    axis.set_yscale("symlog", linthresh=0.001)
    axis.set_ylim(bottom=-0.0003)
    axis.set_xlim(0.8, max(row["replica-s ratio"] for row in rows) * 1.3)
    axis.grid(color=_FILL)
    axis.set_axisbelow(True)
    if is_first:
        axis.set_ylabel("late requests, %")

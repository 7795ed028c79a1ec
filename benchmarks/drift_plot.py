"""Draws the drift detector: false alarms and delays on made-up streams, and the flights of 2013 day by day."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import dates, pyplot

from glowplug.drift.config import DriftConfig
from glowplug.drift.detector import Judged

_OURS, _PEER, _QUIET = "#d9480f", "#98a2b3", "#e4e7ec"
_DPI = 130


def draw(rows: Sequence[Mapping[str, Any]], title: str) -> Any:
    """The table `drift`: a row for each curve's point."""
    figure, axes = pyplot.subplots(1, 3, figsize=(11.0, 3.5), layout="constrained")
    alarms = [row for row in rows if row["what"] == "false alarms"]
    where = [row["at"] for row in alarms]
    axes[0].plot(
        where, [row["textbook a day"] for row in alarms], "o-", color=_PEER, label="KS each day, p < 0.05"
    )
    axes[0].plot(where, [row["ours a day"] for row in alarms], "o-", color=_OURS, label="glowplug")
    axes[0].set_title("False alarms a day", fontsize=10)
    axes[0].set_xlabel("how much days differ (of a row's s.d.)")
    axes[0].set_ylim(-0.04, 1.04)
    axes[0].legend(frameon=False, fontsize=9, loc="center right")
    for axis, what, label in (
        (axes[1], "error", "error, times as large"),
        (axes[2], "features", "all features moved by s.d."),
    ):
        _delays(axis, [row for row in rows if row["what"] == what], label)
    for axis in axes:
        axis.grid(axis="y", color=_QUIET)
    return figure


def _delays(axis: Any, rows: Sequence[Mapping[str, Any]], label: str) -> None:
    found = [row for row in rows if row["delay rows"] is not None]
    low = [row["delay rows"] - row["low"] for row in found]
    high = [row["high"] - row["delay rows"] for row in found]
    axis.errorbar(
        [row["at"] for row in found], [row["delay rows"] for row in found], yerr=[low, high],
        fmt="o-", color=_OURS, capsize=3,
    )  # fmt: skip
    for row in rows:
        height = row["delay rows"] if row["delay rows"] is not None else 0
        axis.annotate(f"{row['detected %']:.0f} %", (row["at"], height), xytext=(4, 6), textcoords="offset points",
                      fontsize=8)  # fmt: skip
    axis.set_ylim(bottom=0)
    axis.set_title("Delay in rows; detected in 60 days, %", fontsize=10)
    axis.set_xlabel(label)


def draw_flights(judged: Sequence[Judged], config: DriftConfig, path: pathlib.Path) -> None:
    """Day by day: error, predictions, share of drifted features; the limits, the windows, and where the event was."""
    days = [datetime.fromtimestamp(each.window.last, timezone.utc) for each in judged]
    errors = [each.verdict.error.ratio if each.verdict.error else float("nan") for each in judged]
    predictions = [
        each.verdict.prediction[0].statistic if each.verdict.prediction else float("nan") for each in judged
    ]
    shares = [100 * each.verdict.share for each in judged]
    figure, axes = pyplot.subplots(4, 1, figsize=(10.0, 7.6), sharex=True, layout="constrained",
                                   height_ratios=(3, 2, 2, 0.7))  # fmt: skip
    for axis, values, limit, label in (
        (axes[0], errors, config.min_error_ratio, "mean absolute error,\ntimes the reference's"),
        (axes[1], predictions, config.min_psi, "PSI of the\npredictions"),
        (axes[2], shares, 100 * config.min_share, "features that\ndrifted, %"),
    ):
        axis.plot(days, values, color="#1f2937", linewidth=1.4)
        axis.axhline(limit, color=_PEER, linestyle="--", linewidth=1)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", color=_QUIET)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].annotate("effect that it takes", (days[0], config.min_error_ratio), xytext=(2, 4),
                     textcoords="offset points", fontsize=8, color="#667085")  # fmt: skip
    # Room for what is written beside the events.
    axes[0].set_ylim(0, 1.25 * max(config.min_error_ratio, *(each for each in errors if each == each)))
    _verdicts(axes[3], days, judged)
    for day, each in zip(days, judged, strict=True):
        if each.decision.opened:
            for axis in axes[:3]:
                axis.axvline(day, color=_OURS, linewidth=1.5)
            axes[0].annotate(f" drift.detected\n {day:%d %B}", (day, axes[0].get_ylim()[1]), va="top",
                             color=_OURS, fontsize=9)  # fmt: skip
    axes[0].set_title(
        "Flights of 2013: trained on January to March, replayed from April on; windows of 14 days",
        fontsize=11, loc="left", weight="bold",
    )  # fmt: skip
    axes[3].xaxis.set_major_locator(dates.MonthLocator())  # type: ignore[no-untyped-call]
    axes[3].xaxis.set_major_formatter(dates.DateFormatter("%b"))  # type: ignore[no-untyped-call]
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


def _verdicts(axis: Any, days: Sequence[datetime], judged: Sequence[Judged]) -> None:
    is_open, colours = False, []
    for each in judged:
        is_open = (is_open or each.decision.opened) and not each.decision.closed
        colours.append(_OURS if is_open else "#ffc9a3" if each.verdict.is_drifted else _QUIET)
    axis.bar(days, [1] * len(days), width=1.0, color=colours)
    axis.set_yticks([])
    axis.set_ylabel("episode", rotation=0, ha="right", va="center")
    axis.spines[["top", "right", "left"]].set_visible(False)

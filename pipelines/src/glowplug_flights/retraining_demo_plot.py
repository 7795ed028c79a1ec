"""The picture that the loop's demo ends with: the error week by week, with the loop and without, and what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from glowplug_pipelines.rows import Float64s, Int64s

_WEEK_MS = 7 * 86_400_000
_TEXT, _GREY = "#1f2937", "#98a2b3"
_COLOURS = {"with the loop": "#d9480f", "without it": _GREY, "oracle, retrained every day": "#1864ab"}
_MARKS = {
    "drift": ("v", "#e8590c"),
    "kept": ("o", _GREY),
    "promoted": ("^", "#2b8a3e"),
    "stopped by the gate": ("s", "#5f3dc4"),
    "rolled back": ("X", "#c92a2a"),
}
_STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#667085",
    "text.color": _TEXT, "axes.labelcolor": _TEXT, "xtick.color": _TEXT, "ytick.color": _TEXT,
}  # fmt: skip
_DPI = 130


@dataclass(frozen=True)
class Mark:
    """Something that happened: `what` is one of drift, kept, promoted, stopped by the gate, rolled back."""

    at_ms: int
    what: str
    label: str = ""


def weekly(event_ms: Int64s, errors: Float64s) -> tuple[list[datetime], Float64s]:
    """(middle of each week, its mean absolute error); weeks begin with the first row."""
    start = int(event_ms.min())
    number = (event_ms - start) // _WEEK_MS
    sums, counts = np.bincount(number, np.abs(errors)), np.bincount(number)
    weeks = np.nonzero(counts)[0]
    middles = [_utc(start + int(week) * _WEEK_MS + _WEEK_MS // 2) for week in weeks]
    return middles, sums[weeks] / counts[weeks]


def draw(
    curves: Mapping[str, tuple[Int64s, Float64s]], marks: Sequence[Mark], title: str, path: Path
) -> Path:
    """A PNG at `path`. `curves` are (moments, errors in minutes) by name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import dates, pyplot

    with pyplot.rc_context(_STYLE):
        figure, (above, axes) = pyplot.subplots(
            2, 1, figsize=(10, 5.4), sharex=True, height_ratios=(1.15, 4), layout="constrained"
        )
        for name, (event_ms, errors) in curves.items():
            weeks, means = weekly(event_ms, errors)
            mean = float(np.abs(errors).mean())
            colour = _COLOURS.get(name, _TEXT)
            width = 2.2 if name == "with the loop" else 1.6
            axes.plot(weeks, means, color=colour, lw=width, label=f"{name}: {mean:.2f} min")
        _mark(above, axes, marks)
        axes.set_ylabel("mean absolute error of a week, minutes")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, loc="lower left")
        locator = dates.AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, show_offset=False))
        above.set_title(title, loc="left", fontweight="bold", fontsize=11)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})
        pyplot.close(figure)
    return path


def _mark(above: Any, axes: Any, marks: Sequence[Mark]) -> None:
    """A row of its own for each kind of event, above the curves, and a thin line through them."""
    kinds = [kind for kind in _MARKS if any(mark.what == kind for mark in marks)]
    for mark in marks:
        shape, colour = _MARKS[mark.what]
        row = len(kinds) - kinds.index(mark.what)
        above.plot([_utc(mark.at_ms)], [row], shape, color=colour, ms=8, clip_on=False)
        if mark.label:
            above.annotate(
                mark.label, (_utc(mark.at_ms), row), (7, 0), textcoords="offset points", va="center", fontsize=8
            )  # fmt: skip
        axes.axvline(_utc(mark.at_ms), color=colour, lw=0.8, alpha=0.5)
        above.axvline(_utc(mark.at_ms), color=colour, lw=0.8, alpha=0.25)
    above.set_yticks(range(len(kinds), 0, -1), kinds)
    above.set_ylim(0.4, len(kinds) + 0.6)
    above.tick_params(axis="y", length=0)
    above.tick_params(axis="x", length=0)
    for side in ("left", "bottom"):
        above.spines[side].set_visible(False)


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc)

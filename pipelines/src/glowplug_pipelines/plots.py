"""The card's pictures: the difference day by day, slice by slice, and predictions beside what happened.

Drawn without pyplot, which keeps figures in a global and picks a screen. No date of drawing goes into the files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from glowplug_pipelines.gate.evidence import DAY_MS, Evidence
from glowplug_pipelines.gate.verdict import Verdict

_BETTER, _WORSE, _PLAIN, _QUIET = "#1b7837", "#b2182b", "#2166ac", "#888888"
_SHOWN_SLICES = 24
_BINS = 10
_LABEL = 26


@dataclass(frozen=True)
class Picture:
    """A file beside the card."""

    file: str
    caption: str


def draw(directory: Path, evidence: Evidence, verdict: Verdict) -> list[Picture]:
    """Write the PNGs; nothing is drawn of what there is too little of."""
    pictures = [
        Picture("days.png", f"Mean loss of each held-out day, challenger and {evidence.reference}"),
        Picture("calibration.png", _calibration_caption(evidence)),
    ]
    _save(directory / "days.png", (7.5, 3.0), 0.7, lambda axes: _days(axes, evidence))
    _save(directory / "calibration.png", (4.6, 4.2), 0.7, lambda axes: _calibration(axes, evidence))
    if verdict.slices:
        shown = min(len(verdict.slices), _SHOWN_SLICES)
        _save(
            directory / "slices.png",
            (7.5, 1.2 + 0.22 * shown),
            2.2,
            lambda axes: _slices(axes, evidence, verdict),
        )
        caption = f"Loss beside {evidence.reference} by slice, with bounds that hold together"
        pictures.insert(1, Picture("slices.png", caption))
    return pictures


def warm() -> None:
    """Import what draws, ahead of time: for a thread that has time while others work."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401


def _days(axes: Any, evidence: Evidence) -> None:
    days, place = np.unique(evidence.days, return_inverse=True)
    counts = np.bincount(place)
    dates = [datetime.fromtimestamp(int(day) * DAY_MS / 1000, tz=timezone.utc) for day in days]
    for losses, name, colour in (
        (evidence.reference_losses, evidence.reference, _QUIET),
        (evidence.losses, "challenger", _PLAIN),
    ):
        axes.plot(
            dates, np.bincount(place, weights=losses) / counts, "o-", ms=3.5, lw=1.4, color=colour, label=name
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"loss, {evidence.unit}")
    axes.legend(frameon=False)
    # Up to eight days are named, as month and day.
    step = -(-len(dates) // 8)
    axes.set_xticks(dates[::step], [f"{date:%b %d}" for date in dates[::step]])


def _slices(axes: Any, evidence: Evidence, verdict: Verdict) -> None:
    shown = verdict.slices[:_SHOWN_SLICES]
    for row, each in enumerate(shown):
        interval = each.percent
        colour = _WORSE if interval.low > 0 else _BETTER if interval.high < 0 else _QUIET
        axes.plot([interval.low, interval.high], [row, row], color=colour, lw=1.4)
        axes.plot([interval.mean], [row], "o", color=colour, ms=4)
    labels = [f"{_short(f'{each.name} {each.value}')} ({each.rows:,})" for each in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", lw=0.8)
    axes.set_xlabel(f"loss beside {evidence.reference}, %  (right: challenger is worse)")


def _short(name: str) -> str:
    """What the margin has room for; the card's table has it whole."""
    return name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"


def _calibration_caption(evidence: Evidence) -> str:
    if evidence.of_classes:
        return "How often the likeliest class came against its mean probability, by tenths of that"
    return "Mean label against mean prediction, by tenths of the prediction"


def _calibration(axes: Any, evidence: Evidence) -> None:
    order = np.argsort(evidence.predictions, kind="stable")
    parts = [part for part in np.array_split(order, _BINS) if len(part)]
    predicted = np.array([evidence.predictions[part].mean() for part in parts])
    happened = np.array([evidence.labels[part].mean() for part in parts])
    came = "share that came" if evidence.of_classes else "mean label"
    lowest, highest = min(predicted.min(), happened.min()), max(predicted.max(), happened.max())
    axes.plot([lowest, highest], [lowest, highest], color=_QUIET, lw=0.8, ls="--", label="calibrated")
    axes.plot(predicted, happened, "o-", color=_PLAIN, ms=4, lw=1.2, label=came)
    if evidence.of_classes:
        axes.set_xlabel("probability of the likeliest class")
        axes.set_ylabel("share of rows where it came")
    else:
        middle = [np.median(evidence.labels[part]) for part in parts]
        axes.plot(predicted, middle, "s:", color=_PLAIN, ms=3, lw=1, alpha=0.6, label="median label")
        axes.set_xlabel(f"prediction, {evidence.unit}")
        axes.set_ylabel(f"label, {evidence.unit}")
    axes.legend(frameon=False, fontsize=8)


def _save(path: Path, size: tuple[float, float], left: float, paint: Callable[[Any], None]) -> None:
    """`size` and the margin for what is written to the `left` of the axes are in inches."""
    # Late, since only this step needs it and it takes half a second; see `warm`.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    # Laid out by hand: a layout engine draws everything twice, and this is a good part of a run's overhead.
    width, height = size
    axes = figure.add_axes((left / width, 0.55 / height, 1 - (left + 0.15) / width, 1 - 0.7 / height))
    paint(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})

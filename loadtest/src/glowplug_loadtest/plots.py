"""The picture of a load test: panels one below the other on one axis of time."""

from __future__ import annotations

import io
import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from glowplug_loadtest.figures import Figures

_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#2166ac", "#e08214", "#1b7837", "#b2182b", "#6b7280"
_FAILURES = (_RED, "#762a83", "#8c510a", "#35978f")
_SHOWN_ERRORS = 4
_PERCENTILE_COLOURS = (_GREEN, _ORANGE, _RED)
_WIDTH_IN, _PANEL_IN = 10.5, 2.25
_LONGEST_LABEL = 70
_EMPTY_HEIGHT = 0.3


def picture(figures: Figures, form: str = "svg") -> bytes:
    """As `svg` (inline, text as paths) or `png`."""
    panels = [_latency, _rates, _waiting, _errors]
    if figures.samples:
        panels.insert(2, _replicas)
    heights = [1.0] * len(panels)
    if not figures.series.failed_rps:
        heights[-1] = _EMPTY_HEIGHT
    figure = Figure(figsize=(_WIDTH_IN, _PANEL_IN * sum(heights) + 0.6), layout="constrained")
    axes: list[Axes] = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[
        :, 0
    ].tolist()
    for draw, axis in zip(panels, axes, strict=True):
        draw(figures, axis)
        _dress(figures, axis, has_long_names=draw is _errors)
    series = figures.series
    axes[-1].set_xlim(0, series.t[-1] + series.width_s)
    axes[-1].set_xlabel("seconds from the start")
    out = io.BytesIO()
    figure.savefig(out, format=form, dpi=110)
    return out.getvalue()


def _latency(figures: Figures, axis: Axes) -> None:
    series = figures.series
    for (percent, values), colour in zip(series.percentiles_ms.items(), _PERCENTILE_COLOURS, strict=True):
        # A bin that nothing was due in is a gap, a single one between gaps a dot.
        axis.plot(
            _middle(figures),
            values,
            color=colour,
            linewidth=1.4,
            marker=".",
            markersize=3,
            label=f"p{percent:g}",
        )
    for verdict in figures.verdicts:
        at = verdict.threshold
        limit = at.limit if at.kind == "latency" else at.at
        if at.kind != "errors":
            axis.axhline(limit, color=_GREY, linewidth=1, linestyle="--")
            # At the line's end; a legend has no room for many.
            axis.annotate(
                at.text, (1, limit), xycoords=("axes fraction", "data"), xytext=(-3, 2), textcoords="offset points",
                ha="right", va="bottom", fontsize=8, color=_GREY,
            )  # fmt: skip
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_title("Latency from the due time, ms (logarithmic)", loc="left")


def _rates(figures: Figures, axis: Axes) -> None:
    series = figures.series
    t = _stairs(figures)
    axis.stairs(series.due_rps, t, color=_GREY, linewidth=1.2, label="due", fill=True, alpha=0.3)
    axis.stairs(series.answered_rps, t, color=_BLUE, linewidth=1.4, label="answered")
    axis.set_title("Requests a second", loc="left")
    axis.set_ylim(bottom=0)


def _replicas(figures: Figures, axis: Axes) -> None:
    t = [each.t for each in figures.samples]
    desired = [each.desired for each in figures.samples]
    ready = [each.ready for each in figures.samples]
    axis.step(t, desired, where="post", color=_ORANGE, linewidth=1.4, label="desired")
    axis.step(t, ready, where="post", color=_GREEN, linewidth=1.8, label="ready")
    axis.set_title("Replicas", loc="left")
    axis.set_ylim(0, max([*desired, *ready, 1]) * 1.15)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _waiting(figures: Figures, axis: Axes) -> None:
    series = figures.series
    axis.stairs(
        series.waiting, _stairs(figures), color=_BLUE, linewidth=1.4, label="due and not answered, most"
    )
    held = [(each.t, each.held) for each in figures.samples if each.held is not None]
    if held:
        axis.step(
            *zip(*held, strict=True),
            where="post",
            color=_ORANGE,
            linewidth=1.2,
            label="held by the activator",
        )
    axis.set_title("Requests that wait", loc="left")
    axis.set_ylim(0, max([1.0, *series.waiting.tolist(), *(count for _, count in held)]) * 1.1)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _errors(figures: Figures, axis: Axes) -> None:
    series, t = figures.series, _stairs(figures)
    kinds = list(series.failed_rps.items())
    shown = kinds if len(kinds) <= _SHOWN_ERRORS else kinds[: _SHOWN_ERRORS - 1]
    if others := kinds[len(shown) :]:
        shown.append((f"{len(others)} other kinds", np.sum([values for _, values in others], axis=0)))
    bottom = np.zeros(len(series.t))
    for (error, values), colour in zip(shown, itertools.cycle(_FAILURES)):
        label = error if len(error) <= _LONGEST_LABEL else f"{error[: _LONGEST_LABEL - 1]}…"
        # A name that begins with an underscore is left out of legends.
        axis.stairs(bottom + values, t, baseline=bottom, fill=True, color=colour, label=f"\u200b{label}")
        bottom = bottom + values
    axis.set_title("Failed requests a second", loc="left")
    axis.set_ylim(0, max(1.0, float(bottom.max())) * 1.15)
    if not shown:
        axis.set_yticks([0, 1])
        axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", va="center", color=_GREY)


def _dress(figures: Figures, axis: Axes, *, has_long_names: bool) -> None:
    if figures.plan.warm_up_s:
        is_first = axis.get_subplotspec().is_first_row()  # type: ignore[union-attr]
        axis.axvspan(
            0, figures.plan.warm_up_s, color="#e5e7eb", linewidth=0, zorder=0,
            label="warm-up, not counted" if is_first else None,
        )  # fmt: skip
    axis.grid(True, color="#e5e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.title.set_fontsize(11)
    axis.tick_params(labelsize=9)
    if axis.get_legend_handles_labels()[0]:
        _legend(axis, is_inside=has_long_names)


def _legend(axis: Axes, *, is_inside: bool) -> None:
    """Beside the title, where no curve is; long names inside, where the fewest are."""
    if is_inside:
        axis.legend(loc="best", fontsize=8.5)
        return
    axis.legend(
        loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=5, fontsize=8.5, frameon=False, borderaxespad=0.2
    )


def _middle(figures: Figures) -> np.ndarray:
    middle: np.ndarray = figures.series.t + figures.series.width_s / 2
    return middle


def _stairs(figures: Figures) -> np.ndarray:
    series = figures.series
    return np.append(series.t, series.t[-1] + series.width_s)

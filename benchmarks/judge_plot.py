"""Draws how simulated rollouts ended: one panel for each kind of canary, one bar for each rate of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import pyplot

_ENDS = (
    ("rolled back %", "rolled back", "#d9480f"),
    ("undecided %", "undecided: the weight stays", "#d5dae2"),
    ("promoted %", "promoted", "#2b8a3e"),
)
_TITLES = {
    "equal": "equal:\nto be promoted",
    "equal, both stall": "equal, both stall at times:\nto be promoted",
    "errors +1 %": "1 % more errors:\nto be rolled back",
    "p99 +20 %": "p99 20 % longer:\nto be rolled back",
}
_LEAST_LABELLED = 4.0
_HARDLY_EVER = 95.0


def draw(rows: Sequence[Mapping[str, Any]], title: str) -> Any:
    """Stacked shares."""
    effects = list(dict.fromkeys(row["canary"] for row in rows))
    figure, axes = pyplot.subplots(1, len(effects), figsize=(11.0, 3.6), sharey=True, layout="constrained")
    for axis, effect in zip(axes, effects, strict=True):
        _panel(axis, [row for row in rows if row["canary"] == effect])
        axis.set_title(_TITLES.get(effect, effect), fontsize=10)
    axes[0].set_ylabel("% of rollouts")
    axes[0].set_xlabel("requests a second, median time to a decision", fontsize=9, loc="left")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(_ENDS), frameon=False)
    return figure


def _panel(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    base = [0.0] * len(rows)
    for column, label, colour in _ENDS:
        shares = [row[column] for row in rows]
        axis.bar(range(len(rows)), shares, bottom=base, color=colour, label=label, width=0.62)
        for place, (share, below) in enumerate(zip(shares, base, strict=True)):
            if share >= _LEAST_LABELLED:
                colour_of_text = "#1f2937" if column == "undecided %" else "white"
                axis.text(
                    place, below + share / 2, f"{share:.0f}", ha="center", va="center", color=colour_of_text
                )
        base = [below + share for below, share in zip(base, shares, strict=True)]
    axis.set_xticks(range(len(rows)), [f"{row['requests/s']}/s{_after(row)}" for row in rows])
    axis.set_ylim(0, 100)


def _after(row: Mapping[str, Any]) -> str:
    minutes = row["decided after, median min"]
    if minutes is None or row["undecided %"] > _HARDLY_EVER:
        return "\nnever"
    return f"\n{minutes:.0f} min"

"""A sweep as a table, Markdown and CSV, and as a plot."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from glowplug.errors import ConfigError
from glowplug.triton.search import Choose, Level, Trial
from glowplug.triton.settings import Setting
from glowplug.triton.sweep import Sweep, rows

_HEADINGS = ("batch", "delay us", "instances", "concurrency", "req/s", "p50 ms", "p99 ms", "")


def markdown(found: Sweep, slo_p99_ms: float, title: str) -> str:
    """The measurements in order of throughput, with what was chosen in words."""
    lines = [
        f"# {title}",
        "",
        _outcome(found),
        "",
        f"| {' | '.join(_HEADINGS)} |",
        "|" + " ---: |" * (len(_HEADINGS) - 1) + " --- |",
    ]
    for trial, level in sorted(rows(found), key=lambda row: -row[1].throughput):
        lines.append(
            f"| {' | '.join((*_cells(trial.setting, level), _remark(found, trial, level, slo_p99_ms)))} |"
        )
    failed = [f"- {trial.setting}: {trial.failure}" for trial in found.trials if trial.failure]
    if failed:
        lines += ["", "Not measured:", "", *failed]
    return "\n".join(lines) + "\n"


def table_csv(found: Sweep, slo_p99_ms: float) -> str:
    """The measurements in the order in which they were made."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["max_batch_size", "max_queue_delay_us", "instances", "concurrency", "throughput", "p50_ms", "p99_ms",
         "is_within_slo"]
    )  # fmt: skip
    for trial, level in rows(found):
        setting = trial.setting
        delay = "" if setting.max_queue_delay_us is None else setting.max_queue_delay_us
        writer.writerow(
            [setting.max_batch_size, delay, setting.instances, level.concurrency, f"{level.throughput:.1f}",
             f"{level.p50_ms:.3f}", f"{level.p99_ms:.3f}", str(level.p99_ms <= slo_p99_ms).lower()]
        )  # fmt: skip
    return out.getvalue()


def _outcome(found: Sweep) -> str:
    if isinstance(found.outcome, Choose):
        return f"Chosen: **{found.outcome.setting}**, {found.outcome.reason}."
    return f"Nothing chosen: {found.outcome.reason}."


def _cells(setting: Setting, level: Level) -> tuple[str, ...]:
    return (
        str(setting.max_batch_size),
        "-" if setting.max_queue_delay_us is None else str(setting.max_queue_delay_us),
        str(setting.instances),
        str(level.concurrency),
        f"{level.throughput:.0f}",
        f"{level.p50_ms:.1f}",
        f"{level.p99_ms:.1f}",
    )


def _remark(found: Sweep, trial: Trial, level: Level, slo_p99_ms: float) -> str:
    words = []
    if isinstance(found.outcome, Choose) and trial.setting == found.outcome.setting:
        words.append("chosen")
    if trial.setting == found.start:
        words.append("before")
    if level.p99_ms > slo_p99_ms:
        words.append("p99 too long")
    return ", ".join(words)


def plot(found: Sweep, slo_p99_ms: float, title: str, path: Path) -> None:
    """Throughput over p99 as a PNG, one point a measurement. Raises ConfigError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError("the plot needs matplotlib", hint="pip install 'glowplug[loadtest]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    _points(axes, found)
    axes.axvline(
        slo_p99_ms, color="tab:red", linestyle="--", linewidth=1.2, label=f"limit: p99 {slo_p99_ms:g} ms"
    )
    _mark(axes, found)
    if max((level.p99_ms for _, level in rows(found)), default=0.0) > 20 * slo_p99_ms:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(bottom=0, top=1.12 * max(level.throughput for _, level in rows(found)))
    axes.set_xlabel("p99 latency, ms")
    axes.set_ylabel("requests a second")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelspacing=0.9)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


_COLOURS = (
    "tab:blue",
    "tab:orange",
    "tab:green",
    "tab:purple",
    "tab:brown",
    "tab:cyan",
    "tab:olive",
    "tab:pink",
)
_SHAPES = ("o", "s", "^", "D", "v", "P")


def _points(axes: Any, found: Sweep) -> None:
    """Colour: batch size. Shape: instances. Size: delay."""
    settings = [trial.setting for trial in found.trials]
    batches = sorted({setting.max_batch_size for setting in settings})
    counts = sorted({setting.instances for setting in settings})
    delays = sorted({setting.max_queue_delay_us or 0 for setting in settings})
    for trial, level in rows(found):
        setting = trial.setting
        axes.scatter(
            level.p99_ms, level.throughput,
            color=_COLOURS[batches.index(setting.max_batch_size) % len(_COLOURS)],
            marker=_SHAPES[counts.index(setting.instances) % len(_SHAPES)],
            s=30 + 40 * delays.index(setting.max_queue_delay_us or 0),
            alpha=0.85, edgecolors="white", linewidths=0.6,
        )  # fmt: skip
    for index, batch in enumerate(batches):
        axes.scatter([], [], color=_COLOURS[index % len(_COLOURS)], s=50, label=f"max batch size {batch}")
    for index, count in enumerate(counts):
        label = f"{count} instance{'' if count == 1 else 's'}"
        axes.scatter([], [], color="grey", marker=_SHAPES[index % len(_SHAPES)], s=50, label=label)
    for index, delay in enumerate(delays):
        axes.scatter([], [], color="lightgrey", s=30 + 40 * index, label=f"delay {delay} us")


def _mark(axes: Any, found: Sweep) -> None:
    """Rings around the setting before and the chosen one."""
    marks = [("before", found.start, "black", 330)]
    if isinstance(found.outcome, Choose):
        marks.append(("chosen", found.outcome.setting, "tab:red", 220))
    for label, setting, colour, size in marks:
        levels = [level for trial, level in rows(found) if trial.setting == setting]
        if levels:
            axes.scatter(
                [level.p99_ms for level in levels], [level.throughput for level in levels],
                s=size, facecolors="none", edgecolors=colour, linewidths=1.6, label=label,
            )  # fmt: skip

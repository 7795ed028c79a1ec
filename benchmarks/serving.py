"""Peers side by side: the same model, rows and load tool on every server, by turns, on one computer.

Three parts: XGBoost, feature look-up before it, ResNet-50 and BERT-base. A part whose environment cannot be made is
left out and its reason printed; the others are measured.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
from collections.abc import Callable

from benchmarks import serving_deep, serving_lookup, serving_xgboost
from benchmarks.environments import Absent, tool
from benchmarks.results import Result, Table
from benchmarks.rounds import Options

Part = Callable[[Options, pathlib.Path], "tuple[list[Result], Table | list[Table]]"]
PARTS: dict[str, Part] = {
    "xgboost": serving_xgboost.run,
    "lookup": serving_lookup.run,
    "deep": serving_deep.run,
}


def run(options: Options) -> list[Result | Table]:
    """All parts, or the one of `options.only`."""
    measured: list[Result | Table] = []
    for name, part in PARTS.items():
        if options.only not in (None, name):
            continue
        print(f" {name}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix=f"glowplug-serving-{name}-") as folder:
            try:
                tool("h2load")
                tool("wrk")
                results, tables = part(options, pathlib.Path(folder))
            except Absent as error:
                print(f" {name} is absent: {error}", file=sys.stderr)
                continue
            measured += results
            measured += [tables] if isinstance(tables, Table) else tables
    return measured

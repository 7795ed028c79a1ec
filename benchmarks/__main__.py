"""`python -m benchmarks [NAME ...] [--out FOLDER] [--quick] [--only PART]`: measure, print, record, draw."""

from __future__ import annotations

import argparse
import importlib
import pathlib
import signal
import sys

from benchmarks.environments import Absent
from benchmarks.results import DOCS, Result, Table, record
from benchmarks.rounds import Options

NAMES = (
    "machine", "ingress", "demo", "serving", "weights", "coldstart", "activator", "burst", "canary", "pairs",
    "warmfloor", "judge", "shadow", "rollout", "broker", "drift", "kafka", "logger", "offline", "pipelines",
    "loop", "cluster", "cluster_faults",
)  # fmt: skip
# The others measure one thing each, in one way.
WITH_OPTIONS = ("serving", "burst", "canary", "rollout", "kafka", "pipelines")
PARTS = ("xgboost", "lookup", "deep")


def main(argv: list[str]) -> int:
    """Exit code 2 where a name is unknown or cannot be measured here; a goal that is missed is recorded, not failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, print, record, draw.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--out", type=pathlib.Path, default=DOCS, help="where the results go (default: docs)")
    parser.add_argument("--quick", action="store_true", help="serving: few rounds, each short")
    parser.add_argument("--only", choices=PARTS, help="serving: one part")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    # So that every `finally` runs, and no server is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in options.names or NAMES:
        print(f"measuring {name} ...", file=sys.stderr)
        module = importlib.import_module(f"benchmarks.{name}")
        try:
            measured = (
                module.run(Options(options.quick, options.only)) if name in WITH_OPTIONS else module.run()
            )
        except Absent as error:
            # Said, and passed over where all are measured: not every computer has a cluster.
            print(f"{name} cannot be measured here: {error}", file=sys.stderr)
            if name in options.names:
                return 2
            continue
        _keep(measured, options.out)
    print(f"written: {options.out}/benchmarks.json, {options.out}/benchmarks.md", file=sys.stderr)
    return 0


def _keep(measured: list[Result | Table], out: pathlib.Path) -> None:
    results = [each for each in measured if isinstance(each, Result)]
    tables = [each for each in measured if isinstance(each, Table)]
    record(results, tables, out)
    if tables:
        from benchmarks.plots import draw

        draw(out)
    for result in results:
        goal = f" (goal {result.goal})" if result.goal else ""
        print(f"{result.metric} = {result.value:.4g} {result.unit}{goal}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

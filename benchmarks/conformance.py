"""`python -m benchmarks.conformance [--target local|cluster] [--out FOLDER]`: the cases of tests/conformance, counted.

Both targets unless one is named, one after the other: they share a machine. A case that a target cannot have is
skipped there, with its reason, and is not counted as passed. The cluster is that of $KUBECONFIG; what else it needs is
said in docs/conformance.md, and asked for before anything runs.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.results import DOCS, Result, record

COMMAND = "make conformance"
TARGETS = ("local", "cluster")
MODEL_URI = "CONFORMANCE_MODEL_URI"
FOLDER = pathlib.Path(__file__).parent.parent / "tests" / "conformance"
# What a hung run costs at most; a whole one takes a few minutes.
TIMEOUT_S = 2400.0
# pytest's exit codes of a run that came to its end.
_ENDED = (0, 1)


@dataclass(frozen=True)
class Case:
    """One of a target's; `reason` is empty where it passed."""

    name: str
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Run:
    """A target's cases."""

    target: str
    cases: tuple[Case, ...]

    def of(self, outcome: str) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.outcome == outcome)

    def line(self) -> str:
        counts = (
            f"{len(found)} {outcome}" for outcome in ("failed", "skipped") if (found := self.of(outcome))
        )
        return ", ".join([f"{self.target} {len(self.of('passed'))} of {len(self.cases)}", *counts])


def main(argv: Sequence[str]) -> int:
    """Exit code 1 where a case failed, 2 where a target cannot be run at all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, action="append", help="default: both")
    parser.add_argument("--out", type=pathlib.Path, default=DOCS, help="where the figures go (default: docs)")
    options = parser.parse_args(argv)
    targets = options.target or TARGETS
    if "cluster" in targets and not os.environ.get(MODEL_URI):
        parser.error(
            f"${MODEL_URI} is not set, the storageUri of a model that the cluster reads; hint: docs/conformance.md"
        )
    runs = [_run(target) for target in targets]
    record(figures(runs), docs=options.out)
    for run in runs:
        for case in (*run.of("failed"), *run.of("skipped")):
            print(f"  {run.target}: {case.outcome} {case.name}: {case.reason}")
    is_good = not any(run.of("failed") for run in runs)
    print(f"{'✓' if is_good else '✗'} conformance: {'; '.join(run.line() for run in runs)}")
    return 0 if is_good else 1


def figures(runs: Sequence[Run]) -> list[Result]:
    """conformance.<target>.passed of each target that ran, and conformance.total."""
    total = max(len(run.cases) for run in runs)
    found = [_count("total", total, "cases that both targets are asked", "")]
    for run in runs:
        others = (*run.of("failed"), *run.of("skipped"))
        note = "; ".join(f"{case.outcome}: {case.name} ({case.reason})" for case in others)
        found.append(_count(f"{run.target}.passed", len(run.of("passed")), note, "all"))
    return found


def _count(name: str, count: int, note: str, goal: str) -> Result:
    return Result(f"conformance.{name}", count, "cases", count, count, 1, COMMAND, goal, note)


def _run(target: str) -> Run:
    """pytest's own output is shown as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            str(FOLDER),
            f"--target={target}",
            "-q",
            f"--junitxml={report}",
        ]
        ran = subprocess.run(command, timeout=TIMEOUT_S, check=False)
        if ran.returncode not in _ENDED:
            raise SystemExit(2)
        return Run(target, read(report.read_text()))


def read(report: str) -> tuple[Case, ...]:
    """The cases of a report in JUnit's XML; one that could not be set up has failed."""
    return tuple(_case(each) for each in ElementTree.fromstring(report).iter("testcase"))


def _case(element: ElementTree.Element) -> Case:
    module = element.get("classname", "").rpartition(".")[2]
    name = f"{module}::{element.get('name')}"
    for tag, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = element.find(tag)
        if found is not None:
            return Case(name, outcome, " ".join(found.get("message", "").split())[:200])
    return Case(name, "passed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

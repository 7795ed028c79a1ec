"""The arithmetic and the page of the benchmarks; the measuring itself is `make bench`."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys

import pytest

# By path: the checkout's root must not be on sys.path, where its `transformers` would stand for the library's.
_PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "results.py"
_SPEC = importlib.util.spec_from_file_location("benchmark_results", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
results = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = results
_SPEC.loader.exec_module(results)


def test_percentile_is_the_nearest_rank() -> None:
    samples = [float(i) for i in range(1, 101)]
    assert results.percentile(samples, 99) == 99
    assert results.percentile(samples, 100) == 100
    assert results.percentile([3.0, 1.0, 2.0], 50) == 2
    assert results.percentile([7.0], 1) == 7


def test_a_later_run_replaces_its_metrics_only(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "DOCS", tmp_path)
    results.record([results.summarise("a.s", [1.0, 2.0, 3.0], "s", command="make bench-a", goal="< 2")])
    results.record([results.summarise("b.ms", [5.0], "ms", command="make bench-b", note="what b means")])
    results.record([results.summarise("a.s", [4.0], "s", command="make bench-a")])
    known = json.loads((tmp_path / "benchmarks.json").read_text())
    assert {metric: entry["value"] for metric, entry in known.items()} == {"a.s": 4.0, "b.ms": 5.0}
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| `a.s` | 4 s |" in page
    assert "- `b.ms`: what b means" in page

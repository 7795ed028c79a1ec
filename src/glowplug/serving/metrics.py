"""Prometheus metrics of one server process, without a client library on the hot path.

KServe's histograms by their own names, and ours. Where user code has imported prometheus_client, its registry is
shown too; a family that both have is shown once, with the samples of both.
"""

from __future__ import annotations

import os
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

# prometheus_client's defaults, which KServe uses, with finer steps below 5 ms: a boosted tree takes 0.3 ms.
BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
)  # fmt: skip
BUCKETS_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """One family of histograms, labelled by model."""

    def __init__(self, name: str, text: str, buckets: Sequence[float] = BUCKETS_S) -> None:
        self.name = name
        self.text = text
        self._buckets = buckets
        self._series: dict[str, _Series] = {}

    def observe(self, model: str, value: float, times: int = 1) -> None:
        """Counts one observation, or several of one value."""
        series = self._series.get(model)
        if series is None:
            series = self._series[model] = _Series(len(self._buckets) + 1)
        series.counts[bisect_left(self._buckets, value)] += times
        series.total += value * times

    def lines(self) -> Iterable[str]:
        """The samples in text form."""
        for model, series in self._series.items():
            label = f'model_name="{_escape(model)}"'
            running = 0
            for bound, count in zip((*map(str, self._buckets), "+Inf"), series.counts, strict=True):
                running += count
                yield f'{self.name}_bucket{{{label},le="{bound}"}} {running}'
            yield f"{self.name}_count{{{label}}} {running}"
            yield f"{self.name}_sum{{{label}}} {series.total!r}"


class _Series:
    __slots__ = ("counts", "total")

    def __init__(self, count: int) -> None:
        self.counts = [0] * count
        self.total = 0.0


class Metrics:
    """What one server counts; owned by its data plane."""

    def __init__(self) -> None:
        self.preprocess = Histogram("request_preprocess_seconds", "pre-process request latency")
        self.predict = Histogram("request_predict_seconds", "predict request latency")
        self.postprocess = Histogram("request_postprocess_seconds", "post-process request latency")
        self.queue = Histogram("glowplug_queue_seconds", "time that requests waited for their batch")
        self.batch_size = Histogram("glowplug_batch_rows", "rows that were predicted at once", BUCKETS_ROWS)
        self.in_flight = 0
        self.start_to_ready_s: float | None = None
        # By model.
        self.facts: dict[str, dict[str, str]] = {}
        self._requests: dict[tuple[str, str, str], int] = {}
        self._dropped: dict[tuple[str, str], int] = {}

    def count(self, model: str, protocol: str, code: str) -> None:
        """Counts an answered request; `model` must be a model that exists, or empty (labels are kept for ever)."""
        key = (model, protocol, code)
        self._requests[key] = self._requests.get(key, 0) + 1

    def drop(self, model: str, reason: str) -> None:
        """Counts a request that cost no prediction: `deadline`, `overload` or `cancelled`; `model` as above."""
        key = (model, reason)
        self._dropped[key] = self._dropped.get(key, 0) + 1

    def render(self) -> bytes:
        """The page at /metrics."""
        families: dict[str, list[str]] = {}
        for histogram in (self.preprocess, self.predict, self.postprocess, self.queue, self.batch_size):
            _add(families, histogram.name, "histogram", histogram.text, histogram.lines())
        requests = (
            f'glowplug_requests_total{{model_name="{_escape(model)}",protocol="{protocol}",code="{code}"}} {count}'
            for (model, protocol, code), count in self._requests.items()
        )
        _add(families, "glowplug_requests_total", "counter", "inference requests answered", requests)
        dropped = (
            f'glowplug_requests_dropped_total{{model_name="{_escape(model)}",reason="{reason}"}} {count}'
            for (model, reason), count in self._dropped.items()
        )
        text = "inference requests that were dropped before they cost a prediction"
        _add(families, "glowplug_requests_dropped_total", "counter", text, dropped)
        _add_gauge(families, "glowplug_requests_in_flight", "inference requests being served", self.in_flight)
        if self.start_to_ready_s is not None:
            text = "from the start of the process until it was ready"
            _add_gauge(families, "glowplug_start_to_ready_seconds", text, self.start_to_ready_s)
        info = (
            f'glowplug_model_info{{model_name="{_escape(model)}",key="{_escape(key)}",value="{_escape(value)}"}} 1'
            for model, facts in self.facts.items()
            for key, value in facts.items()
        )
        _add(families, "glowplug_model_info", "gauge", "how a model predicts, in words", info)
        for name, (kind, text, value) in process_samples().items():
            _add(families, name, kind, text, [f"{name} {value!r}"])
        _merge_client_library(families)
        return ("\n".join(line for family in families.values() for line in family) + "\n").encode()


def _add(families: dict[str, list[str]], name: str, kind: str, text: str, lines: Iterable[str]) -> None:
    families[name] = [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines]


def _add_gauge(families: dict[str, list[str]], name: str, text: str, value: float) -> None:
    _add(families, name, "gauge", text, [f"{name} {value!r}"])


def _merge_client_library(families: dict[str, list[str]]) -> None:
    library = sys.modules.get("prometheus_client")
    if library is None:
        return
    name = ""
    has_process = True
    for line in library.generate_latest(library.REGISTRY).decode().splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            has_process = name.startswith("process_") and name in families
            if not has_process:
                families.setdefault(name, [])
        if has_process or not name:
            continue
        family = families[name]
        # Only the first owner of a family describes it.
        if not line.startswith("#") or not any(known.startswith(line[:7]) for known in family):
            family.append(line)


def process_samples() -> Mapping[str, tuple[str, str, float]]:
    """CPU time, memory and start of this process, by prometheus_client's names; memory on Linux only."""
    samples: dict[str, tuple[str, str, float]] = {
        "process_cpu_seconds_total": ("counter", "user and system CPU time", time.process_time())
    }
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/uptime", "rb") as file:
            uptime_s = float(file.read().split()[0])
    except OSError:
        return samples
    resident = float(pages * os.sysconf("SC_PAGE_SIZE"))
    started_s = time.time() - uptime_s + ticks / os.sysconf("SC_CLK_TCK")
    samples["process_resident_memory_bytes"] = ("gauge", "resident memory", resident)
    samples["process_start_time_seconds"] = ("gauge", "start, seconds since the epoch", started_s)
    return samples


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

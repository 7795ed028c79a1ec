"""A workload that takes milliseconds: a line through made-up rows, least squares, the mean as the naive baseline.

`options`: `noise` of the labels, `slope` of the first feature from `shift` (a date) on, `labelled_to` (a date after
which no label is known), `features` (how many), `stop` (a date from which on there are no rows), `worse` spoils the
trained model, `slow_s` lengthens training.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from glowplug.errors import FeatureError, StorageError
from glowplug.registry.models import RegistryConfig
from glowplug.registry.signature import Signature
from glowplug_pipelines.rows import Float64s, Int64s, Rows, milliseconds
from glowplug_pipelines.run import Request
from glowplug_pipelines.settings import GateSettings, Settings, Span, WindowSettings
from glowplug_pipelines.workload import Progress

NEW_YEAR = datetime(2026, 1, 1, tzinfo=timezone.utc)
WINDOW = WindowSettings(days=30, holdout_days=10, validation_days=3, gap_hours=6, min_training_rows=500)
_ROWS_PER_HOUR = 8


@dataclass(frozen=True)
class Line:
    weights: Float64s
    names: tuple[str, ...]
    importance: tuple[float, ...] | None = None

    def predict(self, rows: Rows) -> Float64s:
        return np.asarray(rows.features.astype(np.float64) @ self.weights[:-1] + self.weights[-1])


class Toy:
    unit: ClassVar[str] = "points"
    slices: ClassVar[tuple[str, ...]] = ("colour",)

    def __init__(self, settings: Settings) -> None:
        self._options: Mapping[str, Any] = {"noise": 1.0, "slope": 3.0, "features": 3, **settings.options}
        self._names = tuple(f"x{column}" for column in range(self._options["features"]))

    @property
    def schema_hash(self) -> str:
        return "-".join(self._names)

    @property
    def signature(self) -> Signature:
        return Signature(dict.fromkeys(self._names, "float"), {"prediction": "float"})

    def rows(self, span: Span, progress: Progress) -> Rows:
        if self._options.get("broken"):
            raise FeatureError(self._options["broken"])
        progress("rows", 0, 0)
        stop = min(span.stop, _date(self._options.get("stop", "2099-01-01")))
        hours = max(0, int((stop - span.start).total_seconds() // 3600))
        count = hours * _ROWS_PER_HOUR
        event_ms: Int64s = milliseconds(span.start) + np.arange(count, dtype=np.int64) * (
            3_600_000 // _ROWS_PER_HOUR
        )
        # The same moment has the same row in every window.
        seeds = np.random.default_rng(7).standard_normal((5, 400_000))
        place: Int64s = (event_ms - milliseconds(NEW_YEAR)) // (3_600_000 // _ROWS_PER_HOUR) + 200_000
        features = np.stack([seeds[column][place] for column in range(len(self._names))], axis=1).astype(
            np.float32
        )
        is_late = event_ms >= milliseconds(_date(self._options.get("shift", "2000-01-01")))
        slope = np.where(is_late, self._options["slope"], 3.0)
        labels = slope * features[:, 0] + self._options["noise"] * seeds[4][place]
        labels[event_ms >= milliseconds(_date(self._options.get("labelled_to", "2099-01-01")))] = np.nan
        colours = np.array(["blue", "green", "red"])[np.arange(count) % 3]
        return Rows(features, self._names, labels, event_ms, {"colour": colours})

    def train(self, fit: Rows, validation: Rows, directory: Path, progress: Progress) -> Mapping[str, float]:
        design = np.column_stack([fit.features, np.ones(len(fit))])
        weights = np.linalg.lstsq(design, fit.labels, rcond=None)[0] + float(self._options.get("worse", 0))
        time.sleep(float(self._options.get("slow_s", 0)))
        np.savez(directory / "line.npz", weights=weights, names=np.array(fit.names))
        return {"rows": float(len(fit))}

    def load(self, directory: Path) -> Line:
        try:
            with np.load(directory / "line.npz") as stored:
                return Line(stored["weights"], tuple(str(name) for name in stored["names"]))
        except OSError as error:
            raise StorageError(f"{directory} has no line: {error}") from error

    def naive(self, known: Rows, rows: Rows) -> Float64s:
        return np.full(len(rows), known.labels.mean())

    def losses(self, predicted: Float64s, labels: Float64s) -> Float64s:
        return np.abs(predicted - labels)


def settings(work_dir: Path, registry: RegistryConfig, model: str = "toy", **options: Any) -> Settings:
    return Settings(
        model=model,
        workload="unit.pipelines.toy:Toy",
        offline_url="",
        registry=registry,
        work_dir=work_dir,
        window=WINDOW,
        gate=GateSettings(resamples=500, max_latency_ratio=0),
        options=options,
    )


def request(run_id: str, model: str = "toy", day: int = 60) -> Request:
    """A run whose window ends `day` days into the year."""
    return Request(run_id, model, WINDOW.before(NEW_YEAR + timedelta(days=day)))


def _date(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)

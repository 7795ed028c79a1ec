"""The flights workload of the pipelines: rows by point in time, the model, the route's median as the naive baseline.

`options` of the settings: `featureView`, a file (default: the one of the lookup transformer), and `rounds`, at most
how many trees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xgboost

import glowplug
from glowplug.errors import ConfigError, FeatureError, StorageError
from glowplug.features import offline
from glowplug.features.offline_training import training_set
from glowplug.features.parse import read_view
from glowplug.features.view import FeatureView
from glowplug.registry.signature import Signature
from glowplug_flights import dataset
from glowplug_flights.training import MODEL_FILE, PARAMS, ROUNDS, Part, fit, save
from glowplug_pipelines.rows import Float64s, Rows, Texts
from glowplug_pipelines.settings import Settings, Span
from glowplug_pipelines.workload import Progress

_VIEW = "transformers/feature-lookup/feature_view.yaml"
_OPTIONS = frozenset({"featureView", "rounds"})
# The gate looks at these; the route is there for the baseline, and has too few rows each.
_ROUTE = "route"


@dataclass(frozen=True)
class FlightsPredictor:
    """A booster that was read back."""

    booster: xgboost.Booster

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.booster.feature_names or ())

    @property
    def importance(self) -> tuple[float, ...] | None:
        gains = self.booster.get_score(importance_type="total_gain")
        return tuple(float(gains.get(name, 0.0)) for name in self.names)

    def predict(self, rows: Rows) -> Float64s:
        return np.asarray(self.booster.inplace_predict(rows.features), dtype=np.float64)


class Flights:
    """See `glowplug_pipelines.workload.Workload`. The label is the arrival delay in minutes."""

    unit: ClassVar[str] = "min"
    slices: ClassVar[tuple[str, ...]] = ("carrier", "origin", "part_of_day", "distance")

    def __init__(self, settings: Settings) -> None:
        """Raises `ConfigError` and `FeatureError` for options and a feature view that are wrong."""
        unknown = sorted(set(settings.options) - _OPTIONS)
        if unknown:
            raise ConfigError(
                f"options.{unknown[0]} is unknown, must be one of {', '.join(sorted(_OPTIONS))}"
            )
        self.view: FeatureView = read_view(Path(settings.options.get("featureView") or _shipped_view()))
        self._offline_url = settings.offline_url
        self._rounds = int(settings.options.get("rounds", ROUNDS))

    @property
    def schema_hash(self) -> str:
        return self.view.schema_hash

    @property
    def signature(self) -> Signature:
        return Signature(dict.fromkeys(self.view.feature_names, "float"), {"prediction": "float"})

    def rows(self, span: Span, progress: Progress) -> Rows:
        """Flights that were not cancelled; a delay is known once the flight has arrived."""
        progress("point-in-time training set", 0, 0)
        start, stop = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (span.start, span.stop))
        with offline.connect() as connection, offline.open_store(self.view, self._offline_url) as store:
            dataset.load(connection, start, stop)
            made = training_set(connection, store, _labelled(start, stop))
        columns = (*self.slices, _ROUTE)
        return Rows(
            features=made.features,
            names=self.view.feature_names,
            labels=np.ma.filled(np.ma.asarray(made.extras["label"], dtype=np.float64), np.nan),
            event_ms=made.event_ms,
            slices={name: _texts(made.extras[f"by_{name}"]) for name in columns},
        )

    def train(
        self, fit_on: Rows, validation: Rows, directory: Path, progress: Progress
    ) -> Mapping[str, float]:
        trained = fit(self.view, _part(fit_on), _part(validation), progress, self._rounds)
        save(trained, self.view, directory)
        return trained.metrics()

    def load(self, directory: Path) -> FlightsPredictor:
        path = directory / MODEL_FILE
        try:
            booster = xgboost.Booster({"nthread": PARAMS["nthread"]}, model_file=path)
        except (xgboost.core.XGBoostError, OSError) as error:
            raise StorageError(f"{path} cannot be read as a model: {error}") from error
        if not booster.feature_names:
            raise FeatureError(f"{path} does not say which features it was trained on")
        return FlightsPredictor(booster)

    def naive(self, known: Rows, rows: Rows) -> Float64s:
        """The median delay of the route, of all flights where the route is new."""
        names, place = np.unique(known.slices[_ROUTE], return_inverse=True)
        order = np.argsort(place, kind="stable")
        parts = np.split(known.labels[order], np.cumsum(np.bincount(place))[:-1])
        medians = {str(name): float(np.median(part)) for name, part in zip(names, parts, strict=True)}
        everywhere = float(np.median(known.labels))
        return np.array([medians.get(str(route), everywhere) for route in rows.slices[_ROUTE]])

    def losses(self, predicted: Float64s, labels: Float64s) -> Float64s:
        """Absolute errors in minutes."""
        return np.abs(predicted - labels)


def _part(rows: Rows) -> Part:
    return Part(rows.features, rows.labels, rows.slices[_ROUTE])


def _labelled(start: str, stop: str) -> str:
    """SQL of the flights scheduled in [start, stop): entities, label if known by `stop`, columns to slice by."""
    return f"""
        SELECT origin, dest, strftime(scheduled_hour, '%Y-%m-%dT%H:%MZ') AS scheduled_hour, carrier,
               coalesce(tailnum, '') AS tailnum, scheduled_hour AS event_timestamp,
               CASE WHEN arrived_at < TIMESTAMP '{stop}' THEN CAST(arr_delay AS DOUBLE) END AS label,
               carrier AS by_carrier, origin AS by_origin, origin || '-' || dest AS by_route,
               CASE WHEN hour < 9 THEN '05-09' WHEN hour < 13 THEN '09-13' WHEN hour < 17 THEN '13-17'
                    ELSE '17-24' END AS by_part_of_day,
               CASE WHEN distance < 500 THEN 'under 500 mi' WHEN distance < 1000 THEN '500-1000 mi'
                    ELSE 'over 1000 mi' END AS by_distance
        FROM flights
        WHERE arr_delay IS NOT NULL
          AND scheduled_hour >= TIMESTAMP '{start}' AND scheduled_hour < TIMESTAMP '{stop}'
        ORDER BY scheduled_at, carrier, flight, origin
    """


def _texts(column: Any) -> Texts:
    return np.asarray(column).astype(np.str_)


def _shipped_view() -> Path:
    """The transformer's own, in a checkout or in an installed package."""
    package = Path(glowplug.__file__).resolve().parent
    for root in (package / "units", package.parents[1]):
        if (root / _VIEW).is_file():
            return root / _VIEW
    raise ConfigError(f"{_VIEW} is not here", hint="name the file in options.featureView")

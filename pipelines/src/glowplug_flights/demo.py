"""The whole flights workload on one computer, step by step, and real flights to try the model with.

Owns a data directory's part of it: `offline/` (Parquet, unless the store is elsewhere), `mlflow/` (registry), and the
model below `volumes/<namespace>/models/flights`, which is `pvc://models/flights` to an InferenceService. Each step
reports its progress; none of them prints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from glowplug.errors import FeatureError
from glowplug.features import offline
from glowplug.features.offline import open_store
from glowplug.features.offline_materialize import Range, materialize
from glowplug.features.offline_training import training_set
from glowplug.features.online import OnlineConfig
from glowplug.features.view import FeatureView
from glowplug.registry.models import Candidate, ModelVersion, RegistryConfig, register
from glowplug_flights.tables import build_tables, spine
from glowplug_flights.training import ROUNDS, SCHEMA_ATTRIBUTE, Trained, mean_absolute_error, save, train

MODEL_NAME = "flights"
Progress = Callable[[str, int, int], None]
"""(what, done, total): total 0 while it is not known. May be called from a worker thread."""


@dataclass(frozen=True)
class Period:
    """UTC dates: history and training from `start`, early stopping on `validation`, to be served from `serving` on,
    and the data's end. Each is the first day of its part; the last, the first day that is not in it."""

    start: str = "2013-01-01"
    validation: str = "2013-03-18"
    serving: str = "2013-04-01"
    stop: str = "2013-05-01"


@dataclass(frozen=True)
class Flight:
    """A real flight: its entity ids, and how late it arrived (minutes; negative is early)."""

    name: str
    entities: dict[str, str]
    scheduled_hour: datetime
    arr_delay: float

    def body(self) -> dict[str, Any]:
        """The V2 JSON request for this flight alone."""
        return request_body([self])


@dataclass(frozen=True)
class Evaluation:
    """Mean absolute errors in minutes over `flights` flights: the model's and the naive baselines'."""

    flights: int
    mae: float
    baselines: dict[str, float]

    @property
    def best_baseline(self) -> tuple[str, float]:
        return min(self.baselines.items(), key=lambda item: item[1])

    @property
    def improvement_percent(self) -> float:
        """How much lower the model's error is than the best baseline's."""
        return 100 * (1 - self.mae / self.best_baseline[1])


def request_body(flights: Sequence[Flight]) -> dict[str, Any]:
    """One V2 JSON request for all the flights: a BYTES tensor [n] for each entity."""
    return {
        "inputs": [
            {
                "name": name,
                "datatype": "BYTES",
                "shape": [len(flights)],
                "data": [flight.entities[name] for flight in flights],
            }
            for name in (flights[0].entities if flights else ())
        ]
    }


class FlightsDemo:
    """The steps in order: `prepare_offline`, `materialize`, `train`, `register`; then `sample_requests`, `evaluate`.

    Not for two threads at once. `close` it when done.
    """

    def __init__(
        self,
        data_dir: Path,
        view: FeatureView,
        progress: Progress = lambda what, done, total: None,
        *,
        period: Period | None = None,
        namespace: str = "default",
        rounds: int = ROUNDS,
        offline_url: str | None = None,
    ) -> None:
        self.view = view
        self.model_dir = data_dir / "volumes" / namespace / "models" / MODEL_NAME
        self.registry = RegistryConfig.local(data_dir / "mlflow")
        self.store = open_store(view, offline_url or data_dir / "offline" / view.name)
        self._period = period or Period()
        self._progress = progress
        self._rounds = rounds
        self._connection = offline.connect()
        self._trained: Trained | None = None

    def close(self) -> None:
        self._connection.close()
        self.store.close()

    def prepare_offline(self) -> dict[str, int]:
        """Raw files → the view's offline tables; rows by group."""
        return build_tables(
            self._connection, self.store, self._period.start, self._period.stop, self._progress
        )

    async def materialize(self, redis_url: str, *, incremental: bool = False) -> dict[str, int]:
        """Offline → Redis: what is needed to serve the flights from `serving` on; rows by group.

        `incremental` writes only what is new since the last time.
        """
        stop_ms = _ms(self._period.stop)
        from_serving = Range(stop_ms, _ms(self._period.serving))
        # A group whose key has the hour in it is looked up for that hour only; the others by their newest row.
        ranges = {
            group.name: from_serving if "scheduled_hour" in group.keys else Range(stop_ms)
            for group in self.view.groups
        }
        config = OnlineConfig(redis_url)
        return await materialize(self.store, config, ranges, self._progress, incremental=incremental)

    def train(self) -> Trained:
        """Fit on the months before `serving` and write the model directory."""
        self._progress("point-in-time training set", 0, 0)
        data = training_set(self._connection, self.store, spine(self._period.start, self._period.serving))
        self._trained = train(self.view, data, _ms(self._period.validation), self._progress, self._rounds)
        save(self._trained, self.view, self.model_dir)
        return self._trained

    def register(self) -> ModelVersion:
        """The model directory as a version in MLflow, alias champion. Takes about 8 s: MLflow's import, its tables."""
        trained = self._need_trained()
        candidate = Candidate(
            name=MODEL_NAME,
            directory=self.model_dir,
            metrics=trained.metrics(),
            params={"trained_from": self._period.start, "trained_to": self._period.serving},
            tags={SCHEMA_ATTRIBUTE: self.view.schema_hash},
        )
        return register(self.registry, candidate, progress=self._progress)

    def sample_requests(self, count: int, month: int = 4) -> list[Flight]:
        """`count` real flights of that month of 2013, the same ones each time, in the order of their hours.

        Raises `FeatureError` for a month that was not materialized.
        """
        start, stop = f"2013-{month:02}-01", f"2013-{month + 1:02}-01" if month < 12 else "2014-01-01"
        if start < self._period.serving or stop > self._period.stop:
            raise FeatureError(
                f"month {month} is not served: only {self._period.serving} up to {self._period.stop} is"
            )
        rows = self._connection.execute(
            f"SELECT * FROM (SELECT * FROM ({spine(start, stop)}) ORDER BY hash(flight, event_timestamp), origin "
            f"LIMIT ?) ORDER BY event_timestamp, flight, origin",
            [count],
        ).fetchnumpy()
        names = [entity.name for entity in self.view.entities]
        return [
            Flight(
                name=str(rows["flight"][index]),
                entities={name: str(rows[name][index]) for name in names},
                scheduled_hour=_utc(rows["event_timestamp"][index]),
                arr_delay=float(rows["arr_delay"][index]),
            )
            for index in range(len(rows["flight"]))
        ]

    def evaluate(self, flights: Sequence[Flight], predictions: Sequence[float]) -> Evaluation:
        """The model's error on these flights beside the baselines', which know the training months only."""
        actual = np.array([flight.arr_delay for flight in flights])
        predicted = np.asarray(predictions, dtype=np.float64)
        if actual.shape != predicted.shape:
            raise FeatureError(f"{len(predicted)} predictions for {len(actual)} flights")
        routes = np.array([f"{flight.entities['origin']}-{flight.entities['dest']}" for flight in flights])
        baselines = self._need_trained().baselines.errors(actual, routes)
        return Evaluation(len(flights), mean_absolute_error(predicted, actual), baselines)

    def _need_trained(self) -> Trained:
        if self._trained is None:
            raise FeatureError("no model was trained yet")
        return self._trained


def _ms(date: str) -> int:
    return int(datetime.fromisoformat(date).replace(tzinfo=timezone.utc).timestamp() * 1000)


def _utc(value: np.datetime64) -> datetime:
    microseconds = int(value.astype("datetime64[us]").astype(np.int64))
    return datetime.fromtimestamp(microseconds / 1e6, tz=timezone.utc)

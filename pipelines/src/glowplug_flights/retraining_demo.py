"""The flights of 2013 as a stream: which of them are asked about when, and the features that grow along with them.

Owns what the loop's demo and benchmark replay: the plan of the days, the flights by day, and the offline and online
tables, which are built part by part as the replay gets there. Sends nothing and starts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import numpy as np

from glowplug.features import offline
from glowplug.features.offline import open_store
from glowplug.features.offline_materialize import Range, materialize
from glowplug.features.offline_training import training_set
from glowplug.features.online import OnlineConfig
from glowplug.features.view import FeatureView
from glowplug_flights.dataset import load
from glowplug_flights.tables import build_tables, spine
from glowplug_flights.workload import Flights
from glowplug_pipelines.rows import Float32s, Float64s, Int64s, Rows
from glowplug_pipelines.workload import Progress, silent

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Plan:
    """UTC dates, and how they are replayed.

    History begins at `start`; the first model is of what was before `serving`; from `mistake` on a challenger with a
    mistake is tried; `stop` is the first day that is not replayed. `share` of the flights are asked about. `tables`
    is how many months of features are built at a time; `first_rounds` and `rounds` are at most how many trees the
    first model and the later ones have. `drift` are flags of the detector, `window` of the pipeline's settings.
    """

    start: str = "2013-01-01"
    serving: str = "2013-04-01"
    mistake: str = "2013-12-01"
    stop: str = "2014-01-01"
    share: float = 1.0
    label_days: int = 2
    rows_a_request: int = 300
    rows_in_rollout: int = 12
    tables: int = 3
    first_rounds: int = 250
    rounds: int = 250
    gates: str = "errors<=+15%, p50<=3x, loss<=1.25x"
    interval: str = "3s"
    drift: dict[str, str] = field(default_factory=lambda: {"min_error_ratio": "1.3"})
    gate: dict[str, float] = field(default_factory=dict)
    window: dict[str, float] = field(
        default_factory=lambda: {
            "days": 365,
            "holdoutDays": 14,
            "validationDays": 14,
            "minTrainingRows": 2000,
        }
    )


@dataclass(frozen=True)
class Batch:
    """Flights of one day that are asked about in one request: entities by name, delays in minutes, when scheduled."""

    id: str
    entities: dict[str, list[str]]
    delays: Float64s
    event_ms: Int64s

    def body(self) -> dict[str, Any]:
        """The V2 JSON request."""
        inputs = [
            {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": values}
            for name, values in self.entities.items()
        ]
        return {"id": self.id, "inputs": inputs}


@dataclass(frozen=True)
class Stream:
    """The flights that arrived within the plan's replay, in time's order."""

    entities: dict[str, Any]
    delays: Float64s
    event_ms: Int64s

    def day(self, day: date, rows: int, mark: str) -> Iterator[Batch]:
        """The day's flights, at most `rows` in a request; ids begin with the day and have `mark`."""
        return self.between(midnight_ms(day), midnight_ms(day) + DAY_MS, rows, f"{day}-{mark}")

    def between(self, start_ms: int, stop_ms: int, rows: int, mark: str) -> Iterator[Batch]:
        """Those scheduled in [start, stop)."""
        first, last = np.searchsorted(self.event_ms, [start_ms, stop_ms])
        for number, place in enumerate(range(int(first), int(last), rows)):
            part = slice(place, min(place + rows, int(last)))
            yield Batch(
                id=f"{mark}-{number}",
                entities={
                    name: [str(each) for each in column[part]] for name, column in self.entities.items()
                },
                delays=self.delays[part],
                event_ms=self.event_ms[part],
            )


class Tables:
    """The view's offline tables and what is served of them, up to a day that moves on. `close` it.

    The next part is built in a thread of its own while the present one is replayed.
    """

    def __init__(self, view: FeatureView, offline_url: str, redis_url: str, plan: Plan) -> None:
        self.view, self._offline_url, self._redis_url, self._plan = view, offline_url, redis_url, plan
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="feature tables")
        self._parts = list(_parts(plan))
        self._ahead: Future[dict[str, int]] | None = None
        self._until = ""

    def close(self) -> None:
        """Waits for what is being built."""
        self._pool.shutdown(cancel_futures=True)

    def build_history(self, progress: Progress) -> dict[str, int]:
        """What was known before anything was served; rows by group."""
        plan = self._plan
        with offline.connect() as connection, open_store(self.view, self._offline_url) as store:
            return build_tables(connection, store, plan.start, plan.serving, progress)

    def reach(self, day: date) -> str:
        """Returns when `day` can be served: the end of what is there if there is more than before, else ""."""
        if self._until and day.isoformat() < self._until:
            return ""
        waited = self._ahead or self._begin()
        waited.result()
        self._until = self._parts.pop(0)[1]
        self._ahead = self._begin() if self._parts else None
        return self._until

    def _begin(self) -> Future[dict[str, int]]:
        return self._pool.submit(self._build, *self._parts[0])

    def _build(self, start: str, stop: str) -> dict[str, int]:
        ranges = {
            group.name: Range(_ms(stop), _ms(self._plan.serving))
            if "scheduled_hour" in group.keys
            else Range(_ms(stop))
            for group in self.view.groups
        }
        with offline.connect() as connection, open_store(self.view, self._offline_url) as store:
            build_tables(connection, store, start, stop, silent, since=self._plan.start)
            config = OnlineConfig(self._redis_url)
            return anyio.run(lambda: materialize(store, config, ranges, incremental=True))


class AnHourOff(Flights):
    """The mistake that the demo makes: delays that are an hour off, by a clock of another time zone."""

    def train(self, fit_on: Rows, validation: Rows, directory: Path, progress: Progress) -> Any:
        wrong = [replace(rows, labels=rows.labels + 60) for rows in (fit_on, validation)]
        return super().train(wrong[0], wrong[1], directory, progress)


def stream(view: FeatureView, plan: Plan) -> Stream:
    """The flights to be replayed; the same ones each time."""
    with offline.connect() as connection:
        load(connection, plan.serving, plan.stop)
        rows = connection.execute(_replayed(plan)).fetchnumpy()
    return Stream(
        entities={entity.name: rows[entity.name] for entity in view.entities},
        delays=np.asarray(rows["arr_delay"], dtype=np.float64),
        event_ms=rows["event_timestamp"].astype("datetime64[ms]").astype(np.int64),
    )


def features_of_stream(view: FeatureView, offline_url: str, plan: Plan) -> Float32s:
    """What the offline tables know of the replayed flights, in the stream's order: float32 [n, features]."""
    with offline.connect() as connection, open_store(view, offline_url) as store:
        load(connection, plan.serving, plan.stop)
        return training_set(connection, store, _replayed(plan)).features


def _replayed(plan: Plan) -> str:
    chosen = f"hash(origin, dest, carrier, tailnum, event_timestamp) % 1000 < {math.ceil(1000 * plan.share)}"
    return f"""
        SELECT * EXCLUDE (flight, route) FROM ({spine(plan.serving, plan.stop)}) WHERE {chosen}
        ORDER BY event_timestamp, origin, dest, carrier, tailnum, arr_delay
    """


def days(start: str, stop: str) -> Iterator[date]:
    """[start, stop)."""
    day, end = date.fromisoformat(start), date.fromisoformat(stop)
    while day < end:
        yield day
        day += timedelta(days=1)


def midnight_ms(day: date) -> int:
    """Unix time of the day's beginning, UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp() * 1000)


def _parts(plan: Plan) -> Iterator[tuple[str, str]]:
    """[serving, stop) in parts that end with months."""
    start, stop = date.fromisoformat(plan.serving), date.fromisoformat(plan.stop)
    while start < stop:
        months = 12 * start.year + start.month - 1 + plan.tables
        end = min(date(months // 12, months % 12 + 1, 1), stop)
        yield start.isoformat(), end.isoformat()
        start = end


def _ms(day: str) -> int:
    return midnight_ms(date.fromisoformat(day))

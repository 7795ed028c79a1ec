"""The offline stores: point-in-time joins, and materialization into Redis, in full and by watermark.

A history of 1,000,000 rows (20,000 keys, an hour apart, 20 features) in either store, PostgreSQL on this computer; a
spine of 200,000 moments; a day's 20,000 rows for the increment.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
import time

import anyio
import duckdb

from benchmarks.results import Result, summarise
from glowplug.features import offline
from glowplug.features.offline import OfflineStore, open_store
from glowplug.features.offline_materialize import Range, materialize
from glowplug.features.offline_training import training_set
from glowplug.features.online import OnlineConfig
from glowplug.features.redis_server import start_redis
from glowplug.features.view import Entity, EntityType, Feature, FeatureView, Group

_COMMAND = "make bench-offline"
_KEYS, _HOURS, _FEATURES, _MOMENTS, _ROUNDS = 20_000, 50, 20, 200_000, 3
_HOUR_MS = 3_600_000
_NOTE = f"{_KEYS * _HOURS:,} rows of history, {_FEATURES} features, "
_GROUP = Group(
    "user",
    ("user_id",),
    "users",
    "event_timestamp",
    tuple(Feature(f"f{number}", default=0.0) for number in range(_FEATURES)),
)
_VIEW = FeatureView("bench", (Entity("user_id", EntityType.INT64),), (_GROUP,))


def run() -> list[Result]:
    """Both stores; the server is the tests' own."""
    sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests"))
    from local.postgres_lab import postgres_server

    results = []
    with tempfile.TemporaryDirectory(prefix="glowplug-offline-") as folder, postgres_server() as postgres:
        for name, url in (("parquet", folder), ("postgres", postgres.url)):
            with open_store(_VIEW, url) as store:
                results += _measure(name, store, pathlib.Path(folder))
    return results


def _measure(name: str, store: OfflineStore, folder: pathlib.Path) -> list[Result]:
    with offline.connect() as connection:
        started = time.perf_counter()
        store.write(connection, _GROUP, _history(0, _HOURS), "history")
        writes = [_KEYS * _HOURS / (time.perf_counter() - started)]
        joins = [_join(connection, store) for _ in range(_ROUNDS)]
        full, increments = anyio.run(_materialized, connection, store, folder / name)
    made = [
        ("offline.write", name, writes, "written with their checks"),
        ("offline.pit_join", name, joins, f"{_MOMENTS:,} moments joined"),
        ("features.materialize", f"{name}.full", full, f"{_KEYS:,} newest rows into Redis"),
        ("features.materialize", f"{name}.incremental", increments, f"{_KEYS:,} new rows into Redis"),
    ]
    return [
        summarise(f"{metric}.{which}.rows_per_s", figures, "rows/s", command=_COMMAND, note=_NOTE + what)
        for metric, which, figures, what in made
    ]


def _join(connection: duckdb.DuckDBPyConnection, store: OfflineStore) -> float:
    spine = (
        f"SELECT CAST(hash(i) % {_KEYS} AS BIGINT) AS user_id, i AS label, "
        f"make_timestamp(CAST(hash(i + 1) % {_HOURS * _HOUR_MS} AS BIGINT) * 1000) AS event_timestamp "
        f"FROM range({_MOMENTS}) t(i)"
    )
    started = time.perf_counter()
    found = training_set(connection, store, spine)
    assert found.report.total("missing") < _MOMENTS / 10
    return _MOMENTS / (time.perf_counter() - started)


async def _materialized(
    connection: duckdb.DuckDBPyConnection, store: OfflineStore, folder: pathlib.Path
) -> tuple[list[float], list[float]]:
    full: list[float] = []
    increments: list[float] = []
    async with start_redis(folder) as redis:
        config = OnlineConfig(redis.url)
        # Another end each time, or there would be nothing left to do.
        for stop_ms in range(_HOURS * _HOUR_MS, _HOURS * _HOUR_MS + _ROUNDS):
            full += [await _timed(store, config, stop_ms, incremental=False)]
        for hour in range(_HOURS + 1, _HOURS + 1 + _ROUNDS):
            store.write(connection, _GROUP, _history(hour, hour + 1), f"hour-{hour}")
            increments.append(await _timed(store, config, (hour + 1) * _HOUR_MS, incremental=True))
    return full, increments


async def _timed(store: OfflineStore, config: OnlineConfig, stop_ms: int, *, incremental: bool) -> float:
    started = time.perf_counter()
    written = await materialize(store, config, {"user": Range(stop_ms)}, incremental=incremental)
    assert written == {"user": _KEYS}
    return _KEYS / (time.perf_counter() - started)


def _history(start: int, stop: int) -> str:
    features = ", ".join(f"(user_id + hour * {number + 1}) / 7 AS f{number}" for number in range(_FEATURES))
    return (
        f"SELECT user_id, make_timestamp(hour * {_HOUR_MS}000) AS event_timestamp, {features} "
        f"FROM range({_KEYS}) users(user_id), range({start}, {stop}) hours(hour)"
    )

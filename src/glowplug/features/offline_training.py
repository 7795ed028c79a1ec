"""Point-in-time-correct training sets: for each labelled moment, the rows that were known then.

For a spine row at time t, each group gives its newest row with timestamp <= t and the same keys (an as-of join), to the
microsecond; never a later one. What is missing or stale at t goes through the same `resolve` as a request would. The
spine is DuckDB's SQL; the join is done by the store, wherever its rows are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from glowplug.errors import FeatureError
from glowplug.features.offline import OfflineStore
from glowplug.features.offline_draft import name
from glowplug.features.packing import Float32s, Int64s
from glowplug.features.resolve import Report, resolve
from glowplug.features.view import EntityType, FeatureView

_SPINE = "glowplug_spine"
_TYPES = {EntityType.STRING: "VARCHAR", EntityType.INT64: "BIGINT"}


@dataclass(frozen=True)
class TrainingSet:
    """`features` float32 [n, features of the view], `event_ms` int64 [n], `extras` the spine's other columns [n].

    Rows are in the spine's order. `schema_hash` is the view's: it travels with the rows to the model.
    """

    features: Float32s
    event_ms: Int64s
    extras: dict[str, Any]
    report: Report
    schema_hash: str = ""


def training_set(
    connection: duckdb.DuckDBPyConnection, store: OfflineStore, spine: str, timestamp: str = "event_timestamp"
) -> TrainingSet:
    """The features known at each row of `spine`, an SQL query with a column for each entity, `timestamp` (UTC), and
    any others (labels), which are passed through as `extras`.

    Raises `FeatureError` for a table that is not there or a spine that does not fit the view, `StorageError` where the
    store does not answer, and `InferenceError` where a policy is `error`, as a request would.
    """
    try:
        _check_columns(connection, store.view, spine, timestamp)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {_SPINE} AS {_typed(store.view, spine, timestamp)}")
        entities = ", ".join(name(each.name) for each in store.view.entities)
        columns = connection.execute(
            f"SELECT * EXCLUDE ({entities}, {name(timestamp)}, _row) FROM {_SPINE} ORDER BY _row"
        ).fetchnumpy()
    except duckdb.Error as error:
        raise FeatureError(f"the spine of a training set of view {store.view.name} fails: {error}") from error
    moments = columns.pop("_at_us")
    if np.ma.getmaskarray(np.ma.asarray(moments)).any():
        raise FeatureError(f"the spine has rows without a {timestamp}, must be a timestamp (UTC) in each")
    event_ms = np.asarray(moments, dtype=np.int64) // 1000
    rows = store.as_of(connection, _SPINE, len(event_ms))
    features, report = resolve(store.view, rows, event_ms)
    return TrainingSet(features, event_ms, dict(columns), report, store.view.schema_hash)


def _typed(view: FeatureView, spine: str, timestamp: str) -> str:
    entities = [
        f"CAST({name(each.name)} AS {_TYPES[each.type]}) AS {name(each.name)}" for each in view.entities
    ]
    moment = f"CASE WHEN isfinite({name(timestamp)}) THEN epoch_us({name(timestamp)}) END"
    row = "row_number() OVER () - 1 AS _row"
    return f"SELECT * REPLACE ({', '.join(entities)}), {row}, {moment} AS _at_us FROM ({spine})"


def _check_columns(
    connection: duckdb.DuckDBPyConnection, view: FeatureView, spine: str, timestamp: str
) -> None:
    described = connection.execute(f"DESCRIBE SELECT * FROM ({spine})").fetchall()
    types = {str(row[0]): str(row[1]) for row in described}
    problems = [
        f"column {each.name} is missing, must be {each.type.value} (an entity)"
        for each in view.entities
        if each.name not in types
    ]
    found = types.get(timestamp, "missing")
    if not found.startswith(("TIMESTAMP", "DATE")):
        problems.append(f"column {timestamp} is {found}, must be a timestamp (UTC)")
    if problems:
        raise FeatureError(f"the spine of a training set of view {view.name}: {'; '.join(problems)}")

"""Point-in-time-correct training sets: for each labelled moment, the rows that were known then.

For a spine row at time t, each group gives its newest row with timestamp <= t and the same keys (an as-of join);
never a later one. What is missing or stale at t goes through the same `resolve` as a request would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from glowplug.features.offline import OfflineStore, float_columns
from glowplug.features.packing import Float32s, Int64s, Rows
from glowplug.features.resolve import Report, resolve
from glowplug.features.view import Group


@dataclass(frozen=True)
class TrainingSet:
    """`features` float32 [n, features of the view], `event_ms` int64 [n], `extras` the spine's other columns [n].

    Rows are in the spine's order.
    """

    features: Float32s
    event_ms: Int64s
    extras: dict[str, Any]
    report: Report


def training_set(
    connection: duckdb.DuckDBPyConnection, store: OfflineStore, spine: str, timestamp: str = "event_timestamp"
) -> TrainingSet:
    """The features known at each row of `spine`, an SQL query with a column for each entity, `timestamp` (UTC), and
    any others (labels), which are passed through as `extras`.

    Raises `FeatureError` for a table that is not there, and `InferenceError` where a policy is `error`, as a request
    would.
    """
    entities = [entity.name for entity in store.view.entities]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE spine AS "
        f"SELECT *, row_number() OVER () AS _row, epoch_ms({timestamp}) AS _at FROM ({spine})"
    )
    columns = connection.execute("SELECT * FROM spine ORDER BY _row").fetchnumpy()
    event_ms = np.asarray(columns["_at"], dtype=np.int64)
    rows = [_as_of(connection, store, group) for group in store.view.groups]
    features, report = resolve(store.view, rows, event_ms)
    hidden = {*entities, timestamp, "_row", "_at"}
    extras = {name: values for name, values in columns.items() if name not in hidden}
    return TrainingSet(features, event_ms, extras, report)


def _as_of(connection: duckdb.DuckDBPyConnection, store: OfflineStore, group: Group) -> Rows:
    keys = " AND ".join(f's."{key}" = g."{key}"' for key in group.keys)
    features = ", ".join(f'g."{name}"' for name in group.feature_names)
    columns = connection.execute(
        f"SELECT g._event_ms, {features} FROM spine s ASOF LEFT JOIN ({store.relation(group)}) g "
        f"ON {keys} AND s._at >= g._event_ms ORDER BY s._row"
    ).fetchnumpy()
    known = columns["_event_ms"]
    found = ~np.ma.getmaskarray(known)
    return Rows(float_columns(columns, group.feature_names), np.ma.filled(known, 0).astype(np.int64), found)

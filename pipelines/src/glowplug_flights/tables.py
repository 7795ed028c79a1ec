"""Raw flights → the view's offline tables, and the spine of a training set.

The features are SQL, a file for each group in `sql/`. None of them sees a flight's own outcome: see `sql/known.sql`.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from glowplug.features.offline import OfflineStore
from glowplug_flights.dataset import load, sql

HOUR_FORMAT = "%Y-%m-%dT%H:%MZ"
Progress = Callable[[str, int, int], None]
"""(what, done, total): total 0 while it is not known."""


def build_tables(
    connection: duckdb.DuckDBPyConnection, store: OfflineStore, start: str, stop: str, progress: Progress
) -> dict[str, int]:
    """Write the offline table of every group from the flights scheduled in [start, stop); rows by group.

    `start` and `stop` are UTC dates such as 2013-01-01. Raises `FeatureError` where a table does not fit the view.
    """
    total = len(store.view.groups) + 1
    progress("reading flights, weather, planes, airports", 0, total)
    load(connection, start, stop)
    connection.execute(sql("known"))
    rows = {}
    for step, group in enumerate(store.view.groups, start=1):
        progress(f"building {group.source}", step, total)
        rows[group.name] = store.write(connection, group, sql(group.source), part=f"{start}_{stop}")
    progress("offline tables written", total, total)
    return rows


def spine(start: str, stop: str) -> str:
    """SQL of the flights that arrived, scheduled in [start, stop), with their entities, label and identity.

    Needs the tables of `load`. Columns: the view's entities, `event_timestamp`, `arr_delay` (minutes, the label),
    `flight`, `route`.
    """
    return f"""
        SELECT origin, dest, strftime(scheduled_hour, '{HOUR_FORMAT}') AS scheduled_hour, carrier,
               coalesce(tailnum, '') AS tailnum, scheduled_hour AS event_timestamp,
               CAST(arr_delay AS DOUBLE) AS arr_delay, carrier || flight AS flight, origin || '-' || dest AS route
        FROM flights
        WHERE arr_delay IS NOT NULL
          AND scheduled_hour >= TIMESTAMP '{start}' AND scheduled_hour < TIMESTAMP '{stop}'
        ORDER BY scheduled_at, carrier, flight, origin
    """

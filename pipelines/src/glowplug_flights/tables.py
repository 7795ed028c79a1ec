"""Raw flights → the view's offline tables, and the spine of a training set.

The features are SQL, a file for each group in `sql/`. None of them sees a flight's own outcome: see `sql/known.sql`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta

import duckdb

from glowplug.errors import FeatureError
from glowplug.features.offline import OfflineStore
from glowplug.features.view import Group
from glowplug_flights.dataset import load, sql

# The aircraft's register is of one day: one part, whatever the window.
TIMELESS = ("plane",)
HOUR_FORMAT = "%Y-%m-%dT%H:%MZ"
Progress = Callable[[str, int, int], None]
"""(what, done, total): total 0 while it is not known."""


def build_tables(
    connection: duckdb.DuckDBPyConnection,
    store: OfflineStore,
    start: str,
    stop: str,
    progress: Progress,
    *,
    since: str | None = None,
) -> dict[str, int]:
    """Write the offline table of every group from the flights scheduled in [start, stop); rows by group.

    All are UTC dates such as 2013-01-01. A month is a part, and is replaced as a whole (by what the window has of it
    where it ends before the month does), so that history grows month by month. `since`, `start` unless it is given, is
    where the raw data begin to be read: with the same `since` a window's rows are the same, bit for bit, whatever else
    is built with them. Raises `FeatureError` where a table does not fit the view or the raw data have changed, and
    `StorageError` where the store does not answer.
    """
    first, end = date.fromisoformat(start), date.fromisoformat(stop)
    begin = min(date.fromisoformat(since or start), first)
    # The whole of its first month, as far as it is known: a later window must not take away what is there.
    first = max(begin, first.replace(day=1))
    total = len(store.view.groups) + 1
    progress("reading flights, weather, planes, airports", 0, total)
    # One day on: the timetable of the last evening, local time, is known before it.
    load(connection, begin.isoformat(), (end + timedelta(days=1)).isoformat())
    connection.execute(sql("known"))
    rows = {}
    for step, group in enumerate(store.view.groups, start=1):
        progress(f"building {group.source}", step, total)
        rows[group.name] = _build(connection, store, group, first, end)
    progress("offline tables written", total, total)
    return rows


def _build(
    connection: duckdb.DuckDBPyConnection, store: OfflineStore, group: Group, first: date, end: date
) -> int:
    if group.source in TIMELESS:
        return store.write(connection, group, sql(group.source))
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE built AS {_between(sql(group.source), first, end)}")
    except duckdb.Error as error:
        raise FeatureError(f"table {group.source} of group {group.name} cannot be built: {error}") from error
    return sum(
        store.write(connection, group, _between("SELECT * FROM built", start, stop), f"{start:%Y-%m}")
        for start, stop in months(first, end)
    )


def months(first: date, end: date) -> Iterator[tuple[date, date]]:
    """[first, end) cut where months begin."""
    while first < end:
        following = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
        yield first, min(following, end)
        first = following


def _between(query: str, start: date, stop: date) -> str:
    return (
        f"SELECT * FROM ({query}) "
        f"WHERE event_timestamp >= TIMESTAMP '{start}' AND event_timestamp < TIMESTAMP '{stop}'"
    )


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

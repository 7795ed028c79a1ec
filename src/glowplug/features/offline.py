"""The offline store, embedded: history of every group as Parquet files, queried with DuckDB.

    <directory>/<source>/<part>.parquet     join keys, timestamp (UTC), features as FLOAT

A part is written beside its place and renamed, so that a reader sees the old one or the new one. Rows of one table
may be spread over parts (months, say); no two rows of a table have the same keys and timestamp.
Features are rounded to float32 on the way in: what is read here for training is, bit for bit, what goes into Redis.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from glowplug.errors import FeatureError
from glowplug.features.online_writer import RowBatch
from glowplug.features.packing import Float32s
from glowplug.features.view import FeatureView, Group

# DuckDB's names for what an entity's values may be in a table.
_KEY_TYPES = {"string": "VARCHAR", "int64": "BIGINT"}


def connect(threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that downloads no extension: what it can do does not hang on the network.

    Nothing here converts by the session's time zone: its setting needs the ICU extension, and results would differ
    from computer to computer.
    """
    config: dict[str, Any] = {"autoinstall_known_extensions": "false"}
    if threads is not None:
        config["threads"] = threads
    return duckdb.connect(":memory:", config=config)


@dataclass(frozen=True)
class OfflineStore:
    """The tables of one feature view below `directory`."""

    view: FeatureView
    directory: Path

    def files(self, group: Group) -> list[Path]:
        return sorted((self.directory / group.source).glob("*.parquet"))

    def write(
        self, connection: duckdb.DuckDBPyConnection, group: Group, query: str, part: str = "all"
    ) -> int:
        """Make `query`'s rows the part `part` of the group's table; returns their number.

        The query yields the group's join keys, its timestamp and its features by name, in any order. Raises
        `FeatureError` for a column that is absent or of no fitting type, a NULL in keys or timestamp, or two rows
        with the same keys and timestamp within the part.
        """
        place = self.directory / group.source / f"{part}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}.draft")
        try:
            connection.execute(f"CREATE OR REPLACE TEMP TABLE draft AS {self._typed(group, query)}")
            _check_draft(connection, group)
            schema = f"{{glowplug_schema_hash: '{group.schema_hash.hex()}'}}"
            connection.execute(
                f"COPY draft TO {_quote(str(draft))} (FORMAT parquet, COMPRESSION zstd, KV_METADATA {schema})"
            )
            rows = _count(connection, "draft")
            _replace(draft, place)
        except duckdb.Error as error:
            raise FeatureError(
                f"table {group.source} of group {group.name} cannot be written: {error}"
            ) from error
        finally:
            draft.unlink(missing_ok=True)
            connection.execute("DROP TABLE IF EXISTS draft")
        return rows

    def relation(self, group: Group, start_ms: int | None = None, stop_ms: int | None = None) -> str:
        """SQL of the group's rows with start_ms <= timestamp < stop_ms (Unix ms): keys…, `_event_ms`, features….

        Raises `FeatureError` if the table was never written or was written for another feature list.
        """
        self._check_files(group)
        keys = ", ".join(_name(key) for key in group.keys)
        features = ", ".join(_name(name) for name in group.feature_names)
        event_ms = f"epoch_ms({_name(group.timestamp)})"
        bounds = [f"{event_ms} >= {start_ms}"] if start_ms is not None else []
        bounds += [f"{event_ms} < {stop_ms}"] if stop_ms is not None else []
        where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
        files = ", ".join(_quote(str(path)) for path in self.files(group))
        source = f"read_parquet([{files}])"
        return f"SELECT {keys}, {event_ms} AS _event_ms, {features} FROM {source}{where}"

    def prepare_latest(
        self,
        connection: duckdb.DuckDBPyConnection,
        group: Group,
        *,
        start_ms: int | None = None,
        stop_ms: int | None = None,
    ) -> int:
        """Sort out the newest row of each key with start_ms <= timestamp < stop_ms, and count them.

        They are ordered by key, so that the same files give the same order and a reader can continue.
        """
        keys = ", ".join(_name(key) for key in group.keys)
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE latest AS SELECT * FROM ({self.relation(group, start_ms, stop_ms)}) "
            f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY _event_ms DESC) = 1 ORDER BY {keys}"
        )
        return _count(connection, "latest")

    def latest(
        self, connection: duckdb.DuckDBPyConnection, group: Group, *, skip: int = 0, batch_rows: int = 4000
    ) -> Iterator[RowBatch]:
        """What `prepare_latest` sorted out for this group on this connection, behind the first `skip` rows."""
        keys = ", ".join(f"CAST({_name(key)} AS VARCHAR) AS {_name(key)}" for key in group.keys)
        features = ", ".join(_name(name) for name in group.feature_names)
        for start in range(skip, _count(connection, "latest"), batch_rows):
            columns = connection.execute(
                f"SELECT {keys}, _event_ms, {features} FROM latest "
                f"WHERE rowid >= {start} AND rowid < {start + batch_rows} ORDER BY rowid"
            ).fetchnumpy()
            yield RowBatch(
                [columns[key].tolist() for key in group.keys],
                np.asarray(columns["_event_ms"], dtype=np.int64),
                float_columns(columns, group.feature_names),
            )

    def _typed(self, group: Group, query: str) -> str:
        types = {entity.name: _KEY_TYPES[entity.type.value] for entity in self.view.entities}
        columns = [f"CAST({_name(key)} AS {types[key]}) AS {_name(key)}" for key in group.keys]
        # The same UTC moment whether it has a zone or not; a CAST would go by the session's zone.
        columns.append(f"make_timestamp(epoch_us({_name(group.timestamp)})) AS {_name(group.timestamp)}")
        # NaN and infinity are not values of a feature: they are NULL here, and the view says what NULL becomes.
        columns += [
            f"CASE WHEN isfinite(CAST({_name(name)} AS FLOAT)) THEN CAST({_name(name)} AS FLOAT) END AS {_name(name)}"
            for name in group.feature_names
        ]
        order = ", ".join(_name(name) for name in (*group.keys, group.timestamp))
        return f"SELECT {', '.join(columns)} FROM ({query}) ORDER BY {order}"

    def _check_files(self, group: Group) -> None:
        files = self.files(group)
        if not files:
            raise FeatureError(f"table {group.source} of group {group.name} is not in {self.directory}")
        with duckdb.connect(":memory:") as connection:
            found = connection.execute(
                "SELECT file_name, decode(value) FROM parquet_kv_metadata(?) "
                "WHERE decode(key) = 'glowplug_schema_hash'",
                [[str(path) for path in files]],
            ).fetchall()
        hashes = dict(found)
        for path in files:
            if hashes.get(str(path)) != group.schema_hash.hex():
                raise FeatureError(
                    f"{path} was written for the feature list {hashes.get(str(path))}, "
                    f"must be {group.schema_hash.hex()}",
                    hint="build the offline table again",
                )


def float_columns(columns: dict[str, Any], names: tuple[str, ...]) -> Float32s:
    """DuckDB's columns of n values each, masked where NULL → float32 [n, names] with NaN for NULL."""
    return np.stack([np.ma.filled(columns[name].astype(np.float32), np.nan) for name in names], axis=1)


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def _check_draft(connection: duckdb.DuckDBPyConnection, group: Group) -> None:
    identity = (*group.keys, group.timestamp)
    nulls = " + ".join(f"count(*) FILTER ({_name(name)} IS NULL)" for name in identity)
    names = ", ".join(_name(name) for name in identity)
    (empty,) = connection.execute(f"SELECT {nulls} FROM draft").fetchall()[0]
    if empty:
        raise FeatureError(f"table {group.source}: {empty} NULLs in {names}, must be none")
    twice = connection.execute(
        f"SELECT {names}, count(*) FROM draft GROUP BY {names} HAVING count(*) > 1 LIMIT 1"
    ).fetchall()
    if twice:
        *values, count = twice[0]
        raise FeatureError(f"table {group.source}: {count} rows have {names} = {values}, must be one")


def _replace(draft: Path, place: Path) -> None:
    """Rename with the data on disk first: after a power cut the part is the old one or the new one."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(place)
    directory = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

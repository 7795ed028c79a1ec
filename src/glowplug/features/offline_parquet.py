"""The offline store, embedded: Parquet files, queried with DuckDB.

    <directory>/<source>/<part>.parquet     join keys, timestamp (UTC), features as FLOAT

A part is written beside its place and renamed; what it was written for is in its own metadata. Writing is for one
process at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from glowplug.errors import FeatureError
from glowplug.features import offline, offline_draft
from glowplug.features.offline import BATCH_ROWS, Part
from glowplug.features.offline_draft import name, quote
from glowplug.features.online_writer import RowBatch
from glowplug.features.packing import Float32s, Rows
from glowplug.features.view import FeatureView, Group

_METADATA = "glowplug_part"
_SCAN = "glowplug_scan"


@dataclass(frozen=True)
class ParquetStore:
    """The tables of one feature view below `directory`."""

    view: FeatureView
    directory: Path

    @property
    def url(self) -> str:
        return str(self.directory)

    def __enter__(self) -> ParquetStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held open."""

    def write(
        self, connection: duckdb.DuckDBPyConnection, group: Group, query: str, part: str = "all"
    ) -> int:
        place = self._place(group, part)
        draft = place.with_name(f".{place.name}.{os.getpid()}.draft")
        with offline_draft.drafted(connection, self.view, group, query, part) as written:
            self._check_other_parts(connection, group, written)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                metadata = json.dumps({**asdict(written), "layout": offline.layout(self.view, group)})
                connection.execute(
                    f"COPY {offline_draft.TABLE} TO {quote(str(draft))} (FORMAT parquet, COMPRESSION zstd, "
                    f"KV_METADATA {{{_METADATA}: {quote(metadata)}}})"
                )
                _replace(draft, place)
            except (duckdb.Error, OSError) as error:
                raise FeatureError(
                    f"table {group.source} of group {group.name} cannot be written to {place}: {error}"
                ) from error
            finally:
                draft.unlink(missing_ok=True)
        return written.rows

    def parts(self, group: Group) -> dict[str, Part]:
        return {part: each for part, (each, _) in self._described(group).items()}

    def scan(
        self,
        group: Group,
        start_ms: int | None = None,
        stop_ms: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[RowBatch]:
        keys = ", ".join(name(key) for key in group.keys)
        with self._sorted_out(group, start_ms, stop_ms, f"ORDER BY {keys}, _event_us") as rows:
            yield from rows.batches(0, batch_rows)

    @contextmanager
    def latest(
        self, group: Group, start_ms: int | None = None, stop_ms: int | None = None
    ) -> Iterator[_SortedOut]:
        keys = ", ".join(name(key) for key in group.keys)
        newest = (
            f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY _event_us DESC) = 1 ORDER BY {keys}"
        )
        with self._sorted_out(group, start_ms, stop_ms, newest) as rows:
            yield rows

    def as_of(self, connection: duckdb.DuckDBPyConnection, spine: str, count: int) -> list[Rows]:
        return [self._group_as_of(connection, group, spine, count) for group in self.view.groups]

    def _group_as_of(
        self, connection: duckdb.DuckDBPyConnection, group: Group, spine: str, count: int
    ) -> Rows:
        keys = " AND ".join(f"s.{name(key)} = g.{name(key)}" for key in group.keys)
        features = ", ".join(f"g.{name(each)}" for each in group.feature_names)
        try:
            columns = connection.execute(
                f"SELECT g._event_us, {features} FROM {spine} s ASOF LEFT JOIN ({self._relation(group)}) g "
                f"ON {keys} AND s._at_us >= g._event_us ORDER BY s._row"
            ).fetchnumpy()
        except duckdb.Error as error:
            raise self._unreadable(group, error) from error
        known: Any = np.ma.asarray(columns["_event_us"])
        found = ~np.ma.getmaskarray(known)
        event_ms = np.ma.filled(known, 0).astype(np.int64) // 1000
        return Rows(_float_columns(columns, group.feature_names), event_ms, found)

    def _relation(self, group: Group, start_ms: int | None = None, stop_ms: int | None = None) -> str:
        """SQL of the group's rows: keys…, `_event_us`, features…. Raises `FeatureError` where they do not fit."""
        described = self._described(group)
        offline.check_layouts(self, group, {part: columns for part, (_, columns) in described.items()})
        keys = ", ".join(name(key) for key in group.keys)
        features = ", ".join(name(each) for each in group.feature_names)
        event_us = f"epoch_us({name(group.timestamp)})"
        files = ", ".join(quote(str(self._place(group, part))) for part in described)
        bounds = _where(event_us, start_ms, stop_ms)
        return f"SELECT {keys}, {event_us} AS _event_us, {features} FROM read_parquet([{files}]){bounds}"

    @contextmanager
    def _sorted_out(
        self, group: Group, start_ms: int | None, stop_ms: int | None, order: str
    ) -> Iterator[_SortedOut]:
        with offline.connect() as connection:
            try:
                connection.execute(
                    f"CREATE TEMP TABLE {_SCAN} AS SELECT * FROM ({self._relation(group, start_ms, stop_ms)}) {order}"
                )
            except duckdb.Error as error:
                raise self._unreadable(group, error) from error
            yield _SortedOut(connection, group, _count(connection))

    def _check_other_parts(self, connection: duckdb.DuckDBPyConnection, group: Group, written: Part) -> None:
        """Raises `FeatureError` where a row of the draft is in another part too; parts of other months cost nothing."""
        if written.min_ms is None or written.max_ms is None:
            return
        expected = offline.layout(self.view, group)
        names = ", ".join(name(each) for each in (*group.keys, group.timestamp))
        for part, (other, columns) in self._described(group).items():
            if part == written.name or columns != expected or other.min_ms is None or other.max_ms is None:
                continue
            if other.min_ms > written.max_ms or other.max_ms < written.min_ms:
                continue
            twice = connection.execute(
                f"SELECT {names} FROM read_parquet({quote(str(self._place(group, part)))}) "
                f"SEMI JOIN {offline_draft.TABLE} USING ({names}) LIMIT 1"
            ).fetchall()
            if twice:
                raise FeatureError(
                    f"table {group.source} of group {group.name}: part {written.name} has a row with {names} = "
                    f"{list(twice[0])}, and so has part {part}, must be one"
                )

    def _described(self, group: Group) -> dict[str, tuple[Part, tuple[str, ...]]]:
        """Each part and the columns that it was written with, in the order of their names."""
        files = [str(path) for path in sorted((self.directory / group.source).glob("*.parquet"))]
        if not files:
            return {}
        try:
            with offline.connect(threads=1) as connection:
                rows = connection.execute(
                    "SELECT file_name, decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?",
                    [files, _METADATA],
                ).fetchall()
        except duckdb.Error as error:
            raise self._unreadable(group, error) from error
        metadata = {str(file): json.loads(text) for file, text in rows}
        found = {}
        for file in files:
            # A file of somebody else, or of an older version: no columns that could be right.
            entry = metadata.get(
                file, {"version": "", "rows": 0, "min_ms": None, "max_ms": None, "layout": []}
            )
            part = Part(Path(file).stem, entry["version"], entry["rows"], entry["min_ms"], entry["max_ms"])
            found[part.name] = (part, tuple(entry["layout"]))
        return found

    def _unreadable(self, group: Group, error: duckdb.Error) -> FeatureError:
        return FeatureError(
            f"table {group.source} of group {group.name} in {self.url} cannot be read: {error}",
            hint="build the offline table again",
        )

    def _place(self, group: Group, part: str) -> Path:
        return self.directory / group.source / f"{part}.parquet"


@dataclass(frozen=True)
class _SortedOut:
    """Rows in order in a temporary table of `connection`."""

    connection: duckdb.DuckDBPyConnection
    group: Group
    rows: int

    def batches(self, skip: int = 0, batch_rows: int = BATCH_ROWS) -> Iterator[RowBatch]:
        keys = ", ".join(f"CAST({name(key)} AS VARCHAR) AS {name(key)}" for key in self.group.keys)
        features = ", ".join(name(each) for each in self.group.feature_names)
        for start in range(skip, self.rows, batch_rows):
            columns = self.connection.execute(
                f"SELECT {keys}, _event_us, {features} FROM {_SCAN} "
                f"WHERE rowid >= {start} AND rowid < {start + batch_rows} ORDER BY rowid"
            ).fetchnumpy()
            yield RowBatch(
                [columns[key].tolist() for key in self.group.keys],
                np.asarray(columns["_event_us"], dtype=np.int64) // 1000,
                _float_columns(columns, self.group.feature_names),
            )


def _where(column: str, start_ms: int | None, stop_ms: int | None) -> str:
    """` WHERE start <= column < stop`, where `column` is in Unix µs; "" without bounds."""
    bounds = [f"{column} >= {start_ms * 1000}"] if start_ms is not None else []
    bounds += [f"{column} < {stop_ms * 1000}"] if stop_ms is not None else []
    return f" WHERE {' AND '.join(bounds)}" if bounds else ""


def _float_columns(columns: dict[str, Any], names: tuple[str, ...]) -> Float32s:
    """DuckDB's columns of n values each, masked where NULL → float32 [n, names] with NaN for NULL."""
    return np.stack([np.ma.filled(columns[each].astype(np.float32), np.nan) for each in names], axis=1)


def _count(connection: duckdb.DuckDBPyConnection) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {_SCAN}").fetchall()[0][0])


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

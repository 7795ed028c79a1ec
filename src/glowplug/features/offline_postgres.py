"""The offline store in PostgreSQL: the same tables, questions and answers as on Parquet.

    <view>.glowplug_parts          what was written: source, part, columns, version; one row a part
    <view>.<source>_<layout>       the rows of all parts of these columns; unique by keys and timestamp

A part is replaced in one transaction, a reader has one snapshot for all groups. An as-of join is one index look-up for
each moment and group (LATERAL … ORDER BY timestamp DESC LIMIT 1), so that its memory does not grow with history; as a
merge by window functions it was a tenth faster, but sorted the whole history. Text is compared by its bytes
(COLLATE "C"), as DuckDB does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import duckdb
import psycopg

from glowplug.errors import FeatureError
from glowplug.features import offline, offline_draft
from glowplug.features.offline import BATCH_ROWS, Part
from glowplug.features.offline_copy import Connection, copy_in, copy_out, packed, unpacked
from glowplug.features.offline_draft import name
from glowplug.features.online_writer import RowBatch
from glowplug.features.packing import Rows
from glowplug.features.postgres import Database
from glowplug.features.postgres_tables import Registry, Table, table_name
from glowplug.features.view import EntityType, FeatureView, Group

_SPINE = "glowplug_spine"
_TYPES = {EntityType.STRING: 'text COLLATE "C"', EntityType.INT64: "bigint"}


@dataclass(frozen=True)
class PostgresStore:
    """The tables of one feature view in a database's schema of its name. Connects anew for each piece of work."""

    view: FeatureView
    database: Database = field(repr=False)

    @classmethod
    def at(cls, view: FeatureView, url: str) -> PostgresStore:
        """Raises `ConfigError` if `url` cannot be read."""
        return cls(view, Database.at(url))

    @property
    def url(self) -> str:
        return self.database.address

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held open."""

    def write(
        self, connection: duckdb.DuckDBPyConnection, group: Group, query: str, part: str = "all"
    ) -> int:
        with (
            offline_draft.drafted(connection, self.view, group, query, part) as written,
            self.database.transaction(f"table {group.source} of group {group.name}") as session,
        ):
            registry = Registry.created(session, self.view.name, group.source)
            columns = offline.layout(self.view, group)
            table = registry.take(written, columns, self._table_name(group))
            self._fill(connection, session, group, table, written)
        return written.rows

    def parts(self, group: Group) -> dict[str, Part]:
        with self.database.snapshot(f"table {group.source} of group {group.name}") as session:
            return {
                each.part.name: each.part for each in Registry(session, self.view.name, group.source).read()
            }

    def scan(
        self,
        group: Group,
        start_ms: int | None = None,
        stop_ms: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[RowBatch]:
        with self.database.snapshot(f"table {group.source} of group {group.name}") as session:
            table = self._checked(session, group)
            order = ", ".join([*map(name, group.keys), name(group.timestamp)])
            query = f"SELECT {self._row(group)} FROM {table}{self._where(group, start_ms, stop_ms)} ORDER BY {order}"
            yield from _Newest(session, group, query, 0).batches(0, batch_rows)

    @contextmanager
    def latest(
        self, group: Group, start_ms: int | None = None, stop_ms: int | None = None
    ) -> Iterator[_Newest]:
        with self.database.snapshot(f"table {group.source} of group {group.name}") as session:
            table = self._checked(session, group)
            keys = ", ".join(name(key) for key in group.keys)
            rows = f"FROM {table}{self._where(group, start_ms, stop_ms)}"
            newest = f"{keys}, {name(group.timestamp)} DESC"
            # Packed outside, or every row would be, and not the newest ones alone.
            inner = f"SELECT DISTINCT ON ({keys}) * {rows} ORDER BY {newest} OFFSET 0"
            query = f"SELECT {self._row(group)} FROM ({inner}) newest ORDER BY {keys}"
            counted = session.execute(
                f"SELECT count(*) FROM (SELECT DISTINCT {keys} {rows}) each".encode()
            ).fetchone()
            yield _Newest(session, group, query, int(counted[0]) if counted else 0)

    def as_of(self, connection: duckdb.DuckDBPyConnection, spine: str, count: int) -> list[Rows]:
        tables = ", ".join(group.source for group in self.view.groups)
        with self.database.snapshot(f"tables {tables}", is_read_only=False) as session:
            checked = [self._checked(session, group) for group in self.view.groups]
            self._send_spine(connection, session, spine)
            return [
                self._group_as_of(session, group, table, count)
                for group, table in zip(self.view.groups, checked, strict=True)
            ]

    def _group_as_of(self, session: Connection, group: Group, table: str, count: int) -> Rows:
        keys = " AND ".join(f"g.{name(key)} = s.{name(key)}" for key in group.keys)
        moment = name(group.timestamp)
        features = ", ".join(f"coalesce(g.{name(each)}, 'NaN')" for each in group.feature_names)
        query = (
            f"SELECT s._row, g.{moment}, {features} FROM {_SPINE} s JOIN LATERAL "
            f"(SELECT * FROM {table} g WHERE {keys} AND g.{moment} <= s._at ORDER BY g.{moment} DESC LIMIT 1) g ON true"
        )
        rows = Rows.empty(count, len(group.features))
        for numbers, moments_us, values in copy_out(session, query, len(group.features)):
            rows.values[numbers] = values
            rows.event_ms[numbers] = moments_us // 1000
            rows.found[numbers] = True
        return rows

    def _send_spine(self, connection: duckdb.DuckDBPyConnection, session: Connection, spine: str) -> None:
        entities = [f"{name(each.name)} {_TYPES[each.type]}" for each in self.view.entities]
        session.execute(
            f"CREATE TEMP TABLE {_SPINE} (_row bigint, _at timestamptz, {', '.join(entities)}) ON COMMIT DROP".encode()
        )
        names = [name(each.name) for each in self.view.entities]
        texts = [each.name for each in self.view.entities if each.type is EntityType.STRING]
        select = f"SELECT _row, make_timestamp(_at_us) AS _at, {', '.join(names)}"
        copy_in(connection, select, spine, texts, session, _SPINE)
        session.execute(f"ANALYZE {_SPINE}".encode())

    def _fill(
        self,
        connection: duckdb.DuckDBPyConnection,
        session: Connection,
        group: Group,
        table: Table,
        written: Part,
    ) -> None:
        place = f"{name(self.view.name)}.{name(table.name)}"
        columns = ", ".join(name(each.name) for each in offline_draft.columns(self.view, group))
        if table.is_new:
            session.execute(f"CREATE TABLE {place} (_part integer NOT NULL, {self._columns(group)})".encode())
        elif table.is_replaced:
            session.execute(f"DELETE FROM {place} WHERE _part = {table.part_id}".encode())
        texts = [key for key in group.keys if self.view.entity(key).type is EntityType.STRING]
        select = f"SELECT {table.part_id} AS _part, {columns}"
        try:
            copy_in(connection, select, offline_draft.TABLE, texts, session, f"{place} (_part, {columns})")
        except psycopg.errors.UniqueViolation as error:
            # Within the part the draft was checked, so it is another part that has the row.
            raise FeatureError(
                f"table {group.source} of group {group.name}: part {written.name} has a row that another part has, "
                f"must be one: {error.diag.message_detail}"
            ) from error
        if table.is_new:
            # Afterwards: sorting once is faster than a look-up for each row.
            identity = ", ".join([*map(name, group.keys), f"{name(group.timestamp)} DESC"])
            session.execute(f"CREATE UNIQUE INDEX ON {place} ({identity})".encode())
            # Small, and right for what parts are: rows that were written together, of one time.
            brin = f"CREATE INDEX ON {place} USING brin (_part, {name(group.timestamp)})"
            session.execute(brin.encode())
        session.execute(f"ANALYZE {place}".encode())

    def _checked(self, session: Connection, group: Group) -> str:
        """The group's table as SQL. Raises `FeatureError` where it was never written, or with other columns."""
        found = Registry(session, self.view.name, group.source).read()
        offline.check_layouts(self, group, {each.part.name: each.columns for each in found})
        return f"{name(self.view.name)}.{name(self._table_name(group))}"

    def _table_name(self, group: Group) -> str:
        return table_name(group.source, offline.layout_hash(offline.layout(self.view, group)))

    def _columns(self, group: Group) -> str:
        keys = [f"{name(key)} {_TYPES[self.view.entity(key).type]} NOT NULL" for key in group.keys]
        features = [f"{name(each)} real" for each in group.feature_names]
        return ", ".join([*keys, f"{name(group.timestamp)} timestamptz NOT NULL", *features])

    def _row(self, group: Group) -> str:
        values = [f"coalesce({name(each)}, 'NaN')" for each in group.feature_names]
        # Under other names: ORDER BY takes a column of the result before one of the table, and would sort numbers as
        # text.
        keys = [f"{name(key)}::text AS _key_{number}" for number, key in enumerate(group.keys)]
        return ", ".join([*keys, packed(name(group.timestamp), values)])

    def _where(self, group: Group, start_ms: int | None, stop_ms: int | None) -> str:
        moment = name(group.timestamp)
        bounds = [f"{moment} >= {_moment(start_ms)}"] if start_ms is not None else []
        bounds += [f"{moment} < {_moment(stop_ms)}"] if stop_ms is not None else []
        return f" WHERE {' AND '.join(bounds)}" if bounds else ""


@dataclass(frozen=True)
class _Newest:
    """Rows of a query by a cursor in a session's snapshot."""

    session: Connection
    group: Group
    query: str
    rows: int

    def batches(self, skip: int = 0, batch_rows: int = BATCH_ROWS) -> Iterator[RowBatch]:
        # All of it is wanted, not the first rows soon, which is what a cursor is planned for by default.
        self.session.execute("SET LOCAL cursor_tuple_fraction = 1")
        with self.session.cursor("glowplug_rows", binary=True) as cursor:
            cursor.execute(f"{self.query} OFFSET {skip}".encode())
            while rows := cursor.fetchmany(batch_rows):
                *keys, values = zip(*rows, strict=True)
                moments_us, features = unpacked(values, len(self.group.features))
                yield RowBatch([list(key) for key in keys], moments_us // 1000, features)


def _moment(unix_ms: int) -> str:
    """As a timestamptz in SQL, by whole numbers: to_timestamp's float rounds."""
    return f"('epoch'::timestamptz + {unix_ms} * interval '1 millisecond')"

"""A query's rows on their way into the offline store: typed, rounded to float32, checked. The same for every store.

The draft is a table of DuckDB's: keys, timestamp (TIMESTAMP, UTC) and features (FLOAT, never NaN or infinite), in the
order of keys and timestamp.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import duckdb

from glowplug.errors import FeatureError
from glowplug.features.offline import Part
from glowplug.features.view import EntityType, FeatureView, Group

TABLE = "glowplug_draft"
_KEY_TYPES = {EntityType.STRING: "VARCHAR", EntityType.INT64: "BIGINT"}
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_WIDE = ("HUGEINT", "UHUGEINT")
_NUMBERS = (*_INTEGERS, *_WIDE, "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
_TEXTS = ("VARCHAR", "ENUM", "UUID", *_INTEGERS, *_WIDE)
_TIMES = ("TIMESTAMP", "DATE")
# A column of NULLs alone; what may be NULL is checked on the rows.
_NULL = '"NULL"'
# A part's name is a file's name too.
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# What both DuckDB and PostgreSQL hold and write alike.
_FIRST, _END = "0001-01-01", datetime.max.strftime("%Y-%m-%d")


@dataclass(frozen=True)
class Column:
    """One column of the draft: its name, its type in DuckDB, and the types it may come as."""

    name: str
    type: str
    accepts: tuple[str, ...]
    expected: str


def columns(view: FeatureView, group: Group) -> list[Column]:
    """Keys, timestamp, features."""
    found = []
    for key in group.keys:
        kind = view.entity(key).type
        accepts = _TEXTS if kind is EntityType.STRING else (*_INTEGERS, *_WIDE)
        found.append(Column(key, _KEY_TYPES[kind], accepts, f"{kind.value} (a join key)"))
    found.append(Column(group.timestamp, "TIMESTAMP", _TIMES, "a timestamp (UTC)"))
    found += [Column(each.name, "FLOAT", _NUMBERS, f"a number ({each.dtype})") for each in group.features]
    return found


@contextmanager
def drafted(
    connection: duckdb.DuckDBPyConnection, view: FeatureView, group: Group, query: str, part: str
) -> Iterator[Part]:
    """The query's rows as the table TABLE, for the length of the block. Raises `FeatureError`."""
    if not _PART.fullmatch(part):
        raise FeatureError(f"{_table(group)}: part {part[:100]!r}, must be letters, digits, '-', '_' and '.'")
    try:
        _check_columns(connection, view, group, query)
        try:
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {TABLE} AS {_typed(view, group, query)}")
        except duckdb.Error as error:
            raise _unfit(connection, view, group, query, error) from error
        _check_rows(connection, group)
        yield _part(connection, group, part)
    finally:
        connection.execute(f"DROP TABLE IF EXISTS {TABLE}")


def name(text: str) -> str:
    """As an identifier in SQL."""
    return '"' + text.replace('"', '""') + '"'


def quote(text: str) -> str:
    """As a literal in SQL."""
    return "'" + text.replace("'", "''") + "'"


def _check_columns(
    connection: duckdb.DuckDBPyConnection, view: FeatureView, group: Group, query: str
) -> None:
    try:
        described = connection.execute(f"DESCRIBE SELECT * FROM ({query})").fetchall()
    except duckdb.Error as error:
        raise FeatureError(f"{_table(group)} cannot be written: {error}") from error
    types = {str(row[0]): str(row[1]) for row in described}
    problems = []
    for column in columns(view, group):
        found = types.get(column.name)
        if found is None:
            problems.append(f"column {column.name} is missing, must be {column.expected}")
        elif found != _NULL and not found.startswith(column.accepts):
            problems.append(f"column {column.name} is {found}, must be {column.expected}")
    if problems:
        raise FeatureError(
            f"{_table(group)} cannot be written: {'; '.join(problems)}",
            hint="the source has changed, or the query does not fit the view",
        )


def _typed(view: FeatureView, group: Group, query: str) -> str:
    typed = [f"{_cast(each)} AS {name(each.name)}" for each in columns(view, group)]
    order = ", ".join(name(each) for each in (*group.keys, group.timestamp))
    return f"SELECT {', '.join(typed)} FROM ({query}) ORDER BY {order}"


def _cast(column: Column) -> str:
    quoted = name(column.name)
    if column.type == "TIMESTAMP":
        # The same UTC moment whether it has a zone or not; a plain CAST would go by the session's zone.
        return f"CASE WHEN isfinite({quoted}) THEN make_timestamp(epoch_us({quoted})) ELSE {quoted}::TIMESTAMP END"
    cast = f"CAST({quoted} AS {column.type})"
    if column.type != "FLOAT":
        return cast
    # NaN and infinity are not values of a feature: they are NULL here, and the view says what NULL becomes.
    return f"CASE WHEN isfinite({cast}) THEN {cast} END"


def _unfit(
    connection: duckdb.DuckDBPyConnection, view: FeatureView, group: Group, query: str, error: duckdb.Error
) -> FeatureError:
    """Which column has values that do not go into its type; what DuckDB said where none has."""
    try:
        for column in columns(view, group):
            quoted = name(column.name)
            found = connection.execute(
                f"SELECT count(*), any_value(CAST({quoted} AS VARCHAR)) FROM ({query}) "
                f"WHERE {quoted} IS NOT NULL AND TRY_CAST({quoted} AS {column.type}) IS NULL"
            ).fetchall()
            count, example = found[0]
            if count:
                return FeatureError(
                    f"{_table(group)} cannot be written: column {column.name} has {count} values such as "
                    f"{str(example)[:40]}, must be {column.expected}"
                )
    except duckdb.Error:
        # The query itself fails on its rows: its own error says more.
        pass
    return FeatureError(f"{_table(group)} cannot be written: {error}")


def _check_rows(connection: duckdb.DuckDBPyConnection, group: Group) -> None:
    identity = (*group.keys, group.timestamp)
    names = ", ".join(name(each) for each in identity)
    nulls = " + ".join(f"count(*) FILTER ({name(each)} IS NULL)" for each in identity)
    moment = name(group.timestamp)
    odd = f"{moment} < TIMESTAMP '{_FIRST}' OR {moment} >= TIMESTAMP '{_END}'"
    # PostgreSQL's text has no place for it; a table must not fit the one store and not the other.
    zero = " OR ".join(f"contains(CAST({name(key)} AS VARCHAR), chr(0))" for key in group.keys)
    empty, outside, unwritable = connection.execute(
        f"SELECT {nulls}, count(*) FILTER ({odd}), count(*) FILTER ({zero}) FROM {TABLE}"
    ).fetchall()[0]
    if empty:
        raise FeatureError(f"{_table(group)}: {empty} NULLs in {names}, must be none")
    if outside:
        raise FeatureError(
            f"{_table(group)}: {outside} timestamps in column {group.timestamp} are not from {_FIRST} to {_END}"
        )
    if unwritable:
        raise FeatureError(
            f"{_table(group)}: {unwritable} rows have a zero character in {', '.join(group.keys)}"
        )
    twice = connection.execute(
        f"SELECT {names}, count(*) FROM {TABLE} GROUP BY {names} HAVING count(*) > 1 LIMIT 1"
    ).fetchall()
    if twice:
        *values, count = twice[0]
        raise FeatureError(f"{_table(group)}: {count} rows have {names} = {values}, must be one")


def _part(connection: duckdb.DuckDBPyConnection, group: Group, part: str) -> Part:
    moment = name(group.timestamp)
    rows, first, last, content = connection.execute(
        f"SELECT count(*), epoch_us(min({moment})), epoch_us(max({moment})), bit_xor(hash({TABLE})) FROM {TABLE}"
    ).fetchall()[0]
    if not rows:
        return Part(part, f"0-{0:016x}", 0)
    return Part(part, f"{rows}-{content:016x}", rows, first // 1000, last // 1000)


def _table(group: Group) -> str:
    return f"table {group.source} of group {group.name}"

"""The offline store: history of every group, and what may be asked of it. One URL opens either of two.

    /dir, file:///dir              DuckDB on Parquet (`offline_parquet`)
    postgresql://user@host/name    PostgreSQL (`offline_postgres`)

Both hold, for every group, its join keys, its timestamp (UTC) and its features, spread over parts (months, say). A part
is replaced as a whole: a reader sees the old one or the new one. No two rows of a table have the same keys and
timestamp. Features are rounded to float32 on the way in (by the same code, `offline_draft`): what is read here for
training is, bit for bit, what goes into Redis.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import duckdb

from glowplug.errors import ConfigError, FeatureError
from glowplug.features.online_writer import RowBatch
from glowplug.features.packing import Rows
from glowplug.features.view import FeatureView, Group, first_difference

BATCH_ROWS = 4000
_POSTGRES = ("postgresql", "postgres")


@dataclass(frozen=True)
class Part:
    """One part of a group's table. `version` is of its content: the same rows written again have the same one.

    `min_ms` and `max_ms` are the first and the last timestamp in it (Unix ms); None when it has no rows.
    """

    name: str
    version: str
    rows: int
    min_ms: int | None = None
    max_ms: int | None = None


class Latest(Protocol):
    """The newest row of each key, held still; `rows` of them, in an order that is the same for the same parts."""

    @property
    def rows(self) -> int: ...

    def batches(self, skip: int = 0, batch_rows: int = BATCH_ROWS) -> Iterator[RowBatch]: ...


class OfflineStore(Protocol):
    """The tables of one feature view. A context manager; `url` has no secret in it.

    Where a table was never written, or was written with other columns, reading raises `FeatureError`; where the
    database does not answer, everything raises `StorageError`.
    """

    @property
    def view(self) -> FeatureView: ...

    @property
    def url(self) -> str: ...

    def __enter__(self) -> OfflineStore: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None: ...

    def write(
        self, connection: duckdb.DuckDBPyConnection, group: Group, query: str, part: str = "all"
    ) -> int:
        """Make the rows of `query`, DuckDB's SQL on `connection`, the part `part`; returns their number.

        The query yields the group's join keys, its timestamp and its features by name, in any order. Raises
        `FeatureError` for a column that is absent or of no fitting type, a NULL in keys or timestamp, or two rows
        with the same keys and timestamp, in this part or in another.
        """

    def parts(self, group: Group) -> dict[str, Part]:
        """By name; {} when the group was never written."""

    def scan(
        self,
        group: Group,
        start_ms: int | None = None,
        stop_ms: int | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[RowBatch]:
        """Rows with start_ms <= timestamp < stop_ms, in the order of keys and timestamp."""

    def latest(
        self, group: Group, start_ms: int | None = None, stop_ms: int | None = None
    ) -> AbstractContextManager[Latest]:
        """The newest row of each key with start_ms <= timestamp < stop_ms."""

    def as_of(self, connection: duckdb.DuckDBPyConnection, spine: str, count: int) -> list[Rows]:
        """For each group, the newest row known at each of `count` moments, in their order.

        `spine` is a table of `connection`: `_row` 0…count-1, `_at_us` (Unix µs), and the view's entities, typed.
        """


def connect(threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that downloads no extension: what it can do does not hang on the network.

    Nothing here converts by the session's time zone: its setting needs the ICU extension, and results would differ
    from computer to computer.
    """
    config: dict[str, Any] = {"autoinstall_known_extensions": "false"}
    if threads is not None:
        config["threads"] = threads
    return duckdb.connect(":memory:", config=config)


def open_store(view: FeatureView, url: str | Path) -> OfflineStore:
    """The store at a folder's path or at a URL. Raises `ConfigError` for a URL that is neither.

    Nothing is connected to or created yet.
    """
    from glowplug.features.offline_parquet import ParquetStore

    if isinstance(url, Path) or "://" not in url:
        return ParquetStore(view, Path(url))
    scheme = url.partition("://")[0].lower()
    if scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ConfigError(
                f"offline store {url} names no folder of this computer", hint="file:///the/folder"
            )
        return ParquetStore(view, Path(unquote(parts.path)))
    if scheme in _POSTGRES:
        try:
            from glowplug.features.offline_postgres import PostgresStore
        except ImportError as error:
            raise ConfigError(
                f"an offline store in PostgreSQL needs the package {error.name}",
                hint="pip install 'glowplug[pipelines]'",
            ) from error
        return PostgresStore.at(view, url)
    # The URL itself is not repeated: it may hold a password.
    raise ConfigError(
        f"an offline store cannot be at a URL with {scheme[:20]}://",
        hint="a folder, file:///the/folder, or postgresql://user:password@host/database",
    )


def layout(view: FeatureView, group: Group) -> tuple[str, ...]:
    """The columns of the group's table, with their types: what a table must have been written with."""
    return (
        *(f"{key}:{view.entity(key).type.value}" for key in group.keys),
        f"{group.timestamp}:timestamp",
        *(f"{feature.name}:{feature.dtype}" for feature in group.features),
    )


def layout_hash(columns: tuple[str, ...]) -> str:
    """16 hex digits."""
    return hashlib.sha256("\n".join(columns).encode()).hexdigest()[:16]


def check_layouts(store: OfflineStore, group: Group, found: Mapping[str, tuple[str, ...]]) -> None:
    """Raises `FeatureError` if there are no parts, or any of them (name → columns) has other columns than the view."""
    if not found:
        raise FeatureError(
            f"table {group.source} of group {group.name} is not in {store.url}",
            hint="build the offline tables first",
        )
    expected = layout(store.view, group)
    for part, columns in sorted(found.items()):
        if columns != expected:
            raise FeatureError(
                f"table {group.source} of group {group.name}, part {part}, was written with other columns: "
                f"{first_difference(expected, columns)} (layout {layout_hash(columns)}, the view's "
                f"{layout_hash(expected)})",
                hint="build the offline table again",
            )

"""Which parts of a view's tables PostgreSQL holds, with which columns, and in which table.

Parts of other columns lie in other tables, so that a table can be built anew part by part while readers are refused
until it is whole. Writers of one source wait for each other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from glowplug.features.offline import Part, layout_hash
from glowplug.features.offline_copy import Connection
from glowplug.features.offline_draft import name

REGISTRY = "glowplug_parts"
# PostgreSQL cuts names at 63 bytes.
_NAME_BYTES = 63


@dataclass(frozen=True)
class Entry:
    """A part, the columns that it was written with, its number and its table."""

    part: Part
    columns: tuple[str, ...]
    part_id: int
    table: str


@dataclass(frozen=True)
class Table:
    """Where a part is to be written."""

    name: str
    part_id: int
    is_new: bool
    is_replaced: bool


@dataclass(frozen=True)
class Registry:
    """The parts of one source, as a session sees them."""

    session: Connection
    view: str
    source: str

    @classmethod
    def created(cls, session: Connection, view: str, source: str) -> Registry:
        """Made where it is not there yet; other writers of the source wait until the transaction is over."""
        session.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"glowplug/{view}"])
        found = session.execute(
            "SELECT to_regnamespace(%s) IS NOT NULL, to_regclass(%s) IS NOT NULL",
            [name(view), f"{name(view)}.{REGISTRY}"],
        ).fetchone()
        has_schema, has_registry = found or (False, False)
        if not has_schema:
            session.execute(f"CREATE SCHEMA {name(view)}".encode())
        if not has_registry:
            session.execute(
                f"CREATE TABLE {name(view)}.{REGISTRY} (part_id serial PRIMARY KEY, source text NOT NULL, "
                "part text NOT NULL, columns text[] NOT NULL, layout text NOT NULL, table_name text NOT NULL, "
                "version text NOT NULL, rows bigint NOT NULL, min_ms bigint, max_ms bigint, "
                "written_at timestamptz NOT NULL DEFAULT now(), UNIQUE (source, part))".encode()
            )
        return cls(session, view, source)

    def read(self) -> list[Entry]:
        """By part; [] where nothing of the view was ever written."""
        there = self.session.execute("SELECT to_regclass(%s)", [f"{name(self.view)}.{REGISTRY}"]).fetchone()
        if there is None or there[0] is None:
            return []
        rows = self.session.execute(
            f"SELECT part, version, rows, min_ms, max_ms, columns, part_id, table_name FROM {self._place} "
            'WHERE source = %s ORDER BY part COLLATE "C"'.encode(),
            [self.source],
        ).fetchall()
        return [
            Entry(Part(part, version, count, first, last), tuple(columns), part_id, table)
            for part, version, count, first, last, columns, part_id, table in rows
        ]

    def take(self, part: Part, columns: tuple[str, ...], table: str) -> Table:
        """Enter the part. What it was before in a table of other columns is gone with this transaction."""
        before = self.read()
        old = next((each for each in before if each.part.name == part.name), None)
        if old is not None and old.table != table:
            self._remove(old, is_last=sum(each.table == old.table for each in before) == 1)
        entered = self.session.execute(
            f"INSERT INTO {self._place} (source, part, columns, layout, table_name, version, rows, min_ms, max_ms) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (source, part) DO UPDATE SET "
            "columns = EXCLUDED.columns, layout = EXCLUDED.layout, table_name = EXCLUDED.table_name, "
            "version = EXCLUDED.version, rows = EXCLUDED.rows, min_ms = EXCLUDED.min_ms, max_ms = EXCLUDED.max_ms, "
            "written_at = now() RETURNING part_id".encode(),
            [
                self.source, part.name, list(columns), layout_hash(columns), table,
                part.version, part.rows, part.min_ms, part.max_ms,
            ],
        ).fetchone()  # fmt: skip
        assert entered is not None
        return Table(
            name=table,
            part_id=int(entered[0]),
            is_new=all(each.table != table for each in before),
            is_replaced=old is not None and old.table == table,
        )

    def _remove(self, old: Entry, *, is_last: bool) -> None:
        place = f"{name(self.view)}.{name(old.table)}"
        if is_last:
            self.session.execute(f"DROP TABLE {place}".encode())
        else:
            self.session.execute(f"DELETE FROM {place} WHERE _part = {old.part_id}".encode())

    @property
    def _place(self) -> str:
        return f"{name(self.view)}.{REGISTRY}"


def table_name(source: str, layout: str) -> str:
    """The table of a source's rows with these columns, unique also where it has to be cut."""
    if len(source) + 1 + len(layout) <= _NAME_BYTES:
        return f"{source}_{layout}"
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    return f"{source[: _NAME_BYTES - len(layout) - len(digest) - 2]}_{digest}_{layout}"

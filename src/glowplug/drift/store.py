"""The detector's memory on disk: what it said 202 to is counted once, also after a kill.

SQLite in one file. A batch of events is one transaction with a flush: slots, episode, counters, predictions that wait
for labels, events to be sent, and the ids that were seen. Used by one thread at a time.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from glowplug.drift.profile import Doubles
from glowplug.errors import StorageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slots (number INTEGER PRIMARY KEY, document BLOB, counts BLOB);
CREATE TABLE IF NOT EXISTS seen (number INTEGER PRIMARY KEY, id BLOB UNIQUE);
CREATE TABLE IF NOT EXISTS outbox (id TEXT PRIMARY KEY, event BLOB);
CREATE TABLE IF NOT EXISTS predictions (
  number INTEGER PRIMARY KEY, id TEXT, event_id TEXT, at REAL, revision TEXT, "values" BLOB);
CREATE INDEX IF NOT EXISTS predictions_id ON predictions (id);
CREATE INDEX IF NOT EXISTS predictions_event_id ON predictions (event_id);
CREATE TABLE IF NOT EXISTS labels (number INTEGER PRIMARY KEY, id TEXT UNIQUE, at REAL, "values" BLOB);
"""
FILE = "drift.sqlite3"
# What a request that waits takes beside its values, indexes among it; roughly.
ROW_BYTES = 200
_BUSY_TIMEOUT_S = 5.0
# What is longer is known by its hash: an id is chosen by whoever asks.
_MAX_ID = 200


@dataclass(frozen=True)
class Held:
    """Predictions that wait for their labels; NaN where one came."""

    number: int
    revision: str
    values: Doubles


class Store:
    """`directory` None: in memory, for a replay."""

    def __init__(self, directory: Path | None) -> None:
        self._held_bytes: int | None = None
        self._early_bytes: int | None = None
        where = ":memory:"
        try:
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
                where = str(directory / FILE)
            self._db = sqlite3.connect(
                where, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"the detector's state cannot be opened in {directory}: {error}",
                hint="it needs a directory of its own, which it may write to",
            ) from error

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it, or where it raises nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._held_bytes = self._early_bytes = None
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def fact(self, name: str) -> object:
        """A JSON value that was kept, or None."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return orjson.loads(row[0]) if row else None

    def keep(self, name: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, orjson.dumps(value)))

    def slots(self) -> list[tuple[int, bytes, bytes]]:
        """Number, document, counts; in order."""
        return self._db.execute("SELECT number, document, counts FROM slots ORDER BY number").fetchall()

    def keep_slot(self, number: int, document: bytes, counts: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO slots VALUES (?, ?, ?)", (number, document, counts))

    def drop_slots(self, before: int) -> None:
        self._db.execute("DELETE FROM slots WHERE number < ?", (before,))

    def reset(self) -> None:
        """Forget what was counted against another profile. Predictions wait on: their labels are still worth having."""
        self._db.execute("DELETE FROM slots")

    def see(self, id: bytes, most: int) -> bool:
        """Whether it is new. Only the last `most` are known."""
        cursor = self._db.execute("INSERT OR IGNORE INTO seen (id) VALUES (?)", (id,))
        if cursor.rowcount == 0:
            return False
        self._db.execute("DELETE FROM seen WHERE number <= ?", ((cursor.lastrowid or 0) - most,))
        return True

    def remember(self, id: str, event_id: str, at: float, revision: str, values: Doubles, most: int) -> int:
        """Predictions to wait for labels; the oldest requests are forgotten so that all are at most `most` bytes.

        Returns how many were.
        """
        data = values.astype("<f8").tobytes()
        self._db.execute(
            'INSERT INTO predictions (id, event_id, at, revision, "values") VALUES (?, ?, ?, ?, ?)',
            (_short(id), _short(event_id), at, revision, data),
        )
        if self._held_bytes is None:
            self._held_bytes = self._db.execute(
                f'SELECT coalesce(sum(length("values") + {ROW_BYTES}), 0) FROM predictions'
            ).fetchone()[0]
        else:
            self._held_bytes += len(data) + ROW_BYTES
        forgotten = 0
        while self._held_bytes > most:
            number, size = self._db.execute(
                'SELECT number, length("values") FROM predictions ORDER BY number LIMIT 1'
            ).fetchone()
            self._db.execute("DELETE FROM predictions WHERE number = ?", (number,))
            self._held_bytes -= size + ROW_BYTES
            forgotten += 1
        return forgotten

    def waiting(self, id: str) -> Held | None:
        """The newest predictions for a request, by its own id or its event's."""
        row = self._db.execute(
            'SELECT number, revision, "values" FROM predictions WHERE id = ?1 OR event_id = ?1 '
            "ORDER BY number DESC LIMIT 1",
            (_short(id),),
        ).fetchone()
        return None if row is None else Held(row[0], row[1], np.frombuffer(row[2], dtype="<f8").copy())

    def settle(self, held: Held) -> None:
        """Writes which ones still wait; none: they are forgotten."""
        if np.isnan(held.values).all():
            if self._held_bytes is not None:
                self._held_bytes -= held.values.nbytes + ROW_BYTES
            self._db.execute("DELETE FROM predictions WHERE number = ?", (held.number,))
        else:
            self._db.execute(
                'UPDATE predictions SET "values" = ? WHERE number = ?',
                (held.values.astype("<f8").tobytes(), held.number),
            )

    def early(self, id: str) -> Doubles | None:
        """Labels that came before their prediction; they are taken out."""
        row = self._db.execute('SELECT "values" FROM labels WHERE id = ?', (_short(id),)).fetchone()
        if row is None:
            return None
        self._db.execute("DELETE FROM labels WHERE id = ?", (_short(id),))
        self._count_early(-len(row[0]) - ROW_BYTES)
        return np.frombuffer(row[0], dtype="<f8").copy()

    def keep_early(self, id: str, at: float, values: Doubles, most: int, most_bytes: int) -> None:
        """Labels without a prediction; the oldest are forgotten: at most so many, and so many bytes, are kept."""
        self.early(id)
        data = values.astype("<f8").tobytes()
        cursor = self._db.execute(
            'INSERT INTO labels (id, at, "values") VALUES (?, ?, ?)', (_short(id), at, data)
        )
        newest = cursor.lastrowid or 0
        held = self._count_early(len(data) + ROW_BYTES)
        oldest = self._db.execute('SELECT number, length("values") FROM labels ORDER BY number')
        while (row := oldest.fetchone()) and (row[0] <= newest - most or held > most_bytes):
            self._db.execute("DELETE FROM labels WHERE number = ?", (row[0],))
            held = self._count_early(-row[1] - ROW_BYTES)
        oldest.close()

    def _count_early(self, more: int) -> int:
        """What early labels take now, after a change of `more` that was made."""
        if self._early_bytes is None:
            self._early_bytes = self._db.execute(
                f'SELECT coalesce(sum(length("values") + {ROW_BYTES}), 0) FROM labels'
            ).fetchone()[0]
        else:
            self._early_bytes += more
        return self._early_bytes

    def expire(self, before: float) -> int:
        """Forget what has waited since `before`; how many requests."""
        self._held_bytes = self._early_bytes = None
        count = self._db.execute("DELETE FROM predictions WHERE at < ?", (before,)).rowcount
        self._db.execute("DELETE FROM labels WHERE at < ?", (before,))
        return count

    def count_waiting(self) -> tuple[int, int]:
        """Requests without labels, labels without a request."""
        row = self._db.execute("SELECT (SELECT count(*) FROM predictions), (SELECT count(*) FROM labels)")
        found = row.fetchone()
        return int(found[0]), int(found[1])

    def post(self, id: str, event: bytes) -> None:
        """To be sent; once for each id."""
        self._db.execute("INSERT OR IGNORE INTO outbox VALUES (?, ?)", (id, event))

    def posted(self) -> list[tuple[str, bytes]]:
        return self._db.execute("SELECT id, event FROM outbox ORDER BY rowid").fetchall()

    def sent(self, id: str) -> None:
        self._db.execute("DELETE FROM outbox WHERE id = ?", (id,))


def _short(id: str) -> str:
    return id if len(id) <= _MAX_ID else hashlib.sha256(id.encode()).hexdigest()

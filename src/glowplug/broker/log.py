"""The log: every accepted event, each trigger's position and what it still has to do, in one SQLite file.

All calls are for one thread, inside a transaction that the caller (`log_thread`) begins and commits; with WAL and
synchronous=FULL a commit is on the disk when it returns. A Broker's events are numbered from 1 without gaps. Nothing
here decides what is delivered.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import orjson

from glowplug.broker.records import (
    BrokerKey,
    CursorState,
    DeadLetter,
    Due,
    Entry,
    Page,
    Pending,
    Record,
    TriggerKey,
)
from glowplug.broker.schema import prepare
from glowplug.broker.verdict import Failure
from glowplug.errors import ConfigError, DataDirHeld, StoreFull
from glowplug.wire.events import CloudEvent

_TRIM_STEP = 1000
_VACUUM_PAGES = 2000
# What SQLite says when there is no room: the second comes from the WAL or from a quota.
_NO_ROOM = ("database or disk is full", "disk I/O error")


class Log:
    """The open file. `load` again after a transaction that was rolled back."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self.database = database
        self.path = path
        self._brokers: dict[BrokerKey, int] = {}
        self._last: dict[int, int] = {}
        self._cursors: dict[TriggerKey, int] = {}
        self.load()

    @classmethod
    def open(cls, path: Path) -> Log:
        """Open or create the file. Raises DataDirHeld if another process has it, ConfigError if it is no log."""
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, isolation_level=None, timeout=0.5, check_same_thread=False)
        try:
            prepare(database, path)
            return cls(database, path)
        except sqlite3.Error as error:
            database.close()
            raise _opening_error(path, error) from error
        except BaseException:
            database.close()
            raise

    def load(self) -> None:
        """What is kept in memory: the numbers of Brokers and cursors, and the last event of each Broker."""
        rows = self.database.execute(
            "SELECT id, namespace, name, last FROM brokers WHERE is_removed = 0"
        ).fetchall()
        self._brokers = {(namespace, name): id for id, namespace, name, _ in rows}
        self._last = {id: last for id, _, _, last in rows}
        names = {id: key for key, id in self._brokers.items()}
        self._cursors = {
            (*names[broker], name): id
            for id, broker, name in self.database.execute("SELECT id, broker, name FROM cursors")
            if broker in names
        }

    def brokers(self) -> list[BrokerKey]:
        return list(self._brokers)

    def cursors(self) -> list[TriggerKey]:
        return list(self._cursors)

    def last(self, key: BrokerKey) -> int:
        """The number of the Broker's last event; creates the Broker."""
        return self._last[self._broker(key)]

    def append(self, key: BrokerKey, entries: Sequence[Entry]) -> int:
        """Adds events; the number of the first."""
        broker = self._broker(key)
        first = self._last[broker] + 1
        self.database.executemany(
            "INSERT INTO events (broker, seq, at, ttl, head, data) VALUES (?, ?, ?, ?, ?, ?)",
            (
                (broker, first + index, entry.at, entry.ttl, entry.head, entry.event.data)
                for index, entry in enumerate(entries)
            ),
        )
        self._last[broker] = last = first + len(entries) - 1
        self.database.execute("UPDATE brokers SET last = ? WHERE id = ?", (last, broker))
        return first

    def cursor(self, key: TriggerKey) -> CursorState:
        """A trigger's state; a new one begins behind the last event that there is."""
        broker = self._broker(key[:2])
        if key not in self._cursors:
            row = (broker, key[2], self._last[broker])
            done = self.database.execute("INSERT INTO cursors (broker, name, position) VALUES (?, ?, ?)", row)
            self._cursors[key] = done.lastrowid or 0
        cursor = self._cursors[key]
        (position,) = self.database.execute("SELECT position FROM cursors WHERE id = ?", (cursor,)).fetchone()
        count, due_at = self.database.execute(
            "SELECT count(*), min(next_at) FROM pending WHERE cursor = ?", (cursor,)
        ).fetchone()
        ahead = self.database.execute(
            "SELECT seq FROM pending WHERE cursor = ? AND seq > ?", (cursor, position)
        ).fetchall()
        return CursorState(position, count, due_at, self._oldest(cursor), frozenset(seq for (seq,) in ahead))

    def settle(self, key: TriggerKey, position: int, over: Sequence[int]) -> None:
        """All up to `position` is settled or pending, and the pending `over` are over."""
        cursor = self._cursors[key]
        self.database.execute("UPDATE cursors SET position = ? WHERE id = ?", (position, cursor))
        if over:
            self.database.executemany(
                "DELETE FROM pending WHERE cursor = ? AND seq = ?", ((cursor, seq) for seq in over)
            )

    def put_pending(self, key: TriggerKey, item: Pending) -> None:
        """Writes down what is still to be done for an event, in place of what was."""
        self.database.execute(
            "INSERT OR REPLACE INTO pending (cursor, seq, broker, attempts, next_at, is_dead, code, reason,"
            " destination) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._cursors[key], item.record.seq, self._broker(key[:2]), item.attempts, item.next_at, item.is_dead,
                item.failure.code, item.failure.data, item.destination,
            ),
        )  # fmt: skip

    def bury(self, key: TriggerKey, item: Pending, now: float, kept: int) -> None:
        """Keeps a dead letter that no sink has, and of the Broker's `kept` in all; it is no longer pending."""
        broker = self._broker(key[:2])
        head = orjson.dumps(dict(item.record.event.attributes))
        self.database.execute(
            "INSERT INTO dead (broker, trigger_name, at, destination, code, reason, head, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                broker, key[2], now, item.destination, item.failure.code, item.failure.data, head,
                item.record.event.data,
            ),
        )  # fmt: skip
        self.database.execute(
            "DELETE FROM dead WHERE broker = ? AND id <= (SELECT id FROM dead WHERE broker = ?"
            " ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (broker, broker, kept),
        )
        self.database.execute(
            "DELETE FROM pending WHERE cursor = ? AND seq = ?", (self._cursors[key], item.record.seq)
        )

    def page(self, key: BrokerKey, after: int, page: Page) -> list[Record]:
        """Events after number `after`, in order."""
        rows = self.database.execute(
            "SELECT seq, at, ttl, head, data FROM events WHERE broker = ? AND seq > ? ORDER BY seq LIMIT ?",
            (self._brokers.get(key, 0), after, page.events),
        )
        found: list[Record] = []
        left = page.bytes
        for row in rows:
            found.append(Record.of(*row))
            left -= found[-1].size
            if left <= 0:
                break
        return found

    def due(
        self, key: TriggerKey, by: float, under_way: Collection[int], page: Page, *, in_order: bool
    ) -> Due:
        """Pending ones that are due by then, and when the first of the others is; those `under_way` are left out.

        `in_order`: by their numbers, however late they are due.
        """
        cursor, others = self._cursors[key], orjson.dumps(list(under_way)).decode()
        order = "p.seq" if in_order else "p.next_at"
        rows = self.database.execute(
            "SELECT p.attempts, p.next_at, p.is_dead, p.code, p.reason, p.destination,"
            " e.seq, e.at, e.ttl, e.head, e.data FROM pending p JOIN events e ON e.broker = p.broker AND e.seq = p.seq"
            " WHERE p.cursor = ? AND (? OR p.next_at <= ?) AND p.seq NOT IN (SELECT value FROM json_each(?))"
            f" ORDER BY {order} LIMIT ?",
            (cursor, in_order, by, others, page.events),
        )
        found = list(_until_full(rows, page.bytes))
        (later,) = self.database.execute(
            "SELECT min(next_at) FROM pending WHERE cursor = ? AND next_at > ?"
            " AND seq NOT IN (SELECT value FROM json_each(?))",
            (cursor, by, others),
        ).fetchone()
        return Due(found, later, self._oldest(cursor))

    def _oldest(self, cursor: int) -> float | None:
        """When the event came that has been pending for the longest time."""
        row = self.database.execute(
            "SELECT e.at FROM pending p JOIN events e ON e.broker = p.broker AND e.seq = p.seq"
            " WHERE p.cursor = ? ORDER BY p.seq LIMIT 1",
            (cursor,),
        ).fetchone()
        return None if row is None else float(row[0])

    def dead_letters(self, key: BrokerKey, after: int, page: Page) -> list[DeadLetter]:
        """Dead letters that are kept here, after the one with the number `after`."""
        rows = self.database.execute(
            "SELECT id, trigger_name, at, destination, code, reason, head, data FROM dead"
            " WHERE broker = ? AND id > ? ORDER BY id LIMIT ?",
            (self._brokers.get(key, 0), after, page.events),
        )
        found: list[DeadLetter] = []
        left = page.bytes
        for id, trigger, at, destination, code, reason, head, data in rows:
            event = CloudEvent(orjson.loads(head), data)
            found.append(DeadLetter(id, trigger, at, destination, Failure(code, reason), event))
            left -= len(head) + len(data or b"")
            if left <= 0:
                break
        return found

    def drop_cursor(self, key: TriggerKey) -> None:
        """Forgets a trigger and what it had still to do."""
        cursor = self._cursors.pop(key, None)
        if cursor is not None:
            self.database.execute("DELETE FROM pending WHERE cursor = ?", (cursor,))
            self.database.execute("DELETE FROM cursors WHERE id = ?", (cursor,))

    def drop_broker(self, key: BrokerKey) -> None:
        """Forgets a Broker with all that it has; its events go with the next calls of `trim`."""
        for trigger in [each for each in self._cursors if each[:2] == key]:
            self.drop_cursor(trigger)
        broker = self._brokers.pop(key, None)
        if broker is not None:
            del self._last[broker]
            self.database.execute("DELETE FROM dead WHERE broker = ?", (broker,))
            self.database.execute("UPDATE brokers SET is_removed = 1 WHERE id = ?", (broker,))

    def trim(self, history_events: int, history_bytes: int) -> bool:
        """Deletes some of what nobody needs any more; whether there is more of it."""
        removed = self.database.execute("SELECT id, last FROM brokers WHERE is_removed = 1").fetchall()
        for broker, last in removed:
            if self._trim(broker, last):
                return True
            self.database.execute("DELETE FROM brokers WHERE id = ?", (broker,))
        is_large = self._used_bytes() > history_bytes
        has_more = False
        for broker, last in self._last.items():
            (least,) = self.database.execute(
                "SELECT min(position) FROM cursors WHERE broker = ?", (broker,)
            ).fetchone()
            settled = last if least is None else least
            has_more |= self._trim(broker, settled if is_large else min(settled, last - history_events))
        return self._shrink() or has_more

    def _trim(self, broker: int, up_to: int) -> bool:
        deleted = self.database.execute(
            "DELETE FROM events WHERE broker = ? AND seq IN (SELECT seq FROM events e WHERE broker = ? AND seq <= ?"
            " AND NOT EXISTS (SELECT 1 FROM pending p WHERE p.broker = e.broker AND p.seq = e.seq)"
            " ORDER BY seq LIMIT ?)",
            (broker, broker, up_to, _TRIM_STEP),
        )
        return deleted.rowcount >= _TRIM_STEP

    def _shrink(self) -> bool:
        """Gives room back to the disk, some at a time; whether there is more of it."""
        (free,) = self.database.execute("PRAGMA freelist_count").fetchone()
        if free < 2 * _VACUUM_PAGES:
            return False
        self.database.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        return True

    def _used_bytes(self) -> int:
        (pages,) = self.database.execute("PRAGMA page_count").fetchone()
        (free,) = self.database.execute("PRAGMA freelist_count").fetchone()
        (size,) = self.database.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _broker(self, key: BrokerKey) -> int:
        broker = self._brokers.get(key)
        if broker is None:
            done = self.database.execute("INSERT INTO brokers (namespace, name) VALUES (?, ?)", key)
            broker = self._brokers[key] = done.lastrowid or 0
            self._last[broker] = 0
        return broker

    def has_room(self, reserve_bytes: int) -> bool:
        """Whether the disk has more than so much left."""
        try:
            found = os.statvfs(self.path.parent)
        except OSError:
            # Then writing itself will tell.
            return True
        return found.f_bavail * found.f_frsize > reserve_bytes

    def full(self, why: object) -> StoreFull:
        """The error to raise when nothing could be written."""
        return StoreFull(
            f"nothing was written: no room for the event log {self.path}: {why}",
            hint="free some space on that disk and send the event again; what was accepted is safe",
        )


def is_full(error: sqlite3.Error) -> bool:
    """Whether SQLite says that there is no room."""
    return any(text in str(error) for text in _NO_ROOM)


def _until_full(rows: sqlite3.Cursor, max_bytes: int) -> Iterator[Pending]:
    for attempts, next_at, is_dead, code, reason, destination, *event in rows:
        record = Record.of(*event)
        yield Pending(record, attempts, next_at, bool(is_dead), Failure(code, reason), destination)
        max_bytes -= record.size
        if max_bytes <= 0:
            return


def _opening_error(path: Path, error: sqlite3.Error) -> Exception:
    text = str(error)
    if "locked" in text:
        return DataDirHeld(
            f"another process has the event log {path} open",
            hint="stop it with `glowplug down`, or use another --data-dir",
        )
    if is_full(error):
        return StoreFull(f"no room for the event log {path}: {text}", hint="free some space on that disk")
    return ConfigError(
        f"{path} cannot be opened as an event log: {text}",
        hint="move the file away to start empty, or use another --data-dir",
    )

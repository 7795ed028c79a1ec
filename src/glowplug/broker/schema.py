"""The tables of the log, and how its file is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from glowplug.errors import ConfigError

VERSION = 1
# An event's number is never used twice: `last` outlives the events. `pending` names the Broker too, so that trimming
# sees at once whether an event is still needed.
_TABLES = """
CREATE TABLE brokers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT NOT NULL, name TEXT NOT NULL,
    last INTEGER NOT NULL DEFAULT 0, is_removed INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE events (
    broker INTEGER NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, ttl INTEGER NOT NULL,
    head BLOB NOT NULL, data BLOB, PRIMARY KEY (broker, seq)
);
CREATE TABLE cursors (
    id INTEGER PRIMARY KEY AUTOINCREMENT, broker INTEGER NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL,
    UNIQUE (broker, name)
);
CREATE TABLE pending (
    cursor INTEGER NOT NULL, seq INTEGER NOT NULL, broker INTEGER NOT NULL, attempts INTEGER NOT NULL,
    next_at REAL NOT NULL, is_dead INTEGER NOT NULL, code INTEGER NOT NULL, reason BLOB NOT NULL,
    destination TEXT NOT NULL, PRIMARY KEY (cursor, seq)
) WITHOUT ROWID;
CREATE INDEX pending_due ON pending (cursor, next_at);
CREATE INDEX pending_event ON pending (broker, seq);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, broker INTEGER NOT NULL, trigger_name TEXT NOT NULL, at REAL NOT NULL,
    destination TEXT NOT NULL, code INTEGER NOT NULL, reason BLOB NOT NULL, head BLOB NOT NULL, data BLOB
);
CREATE INDEX dead_broker ON dead (broker, id);
"""


def prepare(database: sqlite3.Connection, path: Path) -> None:
    """Settings, and the tables of a new file. Raises sqlite3.Error, or ConfigError for another version's file."""
    # Must come before the first table.
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # Exclusive before WAL: one owner, and the index of the log lives on the heap, so no mapped file that a full
    # disk could turn into a bus error.
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:
        database.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        raise ConfigError(
            f"{path}: the event log has schema {version}, this version of glowplug reads {VERSION}",
            hint="use the version that wrote it, or another --data-dir",
        )
    # Takes the lock now, not at the first write.
    database.execute("BEGIN IMMEDIATE")
    database.execute("COMMIT")

"""Every object, durably in SQLite and, as the same bytes, in memory.

Memory is the index that all reads use; the file is read once, at opening. A write goes to the file first, in one
transaction with the revision counter (WAL, synchronous=FULL, so that it is on the disk when the call returns), and
to memory only after the commit: a full disk or a kill leaves both at the last acknowledged state. What a write
means (conflicts, generations, finalizers) is not decided here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from glowplug.apiserver.changes import ADDED, DELETED, MODIFIED, Change, Ref, Write
from glowplug.errors import ApiError, ConfigError, DataDirHeld, StoreFull
from glowplug.spec.kinds import KINDS, Kind

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    UNIQUE (resource, namespace, name)
);
CREATE TABLE counter (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL);
INSERT INTO counter VALUES (1, 1);
"""
_PUT = (
    "INSERT INTO objects (resource, namespace, name, body) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (resource, namespace, name) DO UPDATE SET body = excluded.body"
)
_DROP = "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?"
# What SQLite says when there is no room: the second comes from the WAL or from a quota.
_NO_ROOM = ("database or disk is full", "disk I/O error")


class Store:
    """Objects by kind, namespace and name. Not thread-safe: one event loop's thread owns it."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path
        self._is_flushed = True
        self._objects: dict[str, dict[str, dict[str, bytes]]] = {kind.resource: {} for kind in KINDS}
        self.revision = 0
        self._load()

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open or create the file. Raises DataDirHeld if another process has it, ConfigError if it is no store."""
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, isolation_level=None, timeout=0.5, check_same_thread=False)
        try:
            _prepare(database)
            return cls(database, path)
        except sqlite3.Error as error:
            database.close()
            raise _opening_error(path, error) from error
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Fold the write-ahead log into the file and release it."""
        self._database.close()

    def get(self, ref: Ref) -> bytes | None:
        """The bytes of one object, or None."""
        return self._objects[ref.kind.resource].get(ref.namespace, {}).get(ref.name)

    def scan(self, kind: Kind, namespace: str = "") -> Iterator[tuple[Ref, bytes]]:
        """All objects of a kind in the order of namespace and name; an empty `namespace` is every one."""
        spaces = self._objects[kind.resource]
        chosen = [namespace] if namespace else sorted(spaces)
        for space in chosen:
            objects = spaces.get(space, {})
            for name in sorted(objects):
                yield Ref(kind, space, name), objects[name]

    def count(self, kind: Kind, namespace: str = "") -> int:
        """How many objects of a kind there are."""
        spaces = self._objects[kind.resource]
        if namespace:
            return len(spaces.get(namespace, {}))
        return sum(len(objects) for objects in spaces.values())

    def pin(self, ref: Ref, raw: bytes) -> None:
        """Hold an object in memory only: one that is derived anew at every start."""
        self._objects[ref.kind.resource].setdefault(ref.namespace, {})[ref.name] = raw

    def apply(self, writes: Sequence[Write], *, is_flushed: bool = True) -> list[Change]:
        """Make all writes durable, or none. Their revisions must rise from `revision` + 1.

        Flushed to the disk before it returns, or, if not `is_flushed`, with the next write that is: then it survives
        the end of this process in any way, and a loss of power takes the newest unflushed writes only.
        Raises StoreFull when the disk has no room; nothing has changed then.
        """
        try:
            self._flush_on_commit(is_flushed)
            self._commit(writes)
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise self._write_error(error) from error
        return [self._remember(write) for write in writes]

    def _flush_on_commit(self, is_flushed: bool) -> None:
        if is_flushed != self._is_flushed:
            self._database.execute(f"PRAGMA synchronous = {'FULL' if is_flushed else 'NORMAL'}")
            self._is_flushed = is_flushed

    def _commit(self, writes: Sequence[Write]) -> None:
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        for write in writes:
            key = (write.ref.kind.resource, write.ref.namespace, write.ref.name)
            if write.is_removal:
                execute(_DROP, key)
            else:
                execute(_PUT, (*key, write.raw))
        execute("UPDATE counter SET revision = ?", (writes[-1].revision,))
        execute("COMMIT")

    def _remember(self, write: Write) -> Change:
        ref = write.ref
        spaces = self._objects[ref.kind.resource]
        objects = spaces.setdefault(ref.namespace, {})
        previous = objects.pop(ref.name, None) if write.is_removal else objects.get(ref.name)
        if not write.is_removal:
            objects[ref.name] = write.raw
        elif not objects:
            del spaces[ref.namespace]
        self.revision = write.revision
        type_ = DELETED if write.is_removal else ADDED if previous is None else MODIFIED
        return Change(type_, ref, write.revision, write.raw, previous)

    def _load(self) -> None:
        (self.revision,) = self._database.execute("SELECT revision FROM counter").fetchone()
        rows = self._database.execute("SELECT resource, namespace, name, body FROM objects")
        for resource, namespace, name, body in rows:
            # A kind that this version does not serve stays in the file, for the version that does.
            spaces = self._objects.get(resource)
            if spaces is not None:
                spaces.setdefault(namespace, {})[name] = body

    def _write_error(self, error: sqlite3.Error) -> ApiError:
        if any(text in str(error) for text in _NO_ROOM):
            return StoreFull(
                f"nothing was written: no room for the object store {self._path}: {error}",
                hint="free some space on that disk and send the request again; what was acknowledged is safe",
            )
        return ApiError(f"nothing was written: the object store {self._path} failed: {error}")


def _prepare(database: sqlite3.Connection) -> None:
    # Exclusive before WAL: one owner, and the index of the log lives on the heap, so no mapped file that a full
    # disk could turn into a bus error.
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:
        database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
    elif version != _SCHEMA_VERSION:
        raise ConfigError(
            f"the object store has schema {version}, this version of glowplug reads {_SCHEMA_VERSION}",
            hint="use the version that wrote it, or another --data-dir",
        )
    # Takes the lock now, not at the first write.
    database.execute("BEGIN IMMEDIATE")
    database.execute("COMMIT")


def _opening_error(path: Path, error: sqlite3.Error) -> Exception:
    text = str(error)
    if "locked" in text:
        return DataDirHeld(
            f"another process has the object store {path} open",
            hint="stop it with `glowplug down`, or use another --data-dir",
        )
    if any(reason in text for reason in _NO_ROOM):
        return StoreFull(f"no room for the object store {path}: {text}", hint="free some space on that disk")
    return ConfigError(
        f"{path} cannot be opened as an object store: {text}",
        hint="move the file away to start empty, or use another --data-dir",
    )

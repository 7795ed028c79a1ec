"""Where the letters are: one SQLite file. What `keep` has returned from is on the disk; past the bounds the oldest go.

A letter that comes again (the same source, id and destination) is the same letter: delivery is at least once.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from glowplug.errors import ConfigError, StoreFull

from .letter import Letter

_SCHEMA = """
create table if not exists letters (
  number integer primary key autoincrement,
  at real not null,
  type text not null, source text not null, id text not null,
  destination text not null, code text not null, answer text not null,
  times integer not null default 1,
  size integer not null,
  body blob not null,
  unique (source, id, destination)
);
"""
_FIELDS = "number, at, type, source, id, destination, code, answer, times"


@dataclass(frozen=True)
class Kept:
    """A letter on the shelf, without its body. `at` is when it came last, seconds since the epoch."""

    number: int
    at: float
    type: str
    source: str
    id: str
    destination: str
    code: str
    answer: str
    times: int


class Shelf:
    """Used by one thread. Raises ConfigError where the folder cannot be used."""

    def __init__(self, folder: Path, max_letters: int, max_bytes: int) -> None:
        self._max_letters, self._max_bytes = max_letters, max_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / "letters.sqlite", isolation_level=None)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"{folder} cannot hold the letters: {error}",
                hint="--folder or $DEAD_LETTERS_DIR names a folder that may be written",
            ) from error
        self.count, self.bytes = self._db.execute(
            "select count(*), coalesce(sum(size), 0) from letters"
        ).fetchone()

    def keep(self, letters: list[Letter], now: float) -> int:
        """All of them or none; how many old ones had to go. Raises StoreFull where the disk takes no more."""
        try:
            self._db.execute("begin immediate")
            try:
                for letter in letters:
                    self._put(letter, now)
                gone = self._trim()
                self._db.execute("commit")
            except BaseException:
                self._db.execute("rollback")
                raise
        except sqlite3.Error as error:
            self.count, self.bytes = self._sums()
            raise StoreFull(f"the letters cannot be written: {error}") from error
        return gone

    def newest(self, limit: int, before: int | None = None, type: str = "") -> list[Kept]:
        """Down from the newest, or from below the number `before`; of one type, where it is given."""
        rows = self._db.execute(
            f"select {_FIELDS} from letters where number < ? and (? = '' or type = ?) order by number desc limit ?",
            (before if before is not None else 2**62, type, type, limit),
        )
        return [Kept(*row) for row in rows]

    def body(self, number: int) -> bytes | None:
        """A letter's event in the structured form; None where there is none of that number."""
        row = self._db.execute("select body from letters where number = ?", (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def close(self) -> None:
        self._db.close()

    def _put(self, letter: Letter, now: float) -> None:
        again = self._db.execute(
            "update letters set at = ?, times = times + 1, code = ?, answer = ? "
            "where source = ? and id = ? and destination = ?",
            (now, letter.code, letter.answer, letter.source, letter.id, letter.destination),
        )
        if again.rowcount:
            return
        self._db.execute(
            "insert into letters (at, type, source, id, destination, code, answer, size, body) "
            "values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                now, letter.type, letter.source, letter.id, letter.destination, letter.code, letter.answer,
                len(letter.body), letter.body,
            ),
        )  # fmt: skip
        self.count, self.bytes = self.count + 1, self.bytes + len(letter.body)

    def _trim(self) -> int:
        gone = 0
        while self.count > self._max_letters or self.bytes > self._max_bytes:
            number, size = self._db.execute(
                "select number, size from letters order by number limit 1"
            ).fetchone()
            self._db.execute("delete from letters where number = ?", (number,))
            self.count, self.bytes, gone = self.count - 1, self.bytes - size, gone + 1
        return gone

    def _sums(self) -> tuple[int, int]:
        count, size = self._db.execute("select count(*), coalesce(sum(size), 0) from letters").fetchone()
        return count, size

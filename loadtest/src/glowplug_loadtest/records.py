"""What became of each request: a line of CSV, written by the processes that send and read for the figures."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

HEADER = ("due_s", "sent_s", "done_s", "error")
UNSENT = "not sent: too many in flight, or the sender too slow"
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Record:
    """Seconds from the start: when it was due, when it went out (None: never), when its answer or failure was there.

    `error` is "" for the right answer.
    """

    due_s: float
    sent_s: float | None
    done_s: float
    error: str


@dataclass(frozen=True)
class Records:
    """All requests of a test in the order of their due times: float64 [n] each, `sent_s` NaN for the unsent."""

    due_s: np.ndarray
    sent_s: np.ndarray
    done_s: np.ndarray
    error: tuple[str, ...]

    @property
    def is_ok(self) -> np.ndarray:
        """bool [n]"""
        found: np.ndarray = np.array([not error for error in self.error], dtype=bool)
        return found

    @property
    def latency_ms(self) -> np.ndarray:
        """From the due time, not from the sending: float64 [n]."""
        latency: np.ndarray = (self.done_s - self.due_s) * 1000
        return latency

    @property
    def lag_ms(self) -> np.ndarray:
        """From being due to being sent: the sender's own share. float64 [n], NaN for the unsent."""
        lag: np.ndarray = (self.sent_s - self.due_s) * 1000
        return lag

    def since(self, warm_up_s: float) -> Records:
        """Those that were due after the warm-up."""
        kept = self.due_s >= warm_up_s
        error = tuple(error for error, is_kept in zip(self.error, kept, strict=True) if is_kept)
        return Records(self.due_s[kept], self.sent_s[kept], self.done_s[kept], error)


def write(records: Iterable[Record], path: pathlib.Path) -> None:
    """With a header, microseconds' precision."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for each in records:
            sent = "" if each.sent_s is None else f"{each.sent_s:.6f}"
            writer.writerow((f"{each.due_s:.6f}", sent, f"{each.done_s:.6f}", each.error))


def read(paths: Iterable[pathlib.Path]) -> list[Record]:
    """All records of the files, by due time."""
    found: list[Record] = []
    for path in paths:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                sent = float(row["sent_s"]) if row["sent_s"] else None
                found.append(Record(float(row["due_s"]), sent, float(row["done_s"]), row["error"]))
    return sorted(found, key=lambda each: each.due_s)


def columns(records: Iterable[Record]) -> Records:
    """The same as arrays."""
    kept = list(records)
    return Records(
        np.array([each.due_s for each in kept]),
        np.array([np.nan if each.sent_s is None else each.sent_s for each in kept]),
        np.array([each.done_s for each in kept]),
        tuple(each.error for each in kept),
    )

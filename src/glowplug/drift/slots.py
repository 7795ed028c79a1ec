"""Windows: the last so many slots, each the counts of a day, or of so many rows.

A slot is filled as events come and closed by the first event behind it: what is not asked is not judged, and no clock
runs. Events that are late (older than the open slot) are counted in it; labels count in the slot in which they come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glowplug.drift.config import DriftConfig
from glowplug.drift.grid import Counts, Table
from glowplug.drift.profile import Doubles

# Kinds of requests that do not fit, and revisions, told apart in a slot.
_MOST_KINDS = 16
_OTHER = "other"


@dataclass
class Slot:
    """`counts` [features + 1, cells], the prediction last; times are seconds since the epoch."""

    counts: Counts
    started: float
    first: float
    last: float
    rows: int = 0
    requests: int = 0
    unfit: Counter[str] = field(default_factory=Counter)
    revisions: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    absolute: float = 0.0
    squares: float = 0.0

    @classmethod
    def empty(cls, table: Table, at: float, config: DriftConfig) -> Slot:
        started = at if config.window_rows else at // config.slot_s * config.slot_s
        shape = (len(table.grids), table.width)
        return cls(np.zeros(shape, dtype=np.int64), started, at, at)

    def add_features(self, counts: Counts, revision: str) -> None:
        """A request's rows; counts [features, cells]."""
        self.counts[:-1] += counts
        self.rows += int(counts[0].sum())
        self.requests += 1
        self._tally(self.revisions, revision)

    def add_predictions(self, counts: Counts) -> None:
        self.counts[-1] += counts

    def add_unfit(self, problem: str) -> None:
        self.requests += 1
        self._tally(self.unfit, problem)

    def add_errors(self, absolute: Doubles) -> None:
        self.labelled += len(absolute)
        self.absolute += float(absolute.sum())
        self.squares += float((absolute**2).sum())

    @property
    def size(self) -> int:
        """Rows of requests, or where only answers are logged, of those; one that does not fit is a row at least."""
        return max(self.rows + sum(self.unfit.values()), int(self.counts[-1].sum()))

    def touch(self, at: float) -> None:
        self.last = max(self.last, at)

    @staticmethod
    def _tally(counter: Counter[str], name: str) -> None:
        counter[name if name in counter or len(counter) < _MOST_KINDS else _OTHER] += 1

    def to_document(self) -> tuple[dict[str, Any], bytes]:
        """All but the counts as JSON has it, and the counts."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        kinds = {"unfit": dict(self.unfit), "revisions": dict(self.revisions)}
        return {**plain, **kinds}, self.counts.astype("<i8").tobytes()

    @classmethod
    def from_document(cls, document: Mapping[str, Any], counts: bytes, table: Table) -> Slot:
        shape = (len(table.grids), table.width)
        slot = cls(np.frombuffer(counts, dtype="<i8").reshape(shape).copy(), 0, 0, 0)
        for name in _PLAIN:
            setattr(slot, name, document[name])
        slot.unfit, slot.revisions = Counter(document["unfit"]), Counter(document["revisions"])
        return slot


_PLAIN = ("started", "first", "last", "rows", "requests", "labelled", "absolute", "squares")


def merged(slots: Iterable[Slot]) -> Slot:
    """One slot of several in time's order; there is at least one."""
    first, *rest = slots
    document, counts = first.to_document()
    whole = Slot(np.frombuffer(counts, dtype="<i8").reshape(first.counts.shape).copy(), 0, 0, 0)
    for name in _PLAIN:
        setattr(whole, name, document[name])
    whole.unfit, whole.revisions = Counter(first.unfit), Counter(first.revisions)
    for slot in rest:
        whole.counts += slot.counts
        for name in ("rows", "requests", "labelled", "absolute", "squares"):
            setattr(whole, name, getattr(whole, name) + getattr(slot, name))
        whole.unfit.update(slot.unfit)
        whole.revisions.update(slot.revisions)
        whole.first, whole.last = min(whole.first, slot.first), max(whole.last, slot.last)
    return whole


def is_full(slot: Slot, config: DriftConfig, at: float) -> bool:
    """Whether an event at `at` is for the slot behind this one."""
    if config.window_rows:
        return slot.size >= config.slot_rows
    return at >= slot.started + config.slot_s

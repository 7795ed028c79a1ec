"""What to predict next, given what waits: the decision behind `batcher.py`. Pure.

Work is conserved: whatever waits while a batch runs forms the next one, and a request that finds the model idle runs
at once. Only right after a batch of several requests may a smaller one be held back, for `max_delay_s` at most and
until as many are there as that batch had: their clients are about to send the next ones, and without it batches of
one and of all the others would take turns.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A request that waits. Those of equal `kind` may share a batch; None shares none. Lower `priority` first."""

    @property
    def kind(self) -> Hashable | None: ...

    rows: int
    priority: int
    deadline: float | None


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Limits:
    """Rows a batch has at most (a single larger request is its own batch), and the longest wait for company."""

    max_rows: int
    max_delay_s: float


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How many requests the last batch had, and until when as many may be waited for."""

    requests: int = 1
    until: float = float("-inf")


@dataclass(slots=True)
class Decision(Generic[W]):
    """The batch to run now (empty: none), what to drop, and what waits on, until `wake_at` if nobody else comes."""

    batch: Sequence[W]
    expired: Sequence[W]
    rest: Sequence[W]
    wake_at: float | None
    reason: str


def after(requests: int, limits: Limits, now: float) -> Rhythm:
    """The rhythm once a batch of so many requests has ended."""
    return Rhythm(requests, now + limits.max_delay_s) if requests > 1 else Rhythm()


def decide(waiting: Sequence[W], rhythm: Rhythm, limits: Limits, now: float) -> Decision[W]:
    """What an idle model does; `waiting` is in the order of arrival.

    By priority, then arrival: the first decides the kind, and others of its kind join in order while they fit.
    """
    expired = [item for item in waiting if item.deadline is not None and item.deadline <= now]
    alive = [item for item in waiting if item.deadline is None or item.deadline > now] if expired else waiting
    if not alive:
        return Decision((), expired, (), None, "nothing waits")
    ordered = sorted(alive, key=lambda item: item.priority)
    batch, rest = _fill(ordered, limits.max_rows)
    if not rest and _is_company_due(batch, rhythm, limits, now):
        return Decision((), expired, batch, rhythm.until, "the last batch's requests are due again")
    return Decision(batch, expired, rest, None, "full" if rest else "all that waits")


def _fill(ordered: Sequence[W], max_rows: int) -> tuple[list[W], list[W]]:
    first = ordered[0]
    batch: list[W] = [first]
    rest: list[W] = []
    if len(ordered) == 1:
        return batch, rest
    rows, is_open = first.rows, first.kind is not None
    for item in ordered[1:]:
        if is_open and item.kind == first.kind:
            rows += item.rows
            is_open = rows <= max_rows
            if is_open:
                batch.append(item)
                continue
        rest.append(item)
    return batch, rest


def _is_company_due(batch: Sequence[Waiting], rhythm: Rhythm, limits: Limits, now: float) -> bool:
    if now >= rhythm.until or len(batch) >= rhythm.requests or batch[0].kind is None:
        return False
    if any(item.deadline is not None and item.deadline <= rhythm.until for item in batch):
        return False
    return sum(item.rows for item in batch) < limits.max_rows

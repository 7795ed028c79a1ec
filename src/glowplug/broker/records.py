"""What the log holds, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from glowplug.broker.verdict import Failure
from glowplug.wire.events import CloudEvent

# Namespace and name of a Broker; namespace, Broker's name and name of a Trigger.
BrokerKey = tuple[str, str]
TriggerKey = tuple[str, str, str]
NO_FAILURE = Failure(0, b"")


@dataclass(frozen=True, slots=True)
class Page:
    """How much to read at once: so many events, or so many as have `bytes` together, one at least."""

    events: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An event to be written: when it came, how many more times its replies may come back, and itself."""

    at: float
    ttl: int
    event: CloudEvent
    head: bytes = field(repr=False)

    @classmethod
    def of(cls, at: float, ttl: int, event: CloudEvent) -> Entry:
        return cls(at, ttl, event, orjson.dumps(dict(event.attributes)))


@dataclass(frozen=True, slots=True)
class Record:
    """An event in the log; `seq` counts the Broker's events from 1."""

    seq: int
    at: float
    ttl: int
    event: CloudEvent
    size: int

    @classmethod
    def of(cls, seq: int, at: float, ttl: int, head: bytes, data: bytes | None) -> Record:
        return cls(seq, at, ttl, CloudEvent(orjson.loads(head), data), len(head) + len(data or b""))


@dataclass(frozen=True, slots=True)
class Pending:
    """What is still to be done for an event and a trigger, beside what comes after the trigger's position.

    `attempts` were made already, at its subscriber or, `is_dead`, at the dead-letter sink. `failure` and `destination`
    say why it is a dead letter.
    """

    record: Record
    attempts: int
    next_at: float
    is_dead: bool = False
    failure: Failure = NO_FAILURE
    destination: str = ""


@dataclass(frozen=True, slots=True)
class CursorState:
    """Where a trigger stands: all events up to `position` are settled but for `pending`, the first due at `due_at`.

    The oldest of these was accepted at `oldest_at`. `ahead` are those of them that come after `position`.
    """

    position: int
    pending: int
    due_at: float | None
    oldest_at: float | None
    ahead: frozenset[int]


@dataclass(frozen=True, slots=True)
class Due:
    """Pending ones that are due, when the first of the others is, and when the oldest of all was accepted."""

    items: list[Pending]
    next_at: float | None
    oldest_at: float | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that could be delivered neither to `trigger`'s subscriber nor to a dead-letter sink."""

    id: int
    trigger: str
    at: float
    destination: str
    failure: Failure
    event: CloudEvent

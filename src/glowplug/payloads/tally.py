"""What came of the events: counters by component, and when somebody should be told. Pure; `now` is monotonic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from glowplug.payloads.config import PayloadsConfig
from glowplug.spec.logger import Logger

_MAX_TEXT = 300


class Outcome(Enum):
    """What came of an event; the values are those of the metrics."""

    DELIVERED = "delivered"
    DROPPED = "dropped"  # no room: the sink, or this process, is behind
    FAILED = "failed"  # no answer in time, or one of 5xx, every time
    REFUSED = "refused"  # an answer of 3xx or 4xx
    TOO_LARGE = "too_large"
    CUT = "cut"  # the caller went away
    LOST = "lost"  # with this process, which was killed

    @property
    def is_lost(self) -> bool:
        """Whether somebody should look at it."""
        return self not in (Outcome.DELIVERED, Outcome.CUT)


@dataclass(frozen=True)
class Component:
    """Whose payloads."""

    namespace: str
    service: str
    component: str


@dataclass(frozen=True)
class Notice:
    """`lost` events of a service since the last notice; `why` is the last of the reasons."""

    namespace: str
    service: str
    lost: int
    why: str

    @property
    def text(self) -> str:
        """For a person."""
        events = "payload event was" if self.lost == 1 else "payload events were"
        return f"{self.lost} {events} lost; the last one: {self.why}"


@dataclass
class _Losses:
    count: int = 0
    why: str = ""
    told_at: float | None = None


@dataclass
class Counts:
    """Of one component; `open` events have no outcome yet."""

    outcomes: dict[Outcome, int] = field(default_factory=dict)
    open: int = 0


class Tally:
    """`version` grows with every change."""

    def __init__(self, config: PayloadsConfig) -> None:
        self._config = config
        self.counts: dict[Component, Counts] = {}
        self._losses: dict[tuple[str, str], _Losses] = {}
        self.version = 0

    def begin(self, logger: Logger) -> None:
        """One event more whose outcome will come."""
        self.version += 1
        self._of(logger).open += 1

    def settle(self, logger: Logger, outcome: Outcome, why: str = "") -> None:
        """The outcome of an event that was begun."""
        counts = self._of(logger)
        counts.open = max(counts.open - 1, 0)
        self.add(logger, outcome, 1, why)

    def add(self, logger: Logger, outcome: Outcome, count: int, why: str = "") -> None:
        """So many events more; `why` they were lost."""
        if not count:
            return
        self.version += 1
        outcomes = self._of(logger).outcomes
        outcomes[outcome] = outcomes.get(outcome, 0) + count
        if outcome.is_lost:
            losses = self._losses.setdefault((logger.namespace, logger.service), _Losses())
            losses.count += count
            losses.why = why if len(why) <= _MAX_TEXT else why[: _MAX_TEXT - 1] + "…"

    def notices(self, now: float) -> Iterator[Notice]:
        """Those that are due now; each is given once."""
        for (namespace, service), losses in self._losses.items():
            is_due = losses.told_at is None or now - losses.told_at >= self._config.notice_interval_s
            if losses.count and is_due:
                yield Notice(namespace, service, losses.count, losses.why)
                losses.count, losses.told_at = 0, now

    def _of(self, logger: Logger) -> Counts:
        key = Component(logger.namespace, logger.service, logger.component)
        return self.counts.get(key) or self._new(key)

    def _new(self, key: Component) -> Counts:
        if len(self.counts) >= self._config.kept_components:
            oldest = next(iter(self.counts))
            del self.counts[oldest]
            self._losses.pop((oldest.namespace, oldest.service), None)
        counts = self.counts[key] = Counts()
        return counts

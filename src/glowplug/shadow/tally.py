"""What came of all comparisons so far: counters, the last differences, and when somebody should be told. Pure.

`now` is monotonic, in seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glowplug.shadow.comparing import Comparison, Outcome, finite
from glowplug.shadow.config import ShadowConfig

# Of a text that an answer or a caller made up, what is kept: all of them together are one line of a report.
_MAX_TEXT = 300
# Of the distances (see `differences`); the last bucket is everything.
BOUNDS = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Pair:
    """Who was compared with whom: `service`, `revision` (in use) and `shadow`, each `namespace/name`."""

    service: str
    revision: str
    shadow: str


@dataclass(frozen=True)
class Times:
    """How long the two took in their pods, in seconds, where both are known."""

    revision_s: float
    shadow_s: float


@dataclass(frozen=True)
class Notice:
    """`worse` of the last `compared` answers differed, were errors or did not come; `example` is the last of them."""

    service: str
    revision: str
    shadow: str
    compared: int
    worse: int
    example: str

    @property
    def text(self) -> str:
        """For a person."""
        shadow, revision = (name.partition("/")[2] for name in (self.shadow, self.revision))
        return (
            f"Shadow {shadow} differs from {revision} in {self.worse} of the last {self.compared} answers; "
            f"the last one: {self.example}"
        )


@dataclass
class Counts:
    """Of one pair."""

    outcomes: dict[Outcome, int] = field(default_factory=dict)
    # One more than BOUNDS; not cumulative.
    distances: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    distance_sum: float = 0.0
    timed: int = 0
    revision_s: float = 0.0
    shadow_s: float = 0.0


class Tally:
    """Told of every comparison."""

    def __init__(self, config: ShadowConfig) -> None:
        self._config = config
        self.counts: dict[Pair, Counts] = {}
        self.differences: deque[Mapping[str, Any]] = deque(maxlen=config.kept_differences)
        self._recent: dict[Pair, deque[bool]] = {}
        self._noticed_at: dict[Pair, float] = {}
        # Counts changes, for whoever reports them.
        self.version = 0

    def count(self, pair: Pair, outcome: Outcome) -> None:
        """One that was not compared."""
        self.add(pair, Comparison(outcome), now=0.0)

    def add(
        self,
        pair: Pair,
        comparison: Comparison,
        *,
        now: float,
        times: Times | None = None,
        shown: Mapping[str, str] | None = None,
    ) -> Notice | None:
        """One comparison; `shown` says of which request it was. A notice when it is due."""
        self.version += 1
        counts = self.counts.get(pair) or self._new(pair)
        outcome = comparison.outcome
        counts.outcomes[outcome] = counts.outcomes.get(outcome, 0) + 1
        if comparison.distance is not None:
            counts.distances[bisect_left(BOUNDS, comparison.distance)] += 1
            counts.distance_sum += finite(comparison.distance) or 0.0
        if times is not None:
            counts.timed += 1
            counts.revision_s += times.revision_s
            counts.shadow_s += times.shadow_s
        if not outcome.is_compared:
            return None
        what = _shortened(comparison.what)
        if outcome.is_worse:
            self.differences.append(
                {
                    "service": pair.service, "revision": pair.revision, "shadow": pair.shadow,
                    "outcome": outcome.value, "what": what, "distance": finite(comparison.distance),
                    **{key: _shortened(text) for key, text in (shown or {}).items()},
                }
            )  # fmt: skip
        return self._notice(pair, outcome, what, now)

    def _new(self, pair: Pair) -> Counts:
        if len(self.counts) >= self._config.kept_pairs:
            oldest = next(iter(self.counts))
            for known in (self.counts, self._recent, self._noticed_at):
                known.pop(oldest, None)
        counts = self.counts[pair] = Counts()
        return counts

    def _notice(self, pair: Pair, outcome: Outcome, what: str, now: float) -> Notice | None:
        config = self._config
        recent = self._recent.setdefault(pair, deque(maxlen=config.notice_window))
        recent.append(outcome.is_worse)
        worse, compared = sum(recent), len(recent)
        if not recent[-1] or compared < config.notice_min_compared or worse < config.notice_share * compared:
            return None
        last = self._noticed_at.get(pair)
        if last is not None and now - last < config.notice_interval_s:
            return None
        self._noticed_at[pair] = now
        return Notice(pair.service, pair.revision, pair.shadow, compared, worse, what)


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"

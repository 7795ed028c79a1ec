"""Where a rollout is: all that a controller must know to go on after another one. Values.

It is kept in the InferenceService itself (see `record`), in the very write that moves the traffic, so that the two can
never disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from .evidence import Evidence
from .verdict import Verdict

_MOST_NEWS = 20


class Phase(str, Enum):
    """`STARTING`: the canary is not ready and takes nothing. The last three and `IDLE` wait for the spec to change."""

    IDLE = "Idle"
    STARTING = "Starting"
    PROGRESSING = "Progressing"
    PROMOTING = "Promoting"
    ROLLING_BACK = "RollingBack"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"


ACTIVE = frozenset({Phase.STARTING, Phase.PROGRESSING, Phase.PROMOTING, Phase.ROLLING_BACK})


@dataclass(frozen=True)
class News:
    """Something to tell, as an event and, where `type` is not empty, as a CloudEvent of that type.

    `id` is the same however often and by whomever it is told.
    """

    id: str
    reason: str
    message: str
    is_warning: bool = False
    type: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """A component that gets a new revision: the `stable` one, the `canary` once it is known, and `before`, the latest
    one that is not it."""

    stable: str
    before: str
    canary: str = ""


@dataclass(frozen=True)
class State:
    """`weight` is the percent that all members' `canaryTrafficPercent` must have, None: the field must not be there.

    `since` is when this weight began, `started` the rollout, both in seconds since the epoch. `hold` says why the
    weight stays though the interval is over, why the canary is not ready, or how it ended. `evidence` is that at this
    weight, by component. `news` is what has not been told yet, `told` how much there has been to tell.
    """

    phase: Phase = Phase.IDLE
    members: Mapping[str, Member] = field(default_factory=dict)
    weight: int | None = None
    since: float = 0.0
    started: float = 0.0
    is_paused: bool = False
    hold: str = ""
    verdict: Verdict | None = None
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    news: tuple[News, ...] = ()
    told: int = 0

    @property
    def is_active(self) -> bool:
        return self.phase in ACTIVE

    def telling(
        self,
        reason: str,
        message: str,
        *,
        is_warning: bool = False,
        type: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> State:
        """With one thing more to tell. Of what nobody takes, the oldest is forgotten."""
        news = News(f"{self.started:.3f}-{self.told}", reason, message, is_warning, type, data or {})
        return replace(self, news=(*self.news, news)[-_MOST_NEWS:], told=self.told + 1)

    def without(self, ids: frozenset[str]) -> State:
        """Once the news of these ids has been told."""
        return replace(self, news=tuple(news for news in self.news if news.id not in ids))

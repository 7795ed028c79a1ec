"""What is known of a model's retraining, as it is kept in its ConfigMap. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .trigger import Trigger


class Outcome(str, Enum):
    """How a run ended. `KEPT`: it ended well, and the champion stays."""

    DEPLOYED = "deployed"
    KEPT = "kept"
    FAILED = "failed"


class Stage(str, Enum):
    """Where a challenger is."""

    DEPLOYED = "deployed"
    PROMOTED = "promoted"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Running:
    """A run that somebody works at.

    `beats` counts the renewals of the lease; `holder` is empty where it was given back.

    `before` is the storageUri that the InferenceService had when the run began.
    """

    run: str
    trigger: Trigger
    holder: str
    started: float
    renewed: float
    beats: int = 0
    attempt: int = 1
    before: str | None = None

    @property
    def mark(self) -> str:
        """Changes with each renewal."""
        return f"{self.run} {self.holder} {self.beats}"


@dataclass(frozen=True)
class Ended:
    """The last run that ended."""

    run: str
    trigger: Trigger
    outcome: Outcome
    reason: str
    at: float
    started: float
    attempt: int
    before: str | None = None


@dataclass(frozen=True)
class News:
    """The end of a run's attempt that is still to be told. `facts` are of JSON's types."""

    run: str
    attempt: int
    trigger: Trigger
    outcome: Outcome
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The same however often it is told."""
        return f"{self.run}-{self.attempt}-{self.outcome.value}"


@dataclass(frozen=True)
class Challenger:
    """The version that was deployed last."""

    run: str
    version: str
    storage_uri: str
    stage: Stage
    at: float
    reason: str = ""


@dataclass(frozen=True)
class State:
    """`answered` maps an episode to (what answered it, when); `started` are the starts of the last day.

    `covering` is when the last run began that did not fail: later triggers within the cool-down are its.
    """

    running: Running | None = None
    waiting: Trigger | None = None
    last: Ended | None = None
    challenger: Challenger | None = None
    answered: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    started: tuple[float, ...] = ()
    covering: float | None = None
    news: tuple[News, ...] = ()


@dataclass(frozen=True)
class Seen:
    """A lease as somebody who does not hold it saw it: its mark, and when that was first seen, by his own clock."""

    mark: str = ""
    at: float = 0.0

    def again(self, running: Running | None, now: float) -> Seen:
        """What is seen now."""
        mark = running.mark if running else ""
        return self if mark == self.mark else Seen(mark, now)

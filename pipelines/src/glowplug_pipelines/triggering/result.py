"""What goes into a run and what comes of it: the steps, where they run, how an event ended. Values only."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glowplug.registry.models import ModelVersion
from glowplug_pipelines.deploying.settings import TOKEN
from glowplug_pipelines.settings import Settings
from glowplug_pipelines.workload import Progress

from .state import Running

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig


@dataclass(frozen=True)
class Made:
    """What the steps of a run came to. `is_better`: the gate has passed it; then there is a version."""

    is_better: bool
    verdict: str
    reason: str
    version: ModelVersion | None = None
    card: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Steps = Callable[[Settings, Running, Progress], Made]
"""Blocks; is asked again after a kill, and then goes on. `progress` raises where it is to stop."""


@dataclass(frozen=True)
class Surroundings:
    """Where a run is: the Kubernetes API, the sink for events (empty: none), the token of git and forge."""

    connection: SingleConfig
    sink: str = ""
    token: str = field(default="", repr=False)
    holder: str = field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    )
    clock: Callable[[], float] = time.time

    @classmethod
    def of(cls, connection: SingleConfig, environment: Mapping[str, str]) -> Surroundings:
        """As Knative and Secrets tell a Job by its environment."""
        return cls(connection, environment.get("K_SINK", ""), environment.get(TOKEN, ""))


class Ending(str, Enum):
    """What became of an event."""

    DEPLOYED = "deployed"
    KEPT = "kept"
    FAILED = "failed"
    SKIPPED = "skipped"
    WAITING = "waiting"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    IGNORED = "ignored"


@dataclass(frozen=True)
class Result:
    """Why, and of which run. One that failed should make its process fail, so that a Job tries it again."""

    ending: Ending
    reason: str
    run: str = ""

    @property
    def is_failure(self) -> bool:
        return self.ending is Ending.FAILED

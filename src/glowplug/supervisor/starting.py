"""Follows one start of a container, from the decision to its first answer, and tells of it once it is over.

Telling waits until those that the start was for have been told: the pod's status and its endpoint go first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio

from glowplug.supervisor.cold_start import FIRST_BYTE, READY, STARTED, ColdStart
from glowplug.supervisor.start_metrics import StartMetrics
from glowplug.supervisor.start_pipe import LISTENING, VARIABLE, StartPipe

_LOG = logging.getLogger(__name__)
# The status is written, the route is changed and held requests are sent on within this time.
_CALM_S = 0.1


class Starting:
    """`listening` is set when the server inside says that it listens; it never is for programs that say nothing."""

    def __init__(self, record: ColdStart, pipe: Path) -> None:
        self.record = record
        self.listening = anyio.Event()
        self._is_ready = anyio.Event()
        self._has_answered = anyio.Event()
        try:
            self._pipe: StartPipe | None = StartPipe(pipe, self._on_phase)
        except OSError as error:
            # A full disk; the start goes on without.
            _LOG.warning("no timeline of container %s: %s", record.container, error)
            self._pipe = None

    def env(self) -> Mapping[str, str]:
        """What the container's environment has besides its own."""
        return {VARIABLE: str(self._pipe.path)} if self._pipe else {}

    def started(self, how: str) -> None:
        """There is a process, from the pool or by exec."""
        self.record.how = how
        self.record.mark(STARTED, time.time())

    def ready(self) -> None:
        """The readiness probe has succeeded, at least once."""
        self.record.mark(READY, time.time())
        self._is_ready.set()

    async def report(self, metrics: StartMetrics, tell: Callable[[ColdStart, bool], None]) -> None:
        """`tell` gets the record when the container is ready (True), and once more after its first answer (False)."""
        await self._is_ready.wait()
        await anyio.sleep(_CALM_S)
        metrics.ready(self.record)
        tell(self.record, True)
        await self._has_answered.wait()
        await anyio.sleep(_CALM_S)
        metrics.first_byte(self.record)
        tell(self.record, False)
        self.close()

    def close(self) -> None:
        """The process has ended, or has nothing more to say."""
        if self._pipe is not None:
            self._pipe.close()

    def _on_phase(self, phase: str, moment: float) -> None:
        if phase == LISTENING:
            self.listening.set()
            return
        # A clock inside that is ahead of ours, or a line that is made up, must not become a duration.
        self.record.mark(phase, min(moment, time.time()))
        if phase == FIRST_BYTE:
            self._has_answered.set()

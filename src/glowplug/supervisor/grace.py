"""Ending processes with patience, and with less of it when told so meanwhile.

A deletion may be repeated with a shorter grace period, and the machine may be told to stop while a pod drains: then
every wait that is under way is cut short.
"""

from __future__ import annotations

import anyio

from glowplug.supervisor.process import Process


class Grace:
    """How long the processes of one pod get between SIGTERM and SIGKILL."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waits: set[anyio.CancelScope] = set()

    def shorten(self, seconds: float) -> None:
        """At most `seconds` from now, for waits under way too."""
        self.seconds = min(self.seconds, seconds)
        for scope in self._waits:
            scope.deadline = min(scope.deadline, anyio.current_time() + seconds)

    async def end(self, process: Process, seconds: float | None = None) -> int:
        """SIGTERM, wait, SIGKILL; returns the exit code. Not interrupted by cancellation."""
        if (self.seconds if seconds is None else seconds) > 0:
            process.terminate()
        with anyio.CancelScope(shield=True):
            await self._patience(process, self.seconds if seconds is None else seconds)
            process.kill()
            await process.wait()
        return process.exit_code

    async def _patience(self, process: Process, seconds: float) -> None:
        with anyio.CancelScope(deadline=anyio.current_time() + seconds) as scope:
            self._waits.add(scope)
            try:
                await process.wait()
            finally:
                self._waits.discard(scope)

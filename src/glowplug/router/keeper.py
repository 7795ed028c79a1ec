"""Keeps Envoy running: starts it, starts it again when it dies, and drains it before it stops."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import deque
from collections.abc import Callable

import anyio

from glowplug.errors import GlowplugError
from glowplug.router import admin
from glowplug.router.bootstrap import REQUESTS_IN_FLIGHT
from glowplug.router.config import RouterConfig
from glowplug.router.layout import Layout
from glowplug.router.process import send, start, stop

_log = logging.getLogger(__name__)

_KEPT_LINES = 30
_SHOWN_LINES = 8
_SHOWN_CHARACTERS = 400
_POLL_INTERVAL_S = 0.01
_DRAIN_POLL_INTERVAL_S = 0.05


class Keeper:
    """The one Envoy process. `on_start` is called before each start, `on_pid` with each new process id."""

    def __init__(
        self,
        command: list[str],
        layout: Layout,
        config: RouterConfig,
        *,
        on_start: Callable[[], None],
        on_pid: Callable[[int], None],
    ) -> None:
        self._command = command
        self._layout = layout
        self._config = config
        self._on_start = on_start
        self._on_pid = on_pid
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._was_ready = False

    @property
    def pid(self) -> int | None:
        """The process id of the Envoy that runs now, if one does."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def last_lines(self, containing: str = "", *, most: int = _SHOWN_LINES) -> str:
        """The last lines that Envoy logged, of those that contain a text; of a long one its end, with the cause."""
        lines = [line for line in self._lines if containing in line]
        return "\n".join(line[-_SHOWN_CHARACTERS:] for line in lines[-most:])

    async def run(self) -> None:
        """Keeps Envoy running until cancelled. Raises GlowplugError if it never became ready."""
        backoff_s = self._config.restart_backoff_s
        while True:
            self._on_start()
            started_at = time.monotonic()
            status = await self._run_once()
            words = f"Envoy ended with status {status}; its last lines:\n{self.last_lines() or '(none)'}"
            if not self._was_ready:
                raise GlowplugError(words, hint="run `glowplug doctor`")
            if time.monotonic() - started_at > self._config.max_restart_backoff_s:
                backoff_s = self._config.restart_backoff_s
            _log.error("%s\nit starts again in %.1f s", words, backoff_s)
            await anyio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, self._config.max_restart_backoff_s)

    async def wait_ready(self) -> None:
        """Waits until the first Envoy serves. Raises GlowplugError if that takes longer than `start_timeout_s`."""
        with anyio.move_on_after(self._config.start_timeout_s):
            while True:
                if await self._is_live():
                    self._was_ready = True
                    return
                await anyio.sleep(_POLL_INTERVAL_S)
        raise GlowplugError(
            f"Envoy was not ready after {self._config.start_timeout_s:g} s; its last lines:\n"
            f"{self.last_lines() or '(none)'}",
            hint="run `glowplug doctor`",
        )

    def reopen_logs(self) -> None:
        """Makes Envoy write on into new files, after the old ones were renamed."""
        if self._process is not None:
            send(self._process, signal.SIGUSR1)

    async def _run_once(self) -> int:
        try:
            self._process = process = await start(self._command)
        except OSError as error:
            raise GlowplugError(
                f"Envoy could not be started: {error}", hint="run `glowplug doctor`"
            ) from error
        self._on_pid(process.pid)
        try:
            assert process.stderr is not None
            async for raw in process.stderr:
                line = raw.decode(errors="replace").rstrip()
                self._lines.append(line)
                _log.info("envoy: %s", line)
            return await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._drain()
                await stop(process)

    async def _is_live(self) -> bool:
        try:
            status, _ = await admin.request(self._layout.admin, "/ready")
        except (OSError, TimeoutError):
            return False
        return status == 200

    async def _drain(self) -> None:
        """Stops accepting connections at the ingress, and waits until what is in flight is answered.

        The local listeners go on: a transformer has yet to ask its predictor.
        """
        if self.pid is None:
            return
        try:
            await admin.request(self._layout.admin, "/drain_listeners?inboundonly", "POST")
            with anyio.move_on_after(self._config.drain_timeout_s):
                while True:
                    if not await admin.count(self._layout.admin, REQUESTS_IN_FLIGHT):
                        return
                    await anyio.sleep(_DRAIN_POLL_INTERVAL_S)
        except (OSError, TimeoutError) as error:
            _log.warning("Envoy could not be drained: %s", error)

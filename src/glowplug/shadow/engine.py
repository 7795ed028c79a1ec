"""Runs the shadow's process while a route asks for one, and knows what it found.

Envoy copies requests to that process by itself, see `router.shadow`; where it is not there, Envoy goes on without.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import orjson

from glowplug.shadow.config import ShadowConfig
from glowplug.shadow.report import Object, metrics, notices_of, parse_report
from glowplug.shadow.tally import Notice
from glowplug.spec.routes import RouteTable

_LOG = logging.getLogger(__name__)
_LINE_LIMIT_BYTES = 16 * 1024 * 1024
# A process that ran for so long had no trouble starting.
_WELL_AFTER_S = 60.0


class Shadows:
    """`run` it in a task. `notify` is told what somebody should look at, `on_pid` of each process that starts."""

    def __init__(
        self,
        config: ShadowConfig,
        *,
        notify: Callable[[Notice], None] = lambda notice: None,
        on_pid: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self._config = config
        self._notify = notify
        self._on_pid = on_pid
        self._is_wanted = False
        self._changed = asyncio.Event()
        self._report: Object = {}
        self.pid: int | None = None

    def publish(self, table: RouteTable) -> None:
        """The routes as they are now."""
        is_wanted = any(entry.shadow is not None for entry in table.routes)
        if is_wanted != self._is_wanted:
            self._is_wanted = is_wanted
            self._changed.set()

    def metrics(self) -> str:
        """What came of the copies, in Prometheus' text format."""
        return metrics(self._report)

    def page(self, path: tuple[str, ...]) -> str | None:
        """Counters and the last differences as JSON: of all, of a namespace, or of a service in it."""
        if len(path) > 2:
            return None
        wanted = "/".join(path)

        def concerns(item: Object) -> bool:
            service = str(item["service"])
            return not wanted or service == wanted or service.startswith(f"{wanted}/")

        report = {
            part: [item for item in self._report.get(part, ()) if concerns(item)]
            for part in ("services", "differences")
        }
        return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()

    async def run(self, copies: Path, shadow: Path) -> None:
        """Until cancelled. `copies` is where Envoy sends copies, `shadow` its listener for the requests of shadows."""
        backoff_s = 0.0
        while True:
            await self._until(True)
            started_at = time.monotonic()
            try:
                code = await self._run(copies, shadow)
            except OSError as error:
                _LOG.error("the shadow's process does not start: %s", error)
                code = None
            if not self._is_wanted:
                backoff_s = 0.0
                continue
            if time.monotonic() - started_at > _WELL_AFTER_S:
                backoff_s = 0.0
            config = self._config
            backoff_s = min(max(2 * backoff_s, config.restart_backoff_s), config.max_restart_backoff_s)
            _LOG.warning("the shadow's process ended (%s), it is started again in %g s", code, backoff_s)
            await anyio.sleep(backoff_s)

    async def _run(self, copies: Path, shadow: Path) -> int | None:
        """One life of the process: until it ends, or nobody wants it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P" if sys.version_info >= (3, 11) else "-E", "-m", "glowplug.shadow.process",
            str(copies), str(shadow),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            start_new_session=True, limit=_LINE_LIMIT_BYTES,
        )  # fmt: skip
        self.pid = process.pid
        self._on_pid(process.pid)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._end_unwanted, process, name="shadow's end")
                await self._read(process)
                tasks.cancel_scope.cancel()
        finally:
            self.pid = None
            with anyio.CancelScope(shield=True):
                await self._stop(process)
        return process.returncode

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await self._line(process.stdout):
            try:
                self._report = parse_report(line)
            except ValueError:
                _LOG.warning("the shadow's process said something else than a report: %r", line[:200])
                continue
            for notice in notices_of(self._report):
                self._notify(notice)

    @staticmethod
    async def _line(output: asyncio.StreamReader) -> bytes:
        """The next one; nothing at the output's end, or where no line of a report can be that long."""
        try:
            return await output.readline()
        except ValueError as error:
            _LOG.error("the shadow's process says too much at once: %s", error)
            return b""

    async def _end_unwanted(self, process: asyncio.subprocess.Process) -> None:
        await self._until(False)
        assert process.stdin is not None
        process.stdin.close()

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        with anyio.move_on_after(self._config.stop_timeout_s):
            await process.wait()
            return
        process.kill()
        await process.wait()

    async def _until(self, is_wanted: bool) -> None:
        while self._is_wanted is not is_wanted:
            self._changed.clear()
            await self._changed.wait()

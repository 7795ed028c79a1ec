"""Keeps the process that takes copies running while somebody wants it, and reads what it reports.

Envoy copies requests to that process by itself, see `router.copies`; where it is not there, Envoy goes on without. The
socket is this side's, and outlives the process: what Envoy copies while the process is starting waits in it, up to a
bound.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import orjson

_LOG = logging.getLogger(__name__)
_LINE_LIMIT_BYTES = 16 * 1024 * 1024
# A process that ran for so long had no trouble starting.
_WELL_AFTER_S = 60.0
# Connections of Envoy that wait for the process. Each holds 416 KiB on Linux (see `copy.lua`), and where it is full
# there is a new one: that is what may wait for a process that starts, or is behind, and it is not the process's memory.
_BACKLOG = 32

Object = dict[str, Any]


@dataclass(frozen=True)
class ChildConfig:
    """Between two lives of the process, and how long it may take to end."""

    restart_backoff_s: float = 1.0
    max_restart_backoff_s: float = 30.0
    stop_timeout_s: float = 2.0


def parse_report(line: bytes) -> Object:
    """Raises ValueError for what is none."""
    report = orjson.loads(line)
    if not isinstance(report, dict):
        raise ValueError("a report is an object")
    return report


class Child:
    """The process of `python -m MODULE LISTENER ...`; `name` is what it is called in the log.

    `LISTENER` is the number of the file descriptor of the socket, bound and listening.

    `on_report` is told of each line of JSON that it says, `on_pid` of each process that starts, `on_end` when it ends.
    """

    def __init__(
        self,
        name: str,
        module: str,
        config: ChildConfig,
        *,
        on_report: Callable[[Object], None],
        on_pid: Callable[[int], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._module = module
        self._config = config
        self._on_report = on_report
        self._on_pid = on_pid
        self._on_end = on_end
        self._is_wanted = False
        self._changed = asyncio.Event()
        self.pid: int | None = None

    def want(self, is_wanted: bool) -> None:
        """Whether the process shall run."""
        if is_wanted != self._is_wanted:
            self._is_wanted = is_wanted
            self._changed.set()

    async def run(self, path: Path, arguments: Sequence[str]) -> None:
        """Until cancelled. `path` is the socket's, the module gets the arguments behind it."""
        with listening_socket(path) as listener:
            await self._run_wanted(listener, arguments)

    async def _run_wanted(self, listener: socket.socket, arguments: Sequence[str]) -> None:
        backoff_s = 0.0
        while True:
            await self._until(True)
            started_at = time.monotonic()
            try:
                code = await self._run(listener, arguments)
            except OSError as error:
                _LOG.error("%s's process does not start: %s", self._name, error)
                code = None
            if not self._is_wanted:
                backoff_s = 0.0
                continue
            if time.monotonic() - started_at > _WELL_AFTER_S:
                backoff_s = 0.0
            config = self._config
            backoff_s = min(max(2 * backoff_s, config.restart_backoff_s), config.max_restart_backoff_s)
            _LOG.warning("%s's process ended (%s), it is started again in %g s", self._name, code, backoff_s)
            await anyio.sleep(backoff_s)

    async def _run(self, listener: socket.socket, arguments: Sequence[str]) -> int | None:
        """One life of the process: until it ends, or nobody wants it."""
        number = listener.fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P" if sys.version_info >= (3, 11) else "-E", "-m", self._module, str(number), *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, pass_fds=(number,),
            start_new_session=True, limit=_LINE_LIMIT_BYTES,
        )  # fmt: skip
        self.pid = process.pid
        self._on_pid(process.pid)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._end_unwanted, process, name=f"{self._name}'s end")
                await self._read(process)
                tasks.cancel_scope.cancel()
        finally:
            self.pid = None
            with anyio.CancelScope(shield=True):
                await self._stop(process)
            self._on_end()
        return process.returncode

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await self._line(process.stdout):
            try:
                report = parse_report(line)
            except ValueError:
                _LOG.warning("%s's process said something else than a report: %r", self._name, line[:200])
                continue
            self._on_report(report)

    async def _line(self, output: asyncio.StreamReader) -> bytes:
        """The next one; nothing at the output's end, or where no line of a report can be that long."""
        try:
            return await output.readline()
        except ValueError as error:
            _LOG.error("%s's process says too much at once: %s", self._name, error)
            return b""

    async def _end_unwanted(self, process: asyncio.subprocess.Process) -> None:
        await self._until(False)
        await self._stop(process)

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


def listening_socket(path: Path) -> socket.socket:
    """A listening socket of the file system that only this user may connect to; what is left over there is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener

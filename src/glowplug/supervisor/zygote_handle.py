"""The supervisor's end of one zygote: starts it, asks it for replicas, ends it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from glowplug.errors import GlowplugError
from glowplug.supervisor.adoption import Adopted, Adoption
from glowplug.supervisor.forkable import Imports
from glowplug.supervisor.log_lines import LineSplitter
from glowplug.supervisor.process import Launcher, OnOutput, Process
from glowplug.supervisor.zygote import LONGEST_MESSAGE

_LOG = logging.getLogger(__name__)
_MODULE = "glowplug.supervisor.zygote"
# Room in the process's own memory where `ps` and the guardian find a replica's arguments and environment.
_ARGUMENTS_ROOM = 4096
_ENVIRONMENT_ROOM = 16384
_ROOM = "GLOWPLUG_ROOM"
_NICE_OF_OTHERS = 20


class NotForked(GlowplugError):
    """A zygote could not be started, or did not fork; `is_broken`: it is of no use any more."""

    def __init__(self, message: str, *, is_broken: bool = False) -> None:
        super().__init__(message)
        self.is_broken = is_broken


@dataclass(frozen=True)
class ZygotePlan:
    """What one unit's zygote is: `label` for `ps`, the module that replicas run, what else to import."""

    label: str
    module: str
    preload: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    python: str


class Zygote:
    """A started zygote. `imports` is what its replicas' environments are compared with."""

    def __init__(self, plan: ZygotePlan, process: Process, channel: socket.socket) -> None:
        self._plan = plan
        self._process = process
        self._channel = channel
        self._turn = anyio.Lock()
        self.imports = Imports(plan.env, frozenset())
        self.import_s = 0.0

    @classmethod
    async def start(cls, plan: ZygotePlan, launcher: Launcher, timeout_s: float) -> Zygote:
        """Returns when it has imported all; raises NotForked where it can't, or CannotStart."""
        try:
            return await cls._start(plan, launcher, timeout_s, is_idle=_may_leave_idle())
        except _StuckIdle:
            return await cls._start(plan, launcher, timeout_s, is_idle=False)

    @classmethod
    async def _start(cls, plan: ZygotePlan, launcher: Launcher, timeout_s: float, *, is_idle: bool) -> Zygote:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        argv = [plan.python, "-m", _MODULE, str(theirs.fileno()), plan.label, " " * _ARGUMENTS_ROOM]
        env = {**plan.env, _ROOM: " " * _ENVIRONMENT_ROOM}
        try:
            process = launcher.start(argv, env, plan.cwd, _logged(plan.label), (theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        zygote = cls(plan, process, ours)
        try:
            order = {"module": plan.module, "preload": plan.preload, "is_idle": is_idle, "room": _ROOM}
            zygote._greeted(await zygote._ask(order, (), timeout_s), is_idle)
        except BaseException:
            await zygote.end()
            raise
        return zygote

    def _greeted(self, hello: Mapping[str, Any], is_idle: bool) -> None:
        problem = hello.get("error") or hello.get("trouble")
        if problem:
            raise NotForked(str(problem), is_broken=True)
        if is_idle and hello["scheduler"] != os.SCHED_OTHER:
            raise _StuckIdle
        self.imports = Imports(self._plan.env, frozenset(hello["names"]), bool(hello["has_openmp"]))
        self.import_s = float(hello["import_s"])

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def ended(self) -> int:
        """Returns when its process has ended; the exit code."""
        return await self._process.wait()

    async def end(self) -> None:
        """Its replicas stay."""
        self._process.kill()
        with anyio.CancelScope(shield=True):
            await self._process.wait()
        self._channel.close()

    async def fork(
        self, request: Mapping[str, Any], output: int, permit: int, adoption: Adoption, timeout_s: float
    ) -> Adopted:
        """A replica that writes to `output` and waits for a `+` from `permit`; it is our child. Raises NotForked."""
        async with self._turn:
            with adoption.open() as is_possible:
                if not is_possible:
                    raise NotForked("this system has no PR_SET_CHILD_SUBREAPER", is_broken=True)
                reply = await self._ask(request, (output, permit), timeout_s)
                if "refused" in reply:
                    raise NotForked(reply["refused"], is_broken=True)
                child = adoption.adopt(int(reply["pid"]))
        if child is None:
            raise NotForked("the replica did not become a child of this process", is_broken=True)
        return child

    async def _ask(self, message: Mapping[str, Any], handles: Sequence[int], timeout_s: float) -> Any:
        data = json.dumps(message).encode()
        if len(data) > LONGEST_MESSAGE:
            raise NotForked(f"{len(data)} bytes of arguments and environment are too many")
        loop = asyncio.get_running_loop()
        try:
            socket.send_fds(self._channel, [data], handles)
            with anyio.fail_after(timeout_s):
                reply = await loop.sock_recv(self._channel, LONGEST_MESSAGE)
        except asyncio.CancelledError:
            # Its answer would be taken for that to the next question.
            self._process.kill()
            raise
        except TimeoutError as error:
            raise NotForked(f"no answer within {timeout_s:g} s", is_broken=True) from error
        except OSError as error:
            raise NotForked(str(error), is_broken=True) from error
        if not reply:
            raise NotForked("it has ended", is_broken=True)
        return json.loads(reply)


class _StuckIdle(Exception):
    """The kernel lets nobody of our rights come back from the idle priority."""


def _may_leave_idle() -> bool:
    """Whether a process may take the priority that it gives up while it imports; sched(7)."""
    limit = resource.getrlimit(resource.RLIMIT_NICE)[0] if hasattr(resource, "RLIMIT_NICE") else 0
    return os.geteuid() == 0 or limit >= _NICE_OF_OTHERS or limit == resource.RLIM_INFINITY


def _logged(label: str) -> OnOutput:
    splitter = LineSplitter()

    def log(data: bytes) -> None:
        for text, _ in splitter.feed(data):
            _LOG.info("zygote of %s: %s", label, text.decode("utf-8", "replace"))

    return log

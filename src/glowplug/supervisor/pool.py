"""The warm pool: a zygote for each unit, from which its replicas are forked; the others are started by exec.

Owns the zygotes. Each is started when the machine has come to rest, one after another, and again when it dies or its
code changes. Nothing depends on them: without one, and for whatever can't be forked, a container starts by exec, as in
a machine without a pool.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from glowplug.errors import GlowplugError
from glowplug.supervisor import environment
from glowplug.supervisor.adoption import Adoption
from glowplug.supervisor.config import SupervisorConfig
from glowplug.supervisor.forkable import module_of, why_not
from glowplug.supervisor.images import ImageTable, Unit
from glowplug.supervisor.localize import MACHINE_MARK, POD_MARK, Command
from glowplug.supervisor.process import Launcher, OnOutput, Process
from glowplug.supervisor.zygote_handle import NotForked, Zygote, ZygotePlan

_LOG = logging.getLogger(__name__)
FORK, EXEC = "fork", "exec"
_PERMIT = b"+"
_REST_S = 0.25
# A pod that never becomes ready must not keep the others cold.
_LONGEST_REST_S = 15.0
_LONG_LIFE_S = 10.0
_FIRST_BACKOFF_S = 0.5
_LAST_BACKOFF_S = 3600.0
_IMPORT_TIMEOUT_S = 60.0
# A computer that is this busy had better not start the imports over again.
_FORK_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Member:
    """One unit in the pool, for those who look at it: `pid` and `import_s` of its zygote, or why it has none."""

    image: str
    pid: int | None
    import_s: float
    why_not: str


def _missing(folder: str) -> str:
    # Told by exec, in the words of a container runtime.
    return "" if os.path.isdir(folder) else f"{folder} is not there"


def _count(member: Member) -> float:
    return 1 if member.pid else 0


def _import_s(member: Member) -> float:
    return member.import_s


class Pool:
    """`run` it in a task; `start` works from the beginning, by exec until a zygote is there."""

    def __init__(
        self, config: SupervisorConfig, images: ImageTable, launcher: Launcher, is_busy: Callable[[], bool]
    ) -> None:
        self._config = config
        self._launcher = launcher
        self._is_busy = is_busy
        self._adoption = Adoption()
        self._importing = anyio.Lock()
        self._zygotes: dict[str, Zygote] = {}
        self._troubles: dict[str, str] = {}
        self._units = [unit for unit in images.units if self._is_pooled(unit)]

    def _is_pooled(self, unit: Unit) -> bool:
        is_possible = self._config.has_warm_pool and sys.platform.startswith("linux")
        return is_possible and unit.is_pooled and self._module(unit) is not None

    def _module(self, unit: Unit) -> str | None:
        words = shlex.split(unit.run)
        return module_of([self._config.python, *words[1:]], self._config.python)

    def members(self) -> list[Member]:
        """All units of the pool, as they are now."""
        result = []
        for unit in self._units:
            zygote = self._zygotes.get(unit.image)
            result.append(
                Member(
                    unit.image,
                    zygote.pid if zygote else None,
                    zygote.import_s if zygote else 0.0,
                    self._troubles.get(unit.image, ""),
                )
            )
        return result

    def render(self) -> str:
        """The families of the pool, as Prometheus text."""
        lines = []
        for name, text, value in (
            ("glowplug_warm_pool_zygotes", "units that replicas can be forked from now", _count),
            ("glowplug_warm_pool_import_seconds", "what a fork saves: how long the imports took", _import_s),
        ):
            samples = [f'{name}{{image="{member.image}"}} {value(member)!r}' for member in self.members()]
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", *samples] if samples else []
        return "".join(f"{line}\n" for line in lines)

    async def run(self) -> None:
        """Keep every unit's zygote alive, until cancelled; then they end."""
        await anyio.sleep(self._config.warm_pool_delay_s)
        async with anyio.create_task_group() as tasks:
            for unit in self._units:
                tasks.start_soon(self._keep, unit, name=f"zygote {unit.image}")

    async def start(self, command: Command, on_output: OnOutput) -> tuple[Process, str]:
        """The process of a container, and FORK or EXEC. Raises CannotStart."""
        zygote = self._zygotes.get(command.image or "")
        if zygote is not None:
            reason = why_not(command.env, zygote.imports) or _missing(command.cwd)
            try:
                if not reason:
                    return await self._fork(zygote, command, on_output), FORK
            except NotForked as failure:
                reason = failure.message
                if failure.is_broken:
                    await self._drop(zygote)
            _LOG.info("container %s is not forked from %s: %s", command.name, command.image, reason)
        return self._launcher.start(command.argv, command.env, command.cwd, on_output), EXEC

    async def _fork(self, zygote: Zygote, command: Command, on_output: OnOutput) -> Process:
        request: Mapping[str, Any] = {
            "argv": command.argv,
            "env": dict(command.env),
            "cwd": command.cwd,
            "parent": os.getpid(),
            "marks": (MACHINE_MARK, POD_MARK),
        }
        reading, output = os.pipe()
        permit, permitting = os.pipe()
        try:
            # Not to be left half done: a process that nobody knows of would be the outcome.
            with anyio.CancelScope(shield=True):
                child = await zygote.fork(request, output, permit, self._adoption, _FORK_TIMEOUT_S)
        except BaseException:
            os.close(reading)
            os.close(permitting)
            raise
        finally:
            os.close(output)
            os.close(permit)
        process = self._launcher.adopt(child, reading, on_output)
        try:
            os.write(permitting, _PERMIT)
        except BrokenPipeError:
            _LOG.warning("process %s ended before it began", child.pid)
        finally:
            os.close(permitting)
        return process

    async def _keep(self, unit: Unit) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            began = anyio.current_time()
            zygote = await self._warmed(unit)
            if zygote is not None:
                try:
                    code = await zygote.ended()
                    _LOG.info("the zygote of %s ended with code %s, starting another", unit.image, code)
                finally:
                    self._zygotes.pop(unit.image, None)
                    await zygote.end()
            if zygote is not None and anyio.current_time() - began > _LONG_LIFE_S:
                backoff_s = _FIRST_BACKOFF_S
            await anyio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)

    async def _warmed(self, unit: Unit) -> Zygote | None:
        """A zygote that has imported the unit, once nothing else is being started; None if it can't."""
        async with self._importing:
            with anyio.move_on_after(_LONGEST_REST_S):
                while self._is_busy():  # noqa: ASYNC110 - nobody waits for this, and every pod would have to tell
                    await anyio.sleep(_REST_S)
            try:
                zygote = await Zygote.start(self._plan(unit), self._launcher, _IMPORT_TIMEOUT_S)
            except GlowplugError as error:
                self._troubles[unit.image] = error.message
                _LOG.warning("%s has no warm pool: %s", unit.image, error.message)
                return None
        self._troubles.pop(unit.image, None)
        self._zygotes[unit.image] = zygote
        _LOG.info("%s is warm: imported in %.2f s, process %s", unit.image, zygote.import_s, zygote.pid)
        return zygote

    def _plan(self, unit: Unit) -> ZygotePlan:
        config = self._config
        env = {
            **environment.inherited(config.host_env),
            **environment.python(str(unit.src), str(config.machine_path)),
            # One thread in the zygote; a replica has its own number.
            "OPENBLAS_NUM_THREADS": "1",
            MACHINE_MARK: self._launcher.mark,
        }
        module = self._module(unit)
        assert module is not None
        return ZygotePlan(
            unit.image, module, (*config.warm_pool_preload, *unit.preload), env, "/", config.python
        )

    async def _drop(self, zygote: Zygote) -> None:
        """Of no use any more: its keeper starts another."""
        for image, known in tuple(self._zygotes.items()):
            if known is zygote:
                del self._zygotes[image]
        await zygote.end()

"""The composition root: every part is made and wired (`parts`), started in order and stopped in reverse.

Started: supervisor, router, broker, controllers, API. So when the API answers, what it is told is done at once. Stopped
the other way round: the API accepts nothing more, the ingress finishes its requests, then the pods end.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import anyio
from anyio.abc import TaskStatus

from glowplug.apiserver.server import State
from glowplug.errors import GlowplugError
from glowplug.local.clock import steady_clock
from glowplug.local.config import MachineConfig
from glowplug.local.datadir import DataDir
from glowplug.local.parts import Parts, api_config

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

_LOG = logging.getLogger(__name__)
_FIRST_TABLE_S = 10.0
Announce = Callable[[dict[str, Any]], None]
Run = Callable[..., Coroutine[Any, Any, None]]


def run(config: MachineConfig, announce: Announce) -> None:
    """Run a machine until SIGTERM or SIGINT; `announce` is told once it is up.

    Raises DataDirHeld, ConfigError (a port is taken, a unit is wrong, a file cannot be written), StoreFull.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    for name in ("uvicorn", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    directory = DataDir.at(config.data_dir)
    is_up = False

    def up(description: dict[str, Any]) -> None:
        nonlocal is_up
        is_up = True
        announce(description)

    with directory.held():
        try:
            anyio.run(_run, config, directory, up)
        except (OSError, BaseExceptionGroup) as group:
            error = _first(group) if isinstance(group, BaseExceptionGroup) else group
            if isinstance(error, OSError) and not is_up:
                raise directory.unusable(error) from group
            raise error from group


async def _run(config: MachineConfig, directory: DataDir, announce: Announce) -> None:
    async with AsyncExitStack() as stack:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            machine = await _start(config, directory, stack)
            directory.describe(machine)
            announce(machine)
            await anext(aiter(signals))
        # From here on a signal has its default effect; the guardian ends what is left then.
        _LOG.info("stopping; a second signal ends everything at once")


async def _start(config: MachineConfig, directory: DataDir, stack: AsyncExitStack) -> dict[str, Any]:
    """Start every part; what the machine says of itself."""
    clock = steady_clock()
    state = State.open(
        api_config(config, directory), clock=lambda: datetime.fromtimestamp(clock(), timezone.utc)
    )
    stack.callback(state.close)
    parts = Parts(config, directory, state, clock)

    async def start(run: Run, name: str, *arguments: object) -> None:
        await stack.enter_async_context(_running(run, name, *arguments))

    # Before the router: its first table must not send anything to a pod of the previous life.
    parts.supervisor.prepare()
    await start(parts.supervisor.run, "supervisor")
    await start(parts.router.run, "router")
    await start(parts.activator.run, "activator", parts.router.admission_socket)
    await start(_without_status(parts.shadow), "shadow")
    await start(parts.eventing.run, "broker")
    await start(_without_status(parts.log_payloads), "payloads")
    controllers = parts.controllers()
    await start(_without_status(controllers.run), "controllers")
    # Whoever is told that the machine is up finds what it served before. A table that the router refuses must not keep
    # the machine from coming up, since it is by the API that one mends it.
    with anyio.move_on_after(_FIRST_TABLE_S) as first_table:
        await controllers.has_routed()
    await parts.eventing.settle(is_complete=not first_table.cancelled_caught)
    await start(_without_status(parts.autoscaling.run), "autoscaler")

    async def follow_config() -> None:
        await parts.autoscaling.follow_config(state.objects, controllers.wake_all)

    await start(_without_status(follow_config), "config-autoscaler")
    await start(parts.api.run, "apiserver")
    return parts.describe()


@asynccontextmanager
async def _running(run: Run, name: str, *arguments: object) -> AsyncIterator[None]:
    """`run` in a task of its own: started when the block begins, cancelled and awaited when it ends."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(run, *arguments, name=name)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


def _without_status(run: Run) -> Run:
    """For parts that are ready as soon as they run."""

    async def started(*, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await run()

    return started


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What is to be told of a group: the error meant for users if there is one, else the first."""
    leaves: list[BaseException] = []

    def collect(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                collect(inner)
        else:
            leaves.append(error)

    collect(group)
    return next((leaf for leaf in leaves if isinstance(leaf, GlowplugError)), leaves[0])

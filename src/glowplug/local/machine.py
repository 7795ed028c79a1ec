"""The composition root: every part is made here, wired to the others, started in order and stopped in reverse.

Started: supervisor, router, controllers, API. So when the API answers, what it is told is done at once. Stopped the
other way round: the API accepts nothing more, the ingress finishes its requests, then the pods end.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import anyio
from anyio.abc import TaskStatus

from glowplug.activator import Activator, ActivatorConfig
from glowplug.apiserver.server import ApiServer, ApiServerConfig, State
from glowplug.controllers import Controllers, ControllersConfig
from glowplug.errors import GlowplugError, NotFound
from glowplug.local.autoscaling import Autoscaling
from glowplug.local.clock import steady_clock
from glowplug.local.config import MachineConfig
from glowplug.local.datadir import DataDir
from glowplug.local.units import install_runtimes, unit_folders
from glowplug.router import Router, RouterConfig
from glowplug.spec import names
from glowplug.spec.kinds import KNATIVE_SERVICE, REVISION
from glowplug.spec.routes import RouteTable
from glowplug.supervisor.agent import Supervisor
from glowplug.supervisor.config import SupervisorConfig
from glowplug.supervisor.images import ImageTable, discover
from glowplug.supervisor.storage import Storage

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

_LOG = logging.getLogger(__name__)
_POD_GRACE_S = 10.0
_FIRST_TABLE_S = 10.0
Announce = Callable[[dict[str, Any]], None]
Run = Callable[..., Coroutine[Any, Any, None]]


def run(config: MachineConfig, announce: Announce) -> None:
    """Run a machine until SIGTERM or SIGINT; `announce` is told once it is up.

    Raises DataDirHeld, ConfigError (a port is taken, a unit is wrong, a file cannot be written), StoreFull.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
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
    api_config = ApiServerConfig(directory.root, port=config.api_port, is_tls=config.is_tls)
    clock = steady_clock()
    state = State.open(api_config, clock=lambda: datetime.fromtimestamp(clock(), timezone.utc))
    stack.callback(state.close)
    folders = unit_folders(config.unit_dirs)
    install_runtimes(state.objects, folders)
    router = Router(
        RouterConfig(directory.envoy, port=config.ingress_port, drain_timeout_s=config.shutdown_timeout_s),
        on_pid=lambda pid: envoy_started(pid),
    )
    autoscaling = Autoscaling(router, clock, lambda revision: _siblings(state, revision))
    activator = Activator(ActivatorConfig(), on_wait=autoscaling.waited_for)
    autoscaling.activator = activator

    description: dict[str, Any] = {}

    def envoy_started(pid: int) -> None:
        supervisor.guard(pid)
        activator.ingress_started()
        if description:
            description["processes"]["envoy"] = pid
            _describe(directory, description)

    supervisor = _supervisor(config, directory, state, router, discover(folders))
    api = ApiServer(
        api_config,
        state,
        supervisor,
        {
            "traces": autoscaling.trace,
            "metrics": lambda rest: None if rest else supervisor.metrics() + autoscaling.metrics(),
        },
    )
    # Before the router: its first table must not send anything to a pod of the previous life.
    supervisor.prepare()
    await stack.enter_async_context(_running(supervisor.run, "supervisor"))
    await stack.enter_async_context(_running(router.run, "router"))
    ingress_url = f"http://127.0.0.1:{router.real_port}"

    async def publish(table: RouteTable) -> bool:
        activator.publish(table)
        router.publish(table)
        return await router.settled()

    await stack.enter_async_context(_running(activator.run, "activator", router.admission_socket))
    controllers = Controllers(
        state.objects,
        state.recorder,
        publish,
        autoscaling,
        ControllersConfig(ingress_url, config.domain),
        clock,
        is_waited_for=lambda revision: revision in activator.held(),
    )
    autoscaling.wake = controllers.wake
    await stack.enter_async_context(_running(_without_status(controllers.run), "controllers"))
    # Whoever is told that the machine is up finds what it served before. A table that the router refuses must not keep
    # the machine from coming up, since it is by the API that one mends it.
    with anyio.move_on_after(_FIRST_TABLE_S):
        await controllers.has_routed()
    await stack.enter_async_context(_running(_without_status(autoscaling.run), "autoscaler"))

    async def follow_config() -> None:
        await autoscaling.follow_config(state.objects, controllers.wake_all)

    await stack.enter_async_context(_running(_without_status(follow_config), "config-autoscaler"))
    await stack.enter_async_context(_running(api.run, "apiserver"))
    description.update(_description(directory, router, api, supervisor.guardian_pid))
    return description


def _description(
    directory: DataDir, router: Router, api: ApiServer, guardian_pid: int | None
) -> dict[str, Any]:
    """What the machine says of itself, which is up."""
    processes = {"machine": os.getpid(), "envoy": router.pid, "guardian": guardian_pid}
    return {
        "pid": os.getpid(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "data_dir": str(directory.root),
        "kubeconfig": str(directory.kubeconfig),
        "ports": {"ingress": router.real_port, "api": api.port},
        "urls": {"ingress": f"http://127.0.0.1:{router.real_port}", "api": api.url},
        "processes": {name: pid for name, pid in processes.items() if pid is not None},
    }


def _describe(directory: DataDir, description: dict[str, Any]) -> None:
    try:
        directory.describe(description)
    except OSError as error:
        _LOG.warning("%s is out of date, the machine goes on: %s", directory.description, error)


def _siblings(state: State, revision: str) -> list[str]:
    """The revisions of the same InferenceService: a request for its transformer will need its predictor."""
    namespace, _, name = revision.partition("/")
    try:
        labels = state.objects.get(REVISION, namespace, name)["metadata"].get("labels") or {}
    except NotFound:
        return []
    service = labels.get(names.INFERENCE_SERVICE_LABEL)
    if not service:
        return []
    found = state.objects.list(REVISION, namespace, {names.INFERENCE_SERVICE_LABEL: service})
    component = labels.get(names.COMPONENT_LABEL)
    return [
        f"{namespace}/{other['metadata']['name']}"
        for other in found
        if (other["metadata"].get("labels") or {}).get(names.COMPONENT_LABEL) != component
    ]


def _supervisor(
    config: MachineConfig, directory: DataDir, state: State, router: Router, images: ImageTable
) -> Supervisor:
    # The ingress has drained by then, so a pod that takes long is one whose requests nobody waits for any more.
    grace_s = min(_POD_GRACE_S, config.shutdown_timeout_s)
    settings = SupervisorConfig(
        directory.root,
        sys.executable,
        dict(os.environ),
        shutdown_grace_s=grace_s,
        has_warm_pool=config.has_warm_pool,
    )

    def resolve(namespace: str, service: str) -> str | None:
        try:
            state.objects.get(KNATIVE_SERVICE, namespace, service)
        except NotFound:
            return None
        return router.local_address(namespace, service)

    async def unrouted(pod: str) -> None:
        await router.without(pod)

    return Supervisor(
        state.objects,
        state.recorder,
        images,
        Storage(directory.root, sys.executable, settings.host_env, settings.machine_path),
        resolve,
        unrouted,
        settings,
    )


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

"""One pod: brought up, kept up, written down, and drained.

Order of a start: ports, volumes, model, then all containers at once. Order of an end: out of the route table, SIGTERM,
the grace period, SIGKILL, first for the container that takes the requests; then the object goes. Owns the pod's status
and its endpoint annotation; nobody else writes them.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from glowplug.errors import ApiError, NotFound
from glowplug.spec import names
from glowplug.spec.kinds import SECRET, SERVICE_ACCOUNT, Kind
from glowplug.supervisor import cold_start, ports, storage_secrets, volumes
from glowplug.supervisor.cold_start import ColdStart
from glowplug.supervisor.containers import ContainerRunner, PodContext
from glowplug.supervisor.failures import CONTAINER_CREATING, CREATE_ERROR, CannotStart
from glowplug.supervisor.free_ports import FreePorts
from glowplug.supervisor.grace import Grace
from glowplug.supervisor.localize import (
    Command,
    Endpoint,
    PodPlace,
    Surroundings,
    endpoint,
    localize,
    port_plan,
)
from glowplug.supervisor.model import ModelInitializer
from glowplug.supervisor.pod_logs import PodLogs
from glowplug.supervisor.pod_record import Objects, PodRecord
from glowplug.supervisor.pool import Pool
from glowplug.supervisor.process import Launcher
from glowplug.supervisor.sources import Sources
from glowplug.supervisor.start_metrics import StartMetrics
from glowplug.supervisor.status import Object, PodView, Running, Snapshot, Waiting, initializing
from glowplug.supervisor.storage import Storage

_LOG = logging.getLogger(__name__)
_DEFAULT_GRACE_S = 30.0
# What the containers beside the serving one get at least, if that one took all of the grace.
_LAST_GRACE_S = 2.0


# (regarding, "Normal" or "Warning", reason, message)
EventRecorder = Callable[[Object, str, str, str], None]
# ("namespace/name" of a pod): returns when no request goes there any more.
Unrouted = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class PodServices:
    """What all pods of the machine share."""

    objects: Objects
    events: EventRecorder
    around: Surroundings
    storage: Storage
    unrouted: Unrouted
    launcher: Launcher
    free_ports: FreePorts
    pool: Pool
    starts: StartMetrics


class PodRunner:
    """Runs one pod until it is deleted (`leave`), vanishes (`vanish`), or the machine stops (cancellation)."""

    def __init__(self, pod: Object, services: PodServices) -> None:
        self.pod = pod
        self._services = services
        self._config = services.around.config
        metadata = pod["metadata"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self.logs = PodLogs(self._config, metadata)
        self._folder = self._config.pods_dir / self.uid
        self._started_at = time.time()
        self._record = PodRecord(services.objects, self.namespace, self.name, self.uid)
        self._reconsider = anyio.Event()
        self._leaving = anyio.Event()
        self._living = anyio.CancelScope()
        self._is_gone = False
        self._ports: ports.PodPorts | None = None
        self._place: PodPlace | None = None
        self._has_run_before = bool((pod.get("status") or {}).get("containerStatuses"))
        self._model_here: float | None = None
        self._starts: dict[str, ColdStart] = {}
        self._context = self._new_context()
        uri = (metadata.get("annotations") or {}).get(names.STORAGE_SOURCE_URI)
        self._model = (
            ModelInitializer(pod, uri, services.storage, self._context, self._credentials) if uri else None
        )
        self._containers = [self._new_container(each) for each in pod["spec"]["containers"]]

    async def run(self) -> None:
        """Returns when the pod is gone and its object with it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                self._record.keep, self._view, self._where, self._timeline, name=f"status {self.name}"
            )
            tasks.start_soon(self._wait_to_leave, name=f"leave {self.name}")
            with self._living:
                await self._live()
            tasks.cancel_scope.cancel()
        self.clean_up()
        if not self._is_gone:
            await self._record.finish()

    def leave(self, grace_s: float) -> None:
        """The pod is to be deleted: drain it. Said again with less grace, it hurries."""
        grace_s = min(grace_s, self._config.max_termination_grace_s)
        if self._leaving.is_set():
            self._context.grace.shorten(grace_s)
            return
        self._context.grace.seconds = grace_s
        self._leaving.set()

    def vanish(self) -> None:
        """The object is gone already: so are the processes, at once."""
        self._is_gone = True
        self._context.grace.shorten(0)
        self._leaving.set()
        self._living.cancel()

    def hurry(self, grace_s: float) -> None:
        """The machine is stopping."""
        self._context.grace.shorten(grace_s)

    def reconsider(self, kind: Kind, name: str) -> None:
        """A ConfigMap or Secret of the namespace has changed: volumes follow, who waits for it tries again."""
        if self._place is not None and (kind, name) in volumes.references(self.pod):
            try:
                self._materialise()
            except (CannotStart, OSError) as error:
                self._event("Warning", "FailedMount", str(error))
        previous, self._reconsider = self._reconsider, anyio.Event()
        previous.set()

    def clean_up(self) -> None:
        """Give back what the pod had of this computer."""
        if self._ports is not None:
            self._services.free_ports.give_back([*self._ports.real.values(), self._ports.spare_grpc])
        shutil.rmtree(self._folder, ignore_errors=True)
        self.logs.remove()

    def container_names(self) -> list[str]:
        """Those with logs, the model's first."""
        return [each.snapshot.name for each in (self._model, *self._containers) if each is not None]

    def waiting_reason(self, container: str) -> str:
        """Why a container has no log yet."""
        for each in (self._model, *self._containers):
            if (
                each is not None
                and each.snapshot.name == container
                and isinstance(each.snapshot.state, Waiting)
            ):
                return each.snapshot.state.reason
        return CONTAINER_CREATING

    def pids(self) -> dict[str, int]:
        """Container → process, of those that run now."""
        running = [each.snapshot for each in self._containers if isinstance(each.snapshot.state, Running)]
        return {each.name: each.pid for each in running if each.pid is not None}

    async def _live(self) -> None:
        """Until cancelled. A fault of ours is logged and tried again: it must not take other pods along."""
        while True:
            try:
                await self._bring_up()
                await anyio.sleep_forever()
            except Exception as error:
                _LOG.exception("pod %s/%s", self.namespace, self.name)
                self._event("Warning", "FailedSync", f"error syncing the pod: {error}")
            await anyio.sleep(self._config.config_retry_s)

    async def _bring_up(self) -> None:
        self._take_ports()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tell_ignored()
        mounted = await self._mount()
        model_dir: Path | None = None
        if self._model is not None:
            for runner in self._containers:
                runner.snapshot = initializing(runner.snapshot)
            model_dir = await self._model.run()
        assert self._ports is not None
        self._model_here = time.time()
        self._place = PodPlace(self._ports, self._folder, mounted, model_dir)
        async with anyio.create_task_group() as tasks:
            for runner in self._containers:
                tasks.start_soon(runner.run, name=f"container {self.name}/{runner.snapshot.name}")

    def _take_ports(self) -> None:
        if self._ports is None:
            plan = port_plan(self.pod, self._services.around.images)
            free = self._services.free_ports.take(len(plan.numbers) + 1, avoid=plan.numbers)
            self._ports = ports.bind(plan, free)

    async def _mount(self) -> dict[str, Path]:
        """The volumes, as soon as all that they show is there."""
        while True:
            reconsider = self._reconsider
            try:
                self._refuse_unsupported()
                return self._materialise()
            except (CannotStart, OSError) as error:
                reason = error.reason if isinstance(error, CannotStart) else CONTAINER_CREATING
                for runner in self._containers:
                    runner.snapshot = replace(runner.snapshot, state=Waiting(reason, str(error)))
                self._event("Warning", "FailedMount", str(error))
                self._changed()
            with anyio.move_on_after(self._config.config_retry_s):
                await reconsider.wait()

    def _materialise(self) -> dict[str, Path]:
        claims = self._config.volumes_dir / self.namespace
        sources = Sources(self._services.around.lookup, self.namespace)
        return volumes.materialise(self.pod, self._folder / "volumes", claims, sources)

    def _refuse_unsupported(self) -> None:
        if self.pod["spec"].get("initContainers"):
            raise CannotStart(CREATE_ERROR, "spec.initContainers are not run on this computer")

    def _tell_ignored(self) -> None:
        for container in self.pod["spec"]["containers"]:
            if container.get("lifecycle"):
                self._event(
                    "Warning",
                    "Unsupported",
                    f"lifecycle hooks of container {container['name']} are not run here",
                )

    async def _wait_to_leave(self) -> None:
        await self._leaving.wait()
        for runner in self._containers:
            self._event("Normal", "Killing", f"Stopping container {runner.snapshot.name}")
        if not self._is_gone:
            await self._unroute()
            await self._end_serving()
        self._living.cancel()

    async def _end_serving(self) -> None:
        """The container that takes the requests ends before those beside it, which it may need to finish them."""
        if len(self._containers) == 1:
            return
        began, grace = anyio.current_time(), self._context.grace
        serving = ports.serving_container(self.pod)["name"]
        for runner in self._containers:
            if runner.snapshot.name == serving:
                await runner.finish()
        # One grace for all; the others have nothing left to do.
        grace.shorten(max(grace.seconds - (anyio.current_time() - began), _LAST_GRACE_S))

    async def _unroute(self) -> None:
        pod = f"{self.namespace}/{self.name}"
        try:
            with anyio.fail_after(self._config.unroute_timeout_s):
                await self._services.unrouted(pod)
        except TimeoutError:
            _LOG.warning("pod %s is still routed after %g s, ending it", pod, self._config.unroute_timeout_s)
        except Exception:
            _LOG.exception("pod %s could not be taken out of the routes, ending it", pod)

    def _new_context(self) -> PodContext:
        spec = self.pod["spec"]
        grace_s = spec.get("terminationGracePeriodSeconds")
        return PodContext(
            title=f"{self.name}_{self.namespace}({self.uid})",
            uid=self.uid,
            config=self._config,
            launcher=self._services.launcher,
            logs=self.logs,
            # Until the pod is deleted, only a stopping machine ends it.
            grace=Grace(self._config.shutdown_grace_s),
            grace_s=_DEFAULT_GRACE_S if grace_s is None else float(grace_s),
            restart_policy=spec.get("restartPolicy") or "Always",
            event=self._event,
            changed=self._changed,
            reconsider=lambda: self._reconsider,
            start=self._services.pool.start,
            begun=self._begun,
            starts=self._services.starts,
            told=self._told,
        )

    def _credentials(self) -> dict[str, str]:
        """For the model's download; what is not there gives none, as with KServe."""
        found: dict[str, str] = {}
        objects = self._services.objects
        with contextlib.suppress(NotFound):
            account = objects.get(SERVICE_ACCOUNT, self.namespace, storage_secrets.account_of(self.pod))
            for name in storage_secrets.names_in(account):
                with contextlib.suppress(NotFound):
                    found |= storage_secrets.environment_of(objects.get(SECRET, self.namespace, name))
        return found

    def _begun(self, container: Snapshot) -> ColdStart:
        """A start of `container`: its first one began when the pod was decided on, a later one begins now."""
        image = self._services.around.images.find(container.image)
        record = ColdStart(
            container.name,
            image.image if image else container.image,
            began=time.time(),
            restart=container.restart_count,
        )
        if container.last is None and not self._has_run_before and self._model_here is not None:
            annotations = self.pod["metadata"].get("annotations") or {}
            record.began = cold_start.decided_at(annotations, self._started_at)
            record.mark(cold_start.DECIDED, self._started_at)
            record.mark(cold_start.DOWNLOADED, self._model_here)
        return record

    def _told(self, start: ColdStart, is_news: bool) -> None:
        """A container is ready, or has answered for the first time."""
        self._starts[start.container] = start
        if is_news:
            self._event("Normal", "ColdStart", start.in_words())
        self._changed()

    def _timeline(self) -> str | None:
        return cold_start.annotation(self._starts.values()) if self._starts else None

    @property
    def is_starting(self) -> bool:
        """Whether a container runs that has not become ready yet."""
        return any(runner.is_starting for runner in self._containers)

    def _new_container(self, container: Mapping[str, Any]) -> ContainerRunner:
        before = (self.pod.get("status") or {}).get("containerStatuses") or ()
        count = next((each.get("restartCount", 0) for each in before if each["name"] == container["name"]), 0)
        snapshot = Snapshot(container["name"], container.get("image") or "", restart_count=count)

        def prepare() -> Command:
            assert self._place is not None
            return localize(self.pod, container, self._place, self._services.around)

        return ContainerRunner(snapshot, prepare, self._context)

    def _event(self, kind: str, reason: str, message: str) -> None:
        try:
            self._services.events(self.pod, kind, reason, message)
        except ApiError as error:
            _LOG.warning("event of pod %s/%s not written: %s", self.namespace, self.name, error)

    def _changed(self) -> None:
        self._record.touch()

    def write_status(self) -> None:
        """Bring the object up to date, now."""
        self._record.write(self._view(), self._where(), self._timeline())

    def _view(self) -> PodView:
        return PodView(
            self._model.snapshot if self._model else None,
            [runner.snapshot for runner in self._containers],
            self._context.restart_policy,
            self._started_at,
            "; ".join(start.in_words() for start in self._starts.values()),
        )

    def _where(self) -> Endpoint | None:
        if self._ports is None:
            return None
        return endpoint(self.pod, self._ports, self._services.around.images)

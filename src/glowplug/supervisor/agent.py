"""The supervisor itself: follows the API's pods, and has one task a pod.

Owns the pods' tasks, the guardian and the table of used ports. On start it kills what an earlier machine left running,
and runs the pods that it left behind again.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from glowplug.errors import BadRequest, NotFound
from glowplug.spec.kinds import CONFIG_MAP, POD, SECRET, Kind
from glowplug.supervisor import guardian, pod_record
from glowplug.supervisor.config import SupervisorConfig
from glowplug.supervisor.free_ports import FreePorts
from glowplug.supervisor.guard import Guard, clear_stale, mark_of
from glowplug.supervisor.images import ImageTable
from glowplug.supervisor.localize import POD_MARK, Surroundings
from glowplug.supervisor.log_lines import stamp
from glowplug.supervisor.log_reader import LogQuery, read_log
from glowplug.supervisor.pod_logs import PodLogs
from glowplug.supervisor.pods import EventRecorder, PodRunner, PodServices, Unrouted
from glowplug.supervisor.pool import Member, Pool
from glowplug.supervisor.process import Launcher
from glowplug.supervisor.rewrite import Resolve
from glowplug.supervisor.start_metrics import StartMetrics
from glowplug.supervisor.status import Object
from glowplug.supervisor.storage import Storage

_LOG = logging.getLogger(__name__)
_ENDED = ("Succeeded", "Failed")


class Change(Protocol):
    """One change of an object: `type` is ADDED, MODIFIED or DELETED."""

    @property
    def type(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def object(self) -> Object: ...


class Objects(pod_record.Objects, Protocol):
    """The part of the in-process API that the supervisor needs."""

    def list(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> list[Object]: ...
    def watch(self, *kinds: Kind) -> AsyncIterator[Change]: ...


class Supervisor:
    """`run` it once; `stop` it, or cancel `run`. Also the API server's source of logs (`read`)."""

    def __init__(
        self,
        objects: Objects,
        events: EventRecorder,
        images: ImageTable,
        storage: Storage,
        resolve: Resolve,
        unrouted: Unrouted,
        config: SupervisorConfig,
        copying: Callable[[], str] = lambda: "",
    ) -> None:
        # Containers run in folders of their own, where a relative path would lead elsewhere.
        config = replace(config, data_dir=config.data_dir.resolve())
        self._objects = objects
        self._config = config
        self._guard = Guard(config.python, config.groups_dir, mark_of(config.data_dir))
        around = Surroundings(config, images, self._lookup, resolve, self._guard.mark, copying)
        launcher = Launcher(self._guard)
        self._pool = Pool(config, images, launcher, self._is_busy)
        self._starts = StartMetrics()
        self._services = PodServices(
            objects, events, around, storage, unrouted, launcher, FreePorts(), self._pool, self._starts
        )
        self._storage = storage
        self._pods: dict[str, PodRunner] = {}
        self._stopping = anyio.Event()
        self._is_prepared = False

    @property
    def guardian_pid(self) -> int | None:
        """The process that ends the pods if this one is killed; None while `run` has not started it."""
        return self._guard.pid

    def guard(self, group: int) -> None:
        """End that process group, which another part has just started, with the machine."""
        self._guard.add(group)

    def prepare(self) -> None:
        """Kill what an earlier machine left running, and unready its pods.

        `run` does it first of all; a machine that routes before that calls it itself, in the event loop.
        """
        self._is_prepared = True
        killed = clear_stale(self._config.groups_dir, self._guard.mark)
        if killed:
            _LOG.warning("killed %d processes that an earlier machine left running", killed)
        self._storage.clear_partial()
        shutil.rmtree(self._config.starts_dir, ignore_errors=True)
        known = self._objects.list(POD)
        for pod in known:
            status = pod.get("status") or {}
            if status.get("containerStatuses") and status.get("phase") not in _ENDED:
                PodRunner(pod, self._services).write_status()
        self._forget({pod["metadata"]["uid"] for pod in known})

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until `stop` or cancellation; then every pod is ended, in parallel and within the shutdown grace."""
        if not self._is_prepared:
            self.prepare()
        self._guard.start()
        task_status.started()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow, tasks, name="supervisor watch")
                tasks.start_soon(self._pool.run, name="warm pool")
                try:
                    await self._stopping.wait()
                finally:
                    self.hurry(self._config.shutdown_grace_s)
                    tasks.cancel_scope.cancel()
        finally:
            self._guard.close()

    def stop(self) -> None:
        """Make `run` end every pod's processes and return; the pods themselves stay, for the next start."""
        self._stopping.set()

    def hurry(self, grace_s: float = 0) -> None:
        """Cut every wait for a process's end to `grace_s` from now; 0 kills."""
        for runner in self._pods.values():
            runner.hurry(grace_s)

    def read(
        self,
        namespace: str,
        pod: str,
        container: str | None = None,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        since_seconds: float | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> AsyncIterator[bytes]:
        """A container's output. Raises NotFound or BadRequest at once, before the first chunk."""
        since = None if since_seconds is None else stamp(time.time_ns() - int(since_seconds * 1e9))
        query = LogQuery(follow and not previous, tail_lines, since, timestamps)
        ended = self._ended_before(namespace, pod)
        if ended is not None:
            return self._read_ended(ended, container, previous, query)
        runner = self._find(namespace, pod)
        name = _which(runner, container)
        log = runner.logs.current(name)
        if log is None:
            reason = runner.waiting_reason(name)
            raise BadRequest(f'container "{name}" in pod "{pod}" is waiting to start: {reason}')
        if not previous:
            return read_log(log.path, log, query)
        path = runner.logs.previous(name)
        if path is None:
            raise BadRequest(f'previous terminated container "{name}" in pod "{pod}" not found')
        return read_log(path, None, query)

    def processes(self) -> dict[str, dict[str, int]]:
        """`namespace/pod` → container → process, of all that run now."""
        return {f"{runner.namespace}/{runner.name}": runner.pids() for runner in self._pods.values()}

    def pool(self) -> list[Member]:
        """The warm pool, a row a unit."""
        return self._pool.members()

    def metrics(self) -> str:
        """The histograms of all starts on this machine, and the warm pool, as Prometheus text."""
        return self._starts.render() + self._pool.render()

    def _is_busy(self) -> bool:
        return any(runner.is_starting for runner in self._pods.values())

    async def _follow(self, tasks: TaskGroup) -> None:
        async for change in self._objects.watch(POD, CONFIG_MAP, SECRET):
            metadata = change.object["metadata"]
            if change.kind == POD:
                try:
                    self._on_pod(change.type, change.object, tasks)
                except Exception:
                    _LOG.exception("pod %s/%s", metadata["namespace"], metadata["name"])
                continue
            for runner in self._pods.values():
                if runner.namespace == metadata["namespace"]:
                    runner.reconsider(change.kind, metadata["name"])

    def _on_pod(self, type: str, pod: Object, tasks: TaskGroup) -> None:
        metadata = pod["metadata"]
        runner = self._pods.get(metadata["uid"])
        if type == "DELETED":
            if runner is not None:
                runner.vanish()
            return
        is_deleted = metadata.get("deletionTimestamp") is not None
        if runner is None and is_deleted:
            pod_record.finish_deletion(
                self._objects, metadata["namespace"], metadata["name"], metadata["uid"]
            )
        elif runner is None:
            if (pod.get("status") or {}).get("phase") not in _ENDED:
                runner = self._pods[metadata["uid"]] = PodRunner(pod, self._services)
                tasks.start_soon(self._run_pod, runner, name=f"pod {metadata['name']}")
        elif is_deleted:
            runner.leave(float(metadata.get("deletionGracePeriodSeconds") or 0))

    async def _run_pod(self, runner: PodRunner) -> None:
        try:
            await runner.run()
        except Exception:
            # One pod's fault ends neither the others nor the machine.
            _LOG.exception("pod %s/%s", runner.namespace, runner.name)
        finally:
            del self._pods[runner.uid]
            # What left its process group is found by the pod's mark.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(guardian.kill_marked, POD_MARK, runner.uid)

    def _ended_before(self, namespace: str, name: str) -> Object | None:
        """A pod that had ended before this machine started: it has a log, and nobody who runs it."""
        pod = self._lookup(POD, namespace, name)
        if pod is None or pod["metadata"]["uid"] in self._pods:
            return None
        return dict(pod) if (pod.get("status") or {}).get("phase") in _ENDED else None

    def _read_ended(
        self, pod: Object, container: str | None, previous: bool, query: LogQuery
    ) -> AsyncIterator[bytes]:
        known = [each["name"] for each in pod["spec"]["containers"]]
        name, title = container or known[0], pod["metadata"]["name"]
        if name not in known:
            raise BadRequest(f"container {name} is not valid for pod {title}")
        path = PodLogs(self._config, pod["metadata"]).latest(name, back=1 if previous else 0)
        if path is None:
            raise BadRequest(
                f'{"previous " if previous else ""}container "{name}" in pod "{title}" has no log'
            )
        return read_log(path, None, query)

    def _find(self, namespace: str, pod: str) -> PodRunner:
        found = [each for each in self._pods.values() if (each.namespace, each.name) == (namespace, pod)]
        if not found:
            raise NotFound(f'pods "{pod}" not found')
        return found[-1]

    def _lookup(self, kind: Kind, namespace: str, name: str) -> Mapping[str, Any] | None:
        try:
            return self._objects.get(kind, namespace, name)
        except NotFound:
            return None

    def _forget(self, uids: set[str]) -> None:
        """Folders of pods that were deleted while no machine ran."""
        for folder in self._config.pods_dir.glob("*"):
            if folder.name not in uids:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self._config.logs_dir.glob("*"):
            if folder.name.rpartition("_")[2] not in uids:
                shutil.rmtree(folder, ignore_errors=True)


def _which(runner: PodRunner, container: str | None) -> str:
    known = runner.container_names()
    own = [each["name"] for each in runner.pod["spec"]["containers"]]
    if container:
        if container not in known:
            raise BadRequest(f"container {container} is not valid for pod {runner.name}")
        return container
    if len(own) > 1:
        raise BadRequest(
            f"a container name must be specified for pod {runner.name}, choose one of: [{' '.join(known)}]"
        )
    return str(own[0])

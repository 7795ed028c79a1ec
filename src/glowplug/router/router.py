"""The router: makes the newest route table true in Envoy, without a request noticing.

It owns Envoy and everything that Envoy reads; nobody else writes there. Tables come in through `publish`, are merged
over a short time, and go to Envoy in the order of `update.steps`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import orjson
from anyio.abc import TaskStatus

from glowplug.errors import GlowplugError
from glowplug.router import admin, copies, responses, update, xds
from glowplug.router.accesslog import keep_bounded
from glowplug.router.admin import RevisionStats
from glowplug.router.bootstrap import bootstrap
from glowplug.router.config import RouterConfig
from glowplug.router.endpoints import EndpointSource
from glowplug.router.feed import Feed, Outcome
from glowplug.router.files import clear_sockets, prepare, replace_file
from glowplug.router.keeper import Keeper
from glowplug.router.layout import Layout
from glowplug.router.ports import ReservedPort
from glowplug.router.process import envoy_binary, envoy_command
from glowplug.router.responses import Responses
from glowplug.router.update import Leaver
from glowplug.router.xds import Snapshot
from glowplug.spec.routes import RouteTable

_log = logging.getLogger(__name__)

_RETRY_INTERVAL_S = 1.0
_QUEUE_POLL_S = 0.02


class Router:
    """The ingress. `run` it in a task; all methods are for the event loop's thread.

    `on_pid` is called with the process id of each Envoy that starts, for whoever must end it if this process is killed
    on a system where the kernel does not.
    """

    def __init__(self, config: RouterConfig, *, on_pid: Callable[[int], None] = lambda pid: None) -> None:
        self._config = config
        self._on_pid = on_pid
        # By which pods know that it is the ingress who asks them to copy.
        self.copy_key = secrets.token_hex(16)
        self._table = RouteTable()
        self._port: ReservedPort | None = None
        self._local: dict[tuple[str, str], ReservedPort] = {}
        self._feed: Feed | None = None
        self._keeper: Keeper | None = None
        self._layout: Layout | None = None
        # Counts changes of the table and of the local listeners; how far Envoy has come, and what it refused.
        self._wanted = 0
        self._settled = -1
        self._refused = -1
        # Leaving hosts whose queue is empty: the next update is without them.
        self._released: frozenset[Leaver] = frozenset()
        # Clusters that linger, and since when.
        self._lingering: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    @property
    def real_port(self) -> int:
        """The ingress's port, also where the configuration says 0; known once `run` has started."""
        if self._port is None:
            raise RuntimeError("the router does not run")
        return self._port.port

    @property
    def pid(self) -> int | None:
        """Envoy's process id, if it runs."""
        return self._keeper.pid if self._keeper else None

    @property
    def admission_socket(self) -> Path:
        """Where the activator must listen; known once `run` has started."""
        if self._layout is None:
            raise RuntimeError("the router does not run")
        return self._layout.admission

    @property
    def copies_socket(self) -> Path:
        """Where who takes copies of requests must listen; known once `run` has started."""
        if self._layout is None:
            raise RuntimeError("the router does not run")
        return self._layout.copies

    @property
    def payloads_socket(self) -> Path:
        """Where the payload logger must listen for copies; known once `run` has started."""
        if self._layout is None:
            raise RuntimeError("the router does not run")
        return self._layout.payloads

    @property
    def copying(self) -> str:
        """What pods that copy by themselves get by their environment (`names.COPIES_ENV`), and nobody else may know;
        also before `run`, since pods of the machine's last life may start first. Raises OSError as `run` does."""
        return copies.environment(self._prepared(), self.copy_key)

    @property
    def shadow_socket(self) -> Path:
        """Where requests for shadows are taken; known once `run` has started."""
        if self._layout is None:
            raise RuntimeError("the router does not run")
        return self._layout.shadow

    @property
    def access_log(self) -> Path:
        """Where Envoy writes a line of JSON for each request."""
        return self._config.directory.absolute() / "access.log"

    def publish(self, table: RouteTable) -> None:
        """Makes `table` the one to be made true. Returns at once; see `settled`."""
        if table != self._table:
            self._table = table
            self._want()

    def local_address(self, namespace: str, service: str) -> str:
        """`127.0.0.1:PORT`, where every request goes to that Knative Service; opened at the first call and kept.

        The listener is there once `settled`. A service that has no route (yet) is answered 503. Raises ConfigError
        if there is no free port.
        """
        key = (namespace, service)
        if key not in self._local:
            self._local[key] = ReservedPort(self._config.host)
            self._want()
        return f"{self._config.host}:{self._local[key].port}"

    async def settled(self, timeout_s: float | None = None) -> bool:
        """Waits until Envoy has taken all that was published before; False if it refused, or did not in time."""
        target = self._wanted
        limit_s = self._config.settle_timeout_s if timeout_s is None else timeout_s
        await self._until(lambda: max(self._settled, self._refused) >= target, limit_s)
        return self._settled >= target

    async def without(self, pod: str, timeout_s: float | None = None) -> bool:
        """Waits until no request goes to `pod` (`namespace/name`) any more; False if that was not so in time.

        Requests that are in the pod already go on; those that wait for a free place in it are served first. Someone
        must publish a table without the pod.
        """
        config = self._config
        limit_s = config.settle_timeout_s + config.queue_timeout_s if timeout_s is None else timeout_s
        return await self._until(lambda: not self._holds(pod), limit_s)

    async def stats(self) -> dict[str, RevisionStats]:
        """Counters by revision. Raises OSError or TimeoutError while Envoy is not there."""
        if self._layout is None:
            return {}
        return await admin.revision_stats(self._layout.admin)

    async def responses(self) -> dict[str, Responses]:
        """What the table's revisions answered since Envoy started. Raises OSError or TimeoutError while Envoy is not
        there."""
        if self._layout is None:
            return {}
        found = await responses.read(self._layout.admin)
        known = {backend.revision for backend in self._table.backends}
        return {revision: counted for revision, counted in found.items() if revision in known}

    async def uncopied(self) -> int:
        """How many requests could not be copied for the payload logger, by Envoy since it started and by pods. Raises
        OSError or TimeoutError while Envoy is not there."""
        if self._layout is None:
            return 0
        by_pods = sum(int(path.read_bytes() or b"0") for path in self._layout.uncopied.iterdir())
        return by_pods + await admin.count(self._layout.admin, copies.UNCOPIED)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Runs Envoy until cancelled; started when it serves the table that was published before.

        Raises ConfigError if the port is taken or there is no Envoy, GlowplugError if Envoy does not start, OSError
        if its files cannot be written.
        """
        self._port = ReservedPort(self._config.host, self._config.port)
        source = EndpointSource()
        try:
            layout = self._prepared()
            command = envoy_command(envoy_binary(), layout.bootstrap, self._config)
            self._feed = feed = Feed(layout, self._config, source, self._reason)
            self._keeper = Keeper(
                command, layout, self._config, on_start=feed.forget_refusals, on_pid=self._on_pid
            )
            replace_file(layout.bootstrap, orjson.dumps(bootstrap(layout), option=orjson.OPT_INDENT_2))
            await source.listen(layout.endpoints)
            await self._run_all(feed, self._keeper, layout, task_status)
        finally:
            source.close()
            self._close()

    async def _run_all(
        self, feed: Feed, keeper: Keeper, layout: Layout, task_status: TaskStatus[None]
    ) -> None:
        failures: list[GlowplugError] = []
        wanted = self._wanted
        feed.prepare(self._snapshot(layout))
        async with anyio.create_task_group() as tasks:

            async def keep() -> None:
                try:
                    await keeper.run()
                except GlowplugError as error:
                    failures.append(error)
                    tasks.cancel_scope.cancel()

            async def log() -> None:
                await keep_bounded(
                    layout.access_log,
                    max_bytes=self._config.access_log_max_bytes,
                    interval_s=self._config.access_log_check_interval_s,
                    reopen=keeper.reopen_logs,
                )

            tasks.start_soon(keep, name="envoy")
            try:
                await keeper.wait_ready()
                await self._confirm(feed)
            except GlowplugError as error:
                failures.append(error)
                tasks.cancel_scope.cancel()
            else:
                self._settled = wanted
                self._notify()
                task_status.started()
                tasks.start_soon(log, name="access log")
                tasks.start_soon(self._release, feed, layout, name="queues")
                await self._follow(feed, layout)
        if failures:
            raise failures[0]

    async def _confirm(self, feed: Feed) -> None:
        """Waits until Envoy has taken what it started with. Raises GlowplugError if it has not."""
        outcome = await feed.confirm()
        if outcome is not Outcome.TAKEN:
            reason = self._reason() or outcome.value
            raise GlowplugError(
                f"Envoy did not take its first configuration: {reason}", hint="run `glowplug doctor`"
            )

    async def _follow(self, feed: Feed, layout: Layout) -> None:
        """Brings every change to Envoy, until cancelled."""
        rest_until = 0.0
        while True:
            await self._wake.wait()
            started_at = time.monotonic()
            await anyio.sleep(max(self._config.debounce_s, rest_until - started_at))
            self._wake.clear()
            started_at = time.monotonic()
            try:
                await self._bring(feed, layout)
            except OSError as error:
                _log.error("the routes could not be written, what was there before stays: %s", error)
                self._wake.set()
                await anyio.sleep(_RETRY_INTERVAL_S)
            # A very large table takes time: rest as long as the work took, so that it never takes all of a core.
            rest_until = 2 * time.monotonic() - started_at

    async def _bring(self, feed: Feed, layout: Layout) -> None:
        wanted = self._wanted
        desired = update.with_leavers(
            self._with_lingering(self._snapshot(layout), feed.applied), feed.applied, self._released
        )
        for state in update.steps(feed.applied, desired):
            outcome = await feed.push(state)
            self._notify()
            if outcome is Outcome.REFUSED:
                self._refused = wanted
                self._notify()
                return
            if outcome is Outcome.LATE:
                self._wake.set()
                return
        self._settled = wanted
        self._released &= update.leavers(feed.applied)
        self._notify()

    def _with_lingering(self, desired: Snapshot, applied: Snapshot) -> Snapshot:
        now, linger_s = time.monotonic(), self._config.cluster_linger_s
        gone = applied.clusters.keys() - desired.clusters.keys()
        self._lingering = {cluster: self._lingering.get(cluster, now) for cluster in gone}
        expired = {cluster for cluster, since in self._lingering.items() if now - since >= linger_s}
        if len(expired) < len(gone):
            asyncio.get_running_loop().call_later(linger_s, self._wake.set)
        return update.with_lingering(desired, applied, expired)

    async def _release(self, feed: Feed, layout: Layout) -> None:
        """Lets leaving hosts go when nothing waits for them any more, until cancelled."""
        since: dict[Leaver, float] = {}
        while True:
            leavers = update.leavers(feed.applied) - self._released
            if not leavers:
                await self._progress.wait()
                continue
            now = time.monotonic()
            since = {leaver: since.get(leaver, now) for leaver in leavers}
            try:
                queues = await admin.queues(layout.admin, {leaver.cluster for leaver in leavers})
            except (OSError, TimeoutError):
                # Envoy starts anew; what waited in the last one is gone.
                queues = {}
            done = update.finished(since, queues, now=now, timeout_s=self._config.queue_timeout_s)
            if done:
                self._released |= done
                self._wake.set()
            await anyio.sleep(_QUEUE_POLL_S)

    def _prepared(self) -> Layout:
        """The router's folder, emptied once."""
        if self._layout is None:
            self._layout = prepare(self._config.directory)
        return self._layout

    def _snapshot(self, layout: Layout) -> xds.Snapshot:
        ports = {key: port.port for key, port in self._local.items()}
        return xds.snapshot(
            self._table, port=self.real_port, local_ports=ports, config=self._config, layout=layout
        )

    def _holds(self, pod: str) -> bool:
        if any(endpoint.pod == pod for backend in self._table.backends for endpoint in backend.endpoints):
            return True
        feed = self._feed
        return feed is not None and pod in update.pods(feed.applied) | update.pods(feed.sent)

    def _want(self) -> None:
        self._wanted += 1
        self._wake.set()

    def _notify(self) -> None:
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()

    async def _until(self, is_met: Callable[[], bool], timeout_s: float) -> bool:
        with anyio.move_on_after(timeout_s):
            while not is_met():
                await self._progress.wait()
        return is_met()

    def _reason(self) -> str:
        return self._keeper.last_lines("rejected", most=1) if self._keeper else ""

    def _close(self) -> None:
        for port in (self._port, *self._local.values()):
            if port is not None:
                port.close()
        if self._layout is not None:
            clear_sockets(self._layout)

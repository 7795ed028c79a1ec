"""The one work loop of the control plane: changes wake keys, keys are reconciled, the table is published.

Level-triggered: a reconciler looks at the world as it is, not at what changed, so that a step that was lost with the
process, or done twice, does no harm. Nothing runs while nothing changes and no timer ends.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import string
import time
from collections.abc import Awaitable, Callable

import anyio

from glowplug.errors import AlreadyExists, Conflict, Forbidden, GlowplugError, NotFound
from glowplug.spec import kinds
from glowplug.spec.kinds import Kind
from glowplug.spec.routes import RouteTable

from .config import ControllersConfig
from .eventing import broker, jobsink, kafkasource, pingsource, trigger
from .eventing.engine import Engine
from .inferenceservice import controller as inferenceservice
from .jobs import controller as jobs
from .keys import RECONCILED, WATCHED, Key
from .knative import configuration, revision, route, service
from .knative.scaling import Autoscaler
from .table import Published
from .world import Change, EventRecorder, Objects, World

_log = logging.getLogger("glowplug.controllers")

Reconciler = Callable[[World, str, str, float], None]
# May return an awaitable that ends when the router runs the table, with False if it will not; None means that it
# runs at once.
Publish = Callable[[RouteTable], "Awaitable[bool | None] | None"]

RECONCILERS: dict[Kind, Reconciler] = {
    kinds.INFERENCE_SERVICE: inferenceservice.reconcile,
    kinds.KNATIVE_SERVICE: service.reconcile,
    kinds.CONFIGURATION: configuration.reconcile,
    kinds.REVISION: revision.reconcile,
    kinds.ROUTE: route.reconcile,
    kinds.JOB: jobs.reconcile,
    kinds.JOB_SINK: jobsink.reconcile,
    kinds.BROKER: broker.reconcile,
    kinds.TRIGGER: trigger.reconcile,
    kinds.PING_SOURCE: pingsource.reconcile,
    kinds.KAFKA_SOURCE: kafkasource.reconcile,
}
# Somebody else wrote in between or is about to, or the namespace is ending: looking again is all that there is to do.
_TRANSIENT = (Conflict, AlreadyExists, NotFound, Forbidden)
_ALPHABET = string.ascii_lowercase + string.digits
# How long a steady stream of work may hold a changed route table back.
_PUBLISH_INTERVAL_S = 0.25


def random_token() -> str:
    """The last five characters of a pod's name."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(5))


class Controllers:
    """All control loops of the machine.

    `publish` receives the whole route table whenever it changes. `is_waited_for` says whether requests wait for a
    pod of a revision (`namespace/name`). `engine` delivers events. `errors` counts failed reconciliations by kind.
    """

    def __init__(
        self,
        objects: Objects,
        events: EventRecorder,
        publish: Publish,
        autoscaler: Autoscaler,
        config: ControllersConfig | None = None,
        clock: Callable[[], float] = time.time,
        token: Callable[[], str] = random_token,
        is_waited_for: Callable[[str], bool] = lambda revision: False,
        engine: Engine | None = None,
    ) -> None:
        self.errors: dict[str, int] = {}
        self._objects = objects
        self._publish = publish
        self._clock = clock
        self._world = World(
            objects, events, config or ControllersConfig(), token, autoscaler, is_waited_for, engine
        )
        self._woken = asyncio.Event()
        self._to_publish = asyncio.Event()
        self._confirmed = asyncio.Event()

    async def has_routed(self) -> None:
        """Waits until the router runs a table of all that there was when the loops began."""
        await self._confirmed.wait()

    async def run(self) -> None:
        """Runs until it is cancelled, or until the watch ends because the store closes."""
        self.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._work, name="controllers: work")
            tasks.start_soon(self._publish_loop, name="controllers: publish")
            async for change in self._objects.watch(*WATCHED):
                self.observe(change)
            tasks.cancel_scope.cancel()

    def start(self) -> None:
        """Looks at all that exists, so that the first table that is published is complete."""
        self._world.started_at = self._clock()
        for kind in WATCHED:
            for obj in self._world.list(kind):
                self._world.index.put(kind, obj)
        for kind in RECONCILED:
            for key in self._world.index.keys(kind):
                self._world.queue.add(key)
        self._world.book.is_dirty = True
        self._woken.set()

    def observe(self, change: Change) -> None:
        """Takes in one step of the watch."""
        self._world.observe(change)
        self._woken.set()

    def wake(self, revision: str) -> None:
        """Reconciles that revision, `namespace/name`: what its autoscaler says has changed."""
        namespace, _, name = revision.partition("/")
        self._world.queue.add(Key(kinds.REVISION, namespace, name))
        self._woken.set()

    def wake_object(self, kind: Kind, namespace: str, name: str) -> None:
        """Reconciles that object: something beside the objects, on which its status depends, has changed."""
        self._world.queue.add(Key(kind, namespace, name))
        self._woken.set()

    def wake_all(self) -> None:
        """Reconciles everything once more; a settled world stays as it is."""
        for kind in RECONCILED:
            for key in self._world.index.keys(kind):
                self._world.queue.add(key)
        self._woken.set()

    def step(self) -> bool:
        """Reconciles one key; False if none is due."""
        key = self._world.queue.next(self._clock())
        if key is None:
            return False
        self._reconcile(key)
        return True

    def next_due(self) -> float | None:
        """When the earliest timer ends, in seconds since the epoch."""
        return self._world.queue.next_due()

    def take_table(self) -> tuple[RouteTable, Published] | None:
        """The table to publish, if it changed; call it when no key is due, `confirm` what came with it later."""
        return self._world.book.snapshot() if self._world.book.is_dirty else None

    def confirm(self, published: Published) -> None:
        """The router runs the table that `take_table` gave with this."""
        confirmation = self._world.book.confirm(published)
        revisions = {
            (namespace, name) for namespace, _, name in (r.partition("/") for r in confirmation.revisions)
        }
        for kind, names in (
            (kinds.ROUTE, confirmation.routes),
            (kinds.INFERENCE_SERVICE, confirmation.aliases),
            (kinds.REVISION, revisions),
        ):
            for namespace, name in sorted(names):
                self._world.queue.add(Key(kind, namespace, name))
        self._woken.set()

    def _reconcile(self, key: Key) -> None:
        now = self._clock()
        try:
            RECONCILERS[key.kind](self._world, key.namespace, key.name, now)
        except _TRANSIENT as error:
            delay = self._world.queue.retry(key, now)
            _log.debug("%s: %s, again in %.2f s", key, error, delay)
        except Exception:
            self.errors[key.kind.name] = self.errors.get(key.kind.name, 0) + 1
            delay = self._world.queue.retry(key, now)
            _log.exception("%s could not be reconciled, again in %.2f s", key, delay)
        else:
            self._world.queue.succeed(key)

    async def _work(self) -> None:
        # A table is published when nothing is left to do, and under steady work every so often; never before all that
        # exists has been looked at once, since routes that are missing from it would go down.
        is_complete = False
        published_at = self._clock()
        while True:
            self._woken.clear()
            worked = self.step()
            is_complete = is_complete or not worked
            is_time = not worked or self._clock() - published_at >= _PUBLISH_INTERVAL_S
            if self._world.book.is_dirty and is_complete and is_time:
                published_at = self._clock()
                self._to_publish.set()
            if worked:
                # The API server shares the event loop: its turn comes after every key.
                await asyncio.sleep(0)
            else:
                await self._wait()

    async def _wait(self) -> None:
        due = self.next_due()
        if due is None:
            await self._woken.wait()
            return
        with anyio.move_on_after(max(0.0, due - self._clock())):
            await self._woken.wait()

    async def _publish_loop(self) -> None:
        failures = 0
        while True:
            await self._to_publish.wait()
            self._to_publish.clear()
            taken = self.take_table()
            if taken is None:
                continue
            try:
                running = self._publish(taken[0])
                if running is not None and await running is False:
                    raise GlowplugError("the router did not take the route table")
            except Exception:
                self.errors["RouteTable"] = self.errors.get("RouteTable", 0) + 1
                _log.exception("the route table could not be published")
                self._world.book.is_dirty = True
                config = self._world.config
                await asyncio.sleep(min(config.retry_base_s * 2.0 ** min(failures, 40), config.retry_max_s))
                failures += 1
                self._to_publish.set()
            else:
                failures = 0
                self.confirm(taken[1])
                self._confirmed.set()

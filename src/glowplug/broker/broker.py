"""The broker: Knative's Brokers and Triggers on one computer. It owns the log, the ingress and a courier a trigger.

What is accepted is on the disk; what is delivered is each courier's. Who has which address is asked of `resolve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone

import anyio
from anyio.abc import TaskGroup, TaskStatus

from glowplug.broker import counts, ingress
from glowplug.broker.config import BrokerConfig
from glowplug.broker.connection import Handler, Service
from glowplug.broker.courier import Courier
from glowplug.broker.http_client import HttpClient
from glowplug.broker.log import Log
from glowplug.broker.log_thread import LogThread
from glowplug.broker.pages import Pages
from glowplug.broker.recent import Recent
from glowplug.broker.records import BrokerKey, Entry, Record, TriggerKey
from glowplug.errors import GlowplugError
from glowplug.spec.eventing import BrokerSpec, Delivery, Destination, TriggerSpec
from glowplug.wire.events import CloudEvent

_LOG = logging.getLogger(__name__)
_FILE = "events.db"
_RECENT_EVENTS = 2048
_RECENT_BYTES = 4 * 2**20
_TRIM_EVERY_S = 1.0
_LOOK_S = 0.01
Resolve = Callable[[Destination], "str | None"]


class _Home:
    """One Broker, alive."""

    def __init__(self, owner: Broker, spec: BrokerSpec, last: int) -> None:
        self.key: BrokerKey = (spec.namespace, spec.name)
        self._owner = owner
        self.delivery: Delivery = spec.delivery
        self.recent = Recent(last, _RECENT_EVENTS, _RECENT_BYTES)
        self.couriers: dict[TriggerKey, Courier] = {}
        self.counts = counts.BrokerCounts()
        # Set and replaced when something is accepted: who tails the history waits for it.
        self.news = asyncio.Event()

    def address(self, destination: Destination) -> str | None:
        return self._owner.resolve(destination)

    async def take_reply(self, event: CloudEvent, ttl: int) -> bool:
        if ttl <= 1:
            return False
        # A reply's own hop limit counts for nothing: the event that it answers has one.
        rest = {name: value for name, value in event.attributes.items() if name != ingress.TTL}
        await self._owner.accept(self.key, [(CloudEvent(rest, event.data), ttl - 1)])
        return True


class Broker:
    """`run` it in a task; all methods are for the event loop's thread, before and while it runs."""

    def __init__(
        self, config: BrokerConfig, resolve: Resolve, front: Callable[[Handler], Handler] = lambda own: own
    ) -> None:
        """`front` may answer some of the requests itself: given the ingress, it returns who handles them all."""
        self.resolve = resolve
        self.port = config.port
        self._config = config
        self._log = LogThread(config.directory / _FILE, config.reserve_bytes)
        self._client = HttpClient(config.max_body_bytes)
        self._ingress = ingress.Ingress(self, config.hop_limit)
        self._service = Service(
            front(self._ingress),
            max_body_bytes=config.max_body_bytes,
            max_held_bytes=config.max_held_bytes,
            keep_alive_s=config.keep_alive_s,
        )
        self.pages = Pages(self, self._log)
        self._brokers: dict[BrokerKey, BrokerSpec] = {}
        self._homes: dict[BrokerKey, _Home] = {}
        self._triggers: dict[TriggerKey, TriggerSpec] = {}
        self._couriers: dict[TriggerKey, Courier] = {}
        self._tasks: TaskGroup | None = None
        # The last event of each Broker in the log that has not been set yet.
        self._last: dict[BrokerKey, int] = {}
        self._waiting = 0
        self._to_trim = anyio.Event()
        self._stopped = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serves and delivers until cancelled; started when it listens.

        Raises ConfigError (the port is taken, the log is none), DataDirHeld, StoreFull.
        """
        listener = ingress.bind(self._config.host, self._config.port)
        with contextlib.closing(listener):
            await self._log.open()
            try:
                self._last = await self._log.read(lambda log: {key: log.last(key) for key in log.brokers()})
                async with anyio.create_task_group() as tasks:
                    await tasks.start(self._serve, listener, name="broker")
                    task_status.started()
                    try:
                        await anyio.sleep_forever()
                    finally:
                        self._stopped.set()
            finally:
                self._tasks = None
                self._client.close()
                with anyio.CancelScope(shield=True):
                    await self._log.close()

    async def _serve(self, listener: socket.socket, *, task_status: TaskStatus[None]) -> None:
        """Until `_stopped`, and then as long as it takes to stop, whoever is cancelled."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for key in self._brokers:
                    self._open(key)
                server = await ingress.listen(self._service, listener)
                self.port = listener.getsockname()[1]
                tasks.start_soon(self._trim, name="trimming of the event log")
                task_status.started()
                await self._stopped.wait()
                server.close()
                await self._drain()
                tasks.cancel_scope.cancel()

    def set_broker(self, spec: BrokerSpec) -> None:
        """There is this Broker, from now on with this delivery."""
        key = (spec.namespace, spec.name)
        self._brokers[key] = spec
        if key in self._homes:
            self._homes[key].delivery = spec.delivery
        elif self._tasks is not None:
            self._open(key)

    def remove_broker(self, namespace: str, name: str) -> None:
        """There is no such Broker: its events go, and what its triggers had still to deliver."""
        key = (namespace, name)
        known = self._brokers.pop(key, None)
        self._homes.pop(key, None)
        self._last.pop(key, None)
        for trigger in [each for each in self._couriers if each[:2] == key]:
            self._couriers.pop(trigger).stop()
        if known is not None and self._tasks is not None:
            self._forget(lambda log: log.drop_broker(key))

    def set_trigger(self, spec: TriggerSpec) -> None:
        """There is this Trigger; a new one gets the events that are accepted from now on. Raises SqlProblem."""
        key = (spec.namespace, spec.broker, spec.name)
        if key in self._couriers:
            self._couriers[key].change(spec)
        self._triggers[key] = spec
        self._send_off(key)

    def remove_trigger(self, namespace: str, name: str) -> None:
        """There is no such Trigger, and what it had still to deliver is forgotten."""
        for key in [each for each in self._triggers if (each[0], each[2]) == (namespace, name)]:
            del self._triggers[key]
            courier = self._couriers.pop(key, None)
            if courier is not None:
                courier.stop()
                self._homes[key[:2]].couriers.pop(key)
            if self._tasks is not None:
                self._forget(lambda log, gone=key: log.drop_cursor(gone))  # type: ignore[misc]

    async def forget_others(self) -> None:
        """Forgets what the log has of Brokers and Triggers that are not set: deleted while nobody looked.

        To be called once after the start, when all that there are have been set.
        """

        def forget(log: Log) -> None:
            for trigger in log.cursors():
                if trigger not in self._triggers:
                    log.drop_cursor(trigger)
            for broker in log.brokers():
                if broker not in self._brokers:
                    log.drop_broker(broker)

        await self._log.write(forget)
        self._last.clear()
        self._to_trim.set()

    def url(self, namespace: str, name: str) -> str:
        """Where the Broker takes events."""
        return f"http://{self._config.host}:{self.port}/{namespace}/{name}"

    def metrics(
        self,
        brokers: Iterable[tuple[BrokerKey, counts.BrokerCounts]] = (),
        triggers: Iterable[tuple[TriggerKey, counts.TriggerCounts, counts.TriggerGauges]] = (),
    ) -> str:
        """Prometheus' text form, with those of Brokers and Triggers that are kept elsewhere."""
        now = time.time()
        own = ((key, courier.counts, courier.gauges(now)) for key, courier in self._couriers.items())
        return counts.page(
            itertools.chain(((home.key, home.counts) for home in self._homes.values()), brokers),
            itertools.chain(own, triggers),
        )

    def news(self, key: BrokerKey) -> asyncio.Event | None:
        """Set when the Broker's next event is accepted; None where there is no such Broker."""
        home = self._homes.get(key)
        return None if home is None else home.news

    # What the ingress asks.

    def is_known(self, key: BrokerKey) -> bool:
        return key in self._homes

    def is_busy(self) -> bool:
        return self._waiting >= self._config.max_waiting

    def answered(self, key: BrokerKey | None, status: int) -> None:
        home = self._homes.get(key) if key is not None else None
        if home is not None:
            home.counts.answers[status] += 1

    def accept(self, key: BrokerKey, events: Sequence[tuple[CloudEvent, int]]) -> asyncio.Future[None]:
        """Done when the events are on the disk and on their way."""
        now = time.time()
        arrival = _rfc3339(now)
        entries = [
            Entry.of(now, ttl, event.with_attributes(knativearrivaltime=arrival)) for event, ttl in events
        ]
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting += 1
        written = self._log.write(lambda log: log.append(key, entries), needs_room=True)
        written.add_done_callback(lambda future: self._accepted(key, entries, future, done))
        return done

    def _accepted(
        self,
        key: BrokerKey,
        entries: Sequence[Entry],
        future: asyncio.Future[int],
        done: asyncio.Future[None],
    ) -> None:
        self._waiting -= 1
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            if not done.done():
                done.set_exception(error or GlowplugError("the broker stops"))
            return
        home = self._homes.get(key)
        if home is not None:
            home.counts.accepted += len(entries)
            home.recent.add(
                [
                    Record(
                        future.result() + index, entry.at, entry.ttl, entry.event,
                        len(entry.head) + len(entry.event.data or b""),
                    )
                    for index, entry in enumerate(entries)
                ]
            )  # fmt: skip
            home.news.set()
            home.news = asyncio.Event()
            for courier in home.couriers.values():
                courier.wake()
        self._to_trim.set()
        if not done.done():
            done.set_result(None)

    def _open(self, key: BrokerKey) -> None:
        self._homes[key] = _Home(self, self._brokers[key], self._last.pop(key, 0))
        for trigger in self._triggers:
            self._send_off(trigger)

    def _send_off(self, key: TriggerKey) -> None:
        """Starts the trigger's courier once there is all that it needs."""
        home = self._homes.get(key[:2])
        if key in self._couriers or self._tasks is None or home is None:
            return
        courier = Courier(self._triggers[key], self._config, self._log, home.recent, home, self._client)
        self._couriers[key] = home.couriers[key] = courier
        courier.register()
        self._tasks.start_soon(courier.run, name=f"courier of {key}")

    def _forget(self, work: Callable[[Log], None]) -> None:
        self._log.write(work).add_done_callback(_report)
        self._to_trim.set()

    async def _trim(self) -> None:
        """Deletes what nobody needs any more, some at a time, after something has come."""
        events, size = self._config.history_events, self._config.history_bytes
        while True:
            await self._to_trim.wait()
            await anyio.sleep(_TRIM_EVERY_S)
            self._to_trim = anyio.Event()
            try:
                has_more = True
                while has_more:
                    has_more = await self._log.write(lambda log: log.trim(events, size))
            except Exception as error:
                _LOG.warning("the event log was not trimmed: %s", error)
            if any(courier.gauges(time.time()).backlog for courier in self._couriers.values()):
                self._to_trim.set()

    async def _drain(self) -> None:
        """Answers what has come, and waits a while for what is being delivered."""
        self._ingress.is_stopping = self._service.is_stopping = True
        for connection in list(self._service.connections):
            connection.close_if_idle()
        for courier in self._couriers.values():
            courier.begin_drain()
        with anyio.move_on_after(self._config.drain_s):
            while not self._is_drained():  # noqa: ASYNC110 - much changes at once, and once in a life
                await anyio.sleep(_LOOK_S)
        for connection in list(self._service.connections):
            connection.close()

    def _is_drained(self) -> bool:
        return not self._service.has_requests() and all(each.is_drained for each in self._couriers.values())


def _report(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and future.exception() is not None:
        _LOG.warning("the event log still has what was removed: %s", future.exception())


def _rfc3339(at: float) -> str:
    whole = datetime.fromtimestamp(math.floor(at), timezone.utc)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{int(at % 1 * 1e6):06d}Z"

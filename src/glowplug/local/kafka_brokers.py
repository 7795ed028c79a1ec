"""The machine's Brokers on Kafka: their ingress writes to a topic, and each Trigger reads it as a group of its own.

202 is said when all replicas in sync have the event. The path, the checks and the answers are the machine's broker's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from glowplug.broker.connection import Handler, Request, Response
from glowplug.broker.counts import BrokerCounts, TriggerCounts, TriggerGauges
from glowplug.broker.filters import Predicate, compiled
from glowplug.broker.forwarding import Forwarder
from glowplug.broker.http_client import HttpClient
from glowplug.broker.ingress import TTL, Ingress
from glowplug.broker.records import BrokerKey, TriggerKey
from glowplug.controllers.eventing.engine import KafkaState
from glowplug.errors import GlowplugError, TooLarge
from glowplug.kafka import BridgeConfig, EventProducer, Origin, ensure_topic
from glowplug.kafka.client import KafkaError
from glowplug.kafka.consumer import ConsumerConfig
from glowplug.local.kafka_endings import KafkaEndings
from glowplug.local.kafka_ways import TIMEOUT_S, Resolve, Running, Way, absent
from glowplug.spec.eventing import BrokerSpec, TriggerSpec
from glowplug.spec.kafka import LATEST, Topic, trigger_group
from glowplug.spec.kafka_security import Cluster
from glowplug.wire.events import CloudEvent

_LOG = logging.getLogger(__name__)
_HOP_LIMIT = 255
_MAX_WAITING = 10_000
_KAFKA_TIMEOUT_S = 10.0
_RETRY_S = (0.5, 15.0)
_SEND_RETRY_S = 1.0
Wake = Callable[[str, str], None]


class _Home:
    """One Broker whose events are in `topic`."""

    def __init__(self, spec: BrokerSpec, cluster: Cluster, topic: Topic) -> None:
        self.spec = spec
        self.cluster = cluster
        self.topic = topic
        self.state = KafkaState()
        self.counts = BrokerCounts()
        self.producer: EventProducer | None = None
        self.has_dead_letters = False
        self.scope = anyio.CancelScope()


class KafkaBrokers:
    """`begin` it in a task group. `handler` stands before the ingress of the others."""

    def __init__(self, resolve: Resolve, client: HttpClient, wake_broker: Wake, wake_trigger: Wake) -> None:
        self._resolve = resolve
        self._client = client
        self._wake_broker = wake_broker
        self._wake_trigger = wake_trigger
        self._ingress = Ingress(self, _HOP_LIMIT)
        self._homes: dict[BrokerKey, _Home] = {}
        # Brokers that there are, and of which the control loops have not said where their events are yet.
        self._expected: set[BrokerKey] = set()
        self._triggers: dict[TriggerKey, TriggerSpec] = {}
        self._running: dict[TriggerKey, Running] = {}
        self._endings = KafkaEndings(wake_broker)
        self._tasks: TaskGroup | None = None
        self._is_settled = False
        self._waiting = 0

    def front(self, inner: Handler) -> Handler:
        """Answers what is for Brokers on Kafka, and leaves the rest to `inner`."""
        return _Front(self, self._ingress, inner)

    def begin(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    def settle(self) -> None:
        """Addresses are known: Triggers deliver from here on."""
        self._is_settled = True
        for key in self._triggers:
            self._send_off(key)

    def end(self) -> None:
        """Nothing runs any more; what is being written is awaited. Blocks for a while."""
        self._ingress.is_stopping = True
        self._tasks = None
        for home in self._homes.values():
            if home.producer is not None:
                home.producer.close()

    def expect(self, key: BrokerKey) -> None:
        """There is such a Broker; senders are told to come again until it is set, if it is not."""
        self._expected.add(key)

    def has(self, key: BrokerKey) -> bool:
        return key in self._homes or key in self._expected

    def set_broker(self, spec: BrokerSpec, cluster: Cluster, topic: Topic) -> KafkaState:
        """There is this Broker."""
        missing = absent()
        if missing is not None:
            return missing
        key = (spec.namespace, spec.name)
        home = self._homes.get(key)
        if home is not None and (home.cluster, home.topic) == (cluster, topic):
            home.spec = spec
            for trigger in self._triggers.values():
                if (trigger.namespace, trigger.broker) == key:
                    self.set_trigger(trigger)
            return home.state
        self.remove_broker(*key)
        home = self._homes[key] = _Home(spec, cluster, topic)
        if self._tasks is not None:
            self._tasks.start_soon(self._open, key, home, name=f"topic of Broker {key}")
        return home.state

    def remove_broker(self, namespace: str, name: str) -> None:
        """There is no such Broker here; its topic stays, and what its Triggers have read of it."""
        home = self._take_out((namespace, name))
        if home is not None and home.producer is not None and self._tasks is not None:
            self._tasks.start_soon(home.producer.closed, name=f"end of Broker {namespace}/{name}")

    def end_broker(self, key: BrokerKey, cluster: Cluster | None, topic: Topic) -> KafkaState:
        """There is no such Broker any more, and its topic is to go with it; how far that is."""
        if not self._endings.is_known(key):
            missing = absent()
            if missing is not None:
                return KafkaState(False, None, missing.problem)
            home = self._take_out(key)
            place = cluster or (home.cluster if home is not None else None)
            if place is None:
                return KafkaState(False, None, f"who may delete topic {topic.name} is not known any more")
            if self._tasks is None:
                return KafkaState()
            self._endings.start(self._tasks, key, place, topic, home.producer if home is not None else None)
        return self._endings.take(key)

    def _take_out(self, key: BrokerKey) -> _Home | None:
        self._expected.discard(key)
        home = self._homes.pop(key, None)
        if home is not None:
            home.scope.cancel()
            for trigger in [each for each in self._running if each[:2] == key]:
                self._running.pop(trigger).stop()
        return home

    def set_trigger(self, spec: TriggerSpec) -> KafkaState:
        """There is this Trigger; a new one gets the events that are accepted once it is ready."""
        key = (spec.namespace, spec.broker, spec.name)
        before = self._triggers.get(key)
        self._triggers[key] = spec
        running = self._running.get(key)
        if running is not None and before is not None and before.is_ordered != spec.is_ordered:
            self._running.pop(key).stop()
        elif running is not None:
            self._point(running, spec)
        self._send_off(key)
        running = self._running.get(key)
        return running.state if running is not None else KafkaState()

    def remove_trigger(self, namespace: str, name: str) -> None:
        """There is no such Trigger; its group's offsets stay with Kafka."""
        for key in [each for each in self._triggers if (each[0], each[2]) == (namespace, name)]:
            del self._triggers[key]
            running = self._running.pop(key, None)
            if running is not None:
                running.stop()

    def broker_counts(self) -> Iterator[tuple[BrokerKey, BrokerCounts]]:
        return ((key, home.counts) for key, home in self._homes.items())

    def trigger_counts(self) -> Iterator[tuple[TriggerKey, TriggerCounts, TriggerGauges]]:
        """What is still in the topic is Kafka's to say."""
        gauges = TriggerGauges(0, 0.0, 0)
        return ((key, running.forwarder.counts, gauges) for key, running in self._running.items())

    # What the ingress asks.

    def is_known(self, key: BrokerKey) -> bool:
        return self.has(key)

    def is_busy(self) -> bool:
        return self._waiting >= _MAX_WAITING

    def answered(self, key: BrokerKey | None, status: int) -> None:
        home = self._homes.get(key) if key is not None else None
        if home is not None:
            home.counts.answers[status] += 1

    def accept(self, key: BrokerKey, events: Sequence[tuple[CloudEvent, int]]) -> asyncio.Future[None]:
        """Done when Kafka has all of the events."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        home = self._homes.get(key)
        if home is None or home.producer is None:
            why = home.state.problem if home is not None else ""
            done.set_exception(KafkaError(why or "the Broker's topic is not ready yet"))
            return done
        arrival = _now()
        sent = [home.producer.send(home.topic.name, _stamped(event, ttl, arrival)) for event, ttl in events]
        self._waiting += 1
        left = len(sent)

        def one_sent(future: asyncio.Future[None]) -> None:
            nonlocal left
            left -= 1
            error = future.exception()
            if error is not None and not done.done():
                done.set_exception(error)
            if left == 0:
                self._waiting -= 1
                if not done.done():
                    home.counts.accepted += len(sent)
                    done.set_result(None)

        for future in sent:
            future.add_done_callback(one_sent)
        return done

    async def _open(self, key: BrokerKey, home: _Home) -> None:
        """Makes the topic, however long Kafka takes to be there."""
        wait_s, longest_s = _RETRY_S
        with home.scope:
            while home.producer is None:
                try:
                    await anyio.to_thread.run_sync(
                        ensure_topic, home.cluster, home.topic, _KAFKA_TIMEOUT_S, abandon_on_cancel=True
                    )
                    home.producer = EventProducer(home.cluster, timeout_s=_KAFKA_TIMEOUT_S)
                    home.state = KafkaState(True, True)
                except GlowplugError as error:
                    home.state = KafkaState(False, None, error.message)
                    _LOG.warning("Broker %s/%s: %s", *key, error.message)
                self._wake_broker(*key)
                if home.producer is None:
                    await anyio.sleep(wait_s)
                    wait_s = min(2 * wait_s, longest_s)
            for trigger in self._triggers:
                self._send_off(trigger)

    def _send_off(self, key: TriggerKey) -> None:
        """Starts the Trigger's reading once there is all that it needs."""
        home = self._homes.get(key[:2])
        if key in self._running or home is None or home.producer is None:
            return
        if self._tasks is None or not self._is_settled:
            return
        spec = self._triggers[key]
        way = Way(self._resolve, spec.subscriber, spec.delivery or home.spec.delivery)
        forwarder = Forwarder(
            way, self._client, timeout_s=TIMEOUT_S, without=(TTL,), namespace=spec.namespace,
            reply=lambda reply, to: self._take_reply(home, reply, to), bury=lambda event: self._bury(home, event),
        )  # fmt: skip
        handler = _Selected(forwarder, compiled(spec.filter))
        config = BridgeConfig(
            ConsumerConfig(
                home.cluster,
                trigger_group(spec.namespace, spec.name),
                (home.topic.name,),
                is_ordered=spec.is_ordered,
            ),
            Origin(f"/apis/v1/namespaces/{spec.namespace}/brokers/{spec.broker}"),
            initial_offset=LATEST,
        )
        running = Running(
            config, way, forwarder, handler, lambda: self._wake_trigger(spec.namespace, spec.name)
        )
        running.selection = handler
        self._running[key] = running
        self._point(running, spec)
        running.start(self._tasks)

    def _point(self, running: Running, spec: TriggerSpec) -> None:
        """From now on with this filter, subscriber and delivery."""
        broker = self._homes[spec.namespace, spec.broker].spec
        running.way.sink = spec.subscriber
        running.way.delivery = spec.delivery or broker.delivery
        running.way.fallback = broker.delivery.dead_letter
        if running.selection is not None:
            running.selection.passes = compiled(spec.filter)

    async def _take_reply(self, home: _Home, reply: CloudEvent, to: CloudEvent) -> bool:
        text = to.text(TTL)
        ttl = int(text) if text.isdecimal() and len(text) < 10 else _HOP_LIMIT
        if ttl <= 1:
            return False
        assert home.producer is not None
        await self._surely(home.producer.send, home.topic.name, _stamped(reply, ttl - 1, _now()))
        home.counts.accepted += 1
        return True

    async def _bury(self, home: _Home, event: CloudEvent) -> None:
        name = home.topic.dead_letters
        while not home.has_dead_letters:
            # Replicas as the cluster has them where the topic is somebody else's.
            topic = Topic(name, 1, -1 if home.topic.is_external else home.topic.replicas)
            try:
                await anyio.to_thread.run_sync(ensure_topic, home.cluster, topic, _KAFKA_TIMEOUT_S)
                home.has_dead_letters = True
            except GlowplugError as error:
                _LOG.warning("a dead letter waits: %s", error.message)
                await anyio.sleep(_SEND_RETRY_S)
        assert home.producer is not None
        try:
            await self._surely(home.producer.put_aside, name, event)
        except TooLarge as error:
            _LOG.error("event %s was taken by nobody and is gone: %s", event.text("id"), error.message)

    async def _surely(
        self, send: Callable[[str, CloudEvent], Awaitable[None]], topic: str, event: CloudEvent
    ) -> None:
        """Until Kafka has it; its record keeps its place, so that little waits in memory. Raises TooLarge."""
        while True:
            try:
                await send(topic, event)
                return
            except TooLarge:
                raise
            except GlowplugError as error:
                _LOG.warning("an event waits: %s", error.message)
                await anyio.sleep(_SEND_RETRY_S)


def _stamped(event: CloudEvent, ttl: int, arrival: str) -> CloudEvent:
    return CloudEvent({**event.attributes, TTL: ttl, "knativearrivaltime": arrival}, event.data)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).isoformat().replace("+00:00", "Z")


class _Selected:
    """The events that pass a Trigger's filter."""

    def __init__(self, forwarder: Forwarder, passes: Predicate) -> None:
        self.passes = passes
        self._forwarder = forwarder

    async def handle(self, event: CloudEvent, attempts: int, last: Any) -> Any:
        if not self.passes(event.attributes):
            return None
        return await self._forwarder.handle(event, attempts, last)


class _Front:
    """By the path, which is that of any Broker."""

    def __init__(self, brokers: KafkaBrokers, own: Ingress, inner: Handler) -> None:
        self._brokers = brokers
        self._own = own
        self._inner = inner

    def handle(self, request: Request, answer: Callable[[Response], None]) -> None:
        segments = request.path.partition("?")[0].strip("/").split("/")
        is_own = len(segments) == 2 and self._brokers.has((segments[0], segments[1]))
        (self._own if is_own else self._inner).handle(request, answer)

"""The machine's KafkaSources: a bridge each, from its topics to its sink."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import anyio
from anyio.abc import TaskGroup

from glowplug.broker.forwarding import Forwarder
from glowplug.broker.http_client import HttpClient
from glowplug.controllers.eventing.engine import KafkaState
from glowplug.errors import GlowplugError, TooLarge
from glowplug.kafka import BridgeConfig, EventProducer, Origin
from glowplug.kafka.consumer import ConsumerConfig
from glowplug.local.kafka_ways import TIMEOUT_S, Resolve, Running, Way, absent
from glowplug.spec.kafka import KafkaSourceSpec
from glowplug.spec.kafka_security import Cluster
from glowplug.wire.events import CloudEvent

_LOG = logging.getLogger(__name__)
_BURY_RETRY_S = 1.0
Name = tuple[str, str]
Wake = Callable[[str, str], None]


class KafkaSources:
    """`begin` it in a task group; what is set before runs from then on."""

    def __init__(self, resolve: Resolve, client: HttpClient, wake: Wake) -> None:
        self._resolve = resolve
        self._client = client
        self._wake = wake
        self._running: dict[Name, Running] = {}
        self._producers: dict[Name, EventProducer] = {}
        self._tasks: TaskGroup | None = None

    def begin(self, tasks: TaskGroup) -> None:
        """From here on everything runs."""
        self._tasks = tasks
        for running in self._running.values():
            running.start(tasks)

    def end(self) -> None:
        """Nothing runs any more; what dead letters are under way is awaited. Blocks for a while."""
        self._tasks = None
        for producer in self._producers.values():
            producer.close()
        self._producers.clear()

    def set(self, spec: KafkaSourceSpec, cluster: Cluster) -> KafkaState:
        """There is this KafkaSource. Other delivery and sink do not stop its reading."""
        missing = absent()
        if missing is not None:
            return missing
        key = (spec.namespace, spec.name)
        config = _config(spec, cluster)
        running = self._running.get(key)
        if running is not None and (running.config, running.dead_letter_topic) == (
            config,
            spec.dead_letter_topic,
        ):
            running.way.sink, running.way.delivery = spec.sink, spec.delivery
            return running.state
        self.remove(*key)
        running = self._running[key] = self._made(key, spec, config)
        if self._tasks is not None:
            running.start(self._tasks)
        return running.state

    def remove(self, namespace: str, name: str) -> None:
        """There is no such KafkaSource; its offsets stay with Kafka."""
        running = self._running.pop((namespace, name), None)
        if running is not None:
            running.stop()
        producer = self._producers.pop((namespace, name), None)
        if producer is not None and self._tasks is not None:
            self._tasks.start_soon(producer.closed, name="end of a Kafka producer")

    def metrics(self) -> Iterator[str]:
        """Lines of Prometheus' text form."""
        for what in ("delivered", "retried", "dead_lettered", "undeliverable"):
            name = f"glowplug_kafka_source_events_{what}_total"
            lines = [
                f'{name}{{namespace="{key[0]}",source="{key[1]}"}} {getattr(running.forwarder.counts, what)}\n'
                for key, running in self._running.items()
            ]
            if lines:
                yield f"# HELP {name} Records of a KafkaSource, by what became of them.\n# TYPE {name} counter\n"
                yield from lines

    def _made(self, key: Name, spec: KafkaSourceSpec, config: BridgeConfig) -> Running:
        way = Way(self._resolve, spec.sink, spec.delivery)

        async def bury(event: CloudEvent) -> None:
            if not spec.dead_letter_topic:
                _LOG.error("KafkaSource %s/%s: nobody takes event %s, it is gone", *key, event.text("id"))
                return
            while True:
                try:
                    producer = self._producers.get(key)
                    if producer is None:
                        producer = self._producers[key] = EventProducer(config.consuming.cluster)
                    await producer.put_aside(spec.dead_letter_topic, event)
                    return
                except TooLarge as error:
                    _LOG.error("KafkaSource %s/%s: an event is gone: %s", *key, error.message)
                    return
                except GlowplugError as error:
                    _LOG.warning("KafkaSource %s/%s: a dead letter waits: %s", *key, error.message)
                    await anyio.sleep(_BURY_RETRY_S)

        forwarder = Forwarder(way, self._client, timeout_s=TIMEOUT_S, bury=bury, namespace=spec.namespace)
        running = Running(config, way, forwarder, forwarder, lambda: self._wake(*key))
        running.dead_letter_topic = spec.dead_letter_topic
        return running


def _config(spec: KafkaSourceSpec, cluster: Cluster) -> BridgeConfig:
    return BridgeConfig(
        ConsumerConfig(cluster, spec.group, spec.topics, is_ordered=spec.is_ordered),
        Origin(spec.source_prefix, spec.key_type, spec.extensions),
        spec.consumers,
        spec.initial_offset,
    )

"""One member of a consumer group: a thread that talks to Kafka, and in the event loop a lane for each partition.

The thread polls without end whatever the sinks do, so that no slow sink looks like a dead member: a partition whose
lane is full is paused. An offset is committed once the event is over. A partition that goes to another member is
drained first, and its last offset committed; after that nothing of it is committed any more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import TaskGroup

from glowplug.kafka.client import confluent, settings
from glowplug.kafka.lane import Handler, Lane
from glowplug.kafka.progress import Progress
from glowplug.kafka.records import Record
from glowplug.kafka.topics import problem, told
from glowplug.spec.kafka_security import Cluster
from glowplug.wire.events import CloudEvent

_LOG = logging.getLogger(__name__)
_Key = tuple[str, int]


@dataclass(frozen=True)
class ConsumerConfig:
    """Which records are read, and how.

    A partition has `concurrency` attempts under way, an ordered one: one; at most `most_open` of its events are not
    over while later ones are. It is paused when `most_held` records or `most_held_bytes` wait. What is over is
    committed `commit_every_s` later at most. A partition that is taken away is waited for `drain_s`.
    """

    cluster: Cluster
    group: str
    topics: tuple[str, ...]
    is_ordered: bool = True
    concurrency: int = 32
    most_open: int = 256
    most_held: int = 512
    most_held_bytes: int = 16 * 2**20
    fetch_kbytes: int = 16 * 1024
    batch: int = 256
    poll_s: float = 0.1
    commit_every_s: float = 0.1
    drain_s: float = 2.0
    session_timeout_s: float = 10.0
    max_message_bytes: int = 16 * 2**20


@dataclass(frozen=True)
class _Orders:
    """What the thread is to do."""

    pause: list[_Key]
    resume: list[_Key]
    commit: list[tuple[_Key, int, str]]


class GroupConsumer:
    """`run` it in a task. `on_link(text)`: what is wrong with the connection; empty: nothing."""

    def __init__(
        self,
        config: ConsumerConfig,
        handler: Handler,
        convert: Callable[[Record], CloudEvent],
        on_link: Callable[[str], None],
    ) -> None:
        self._config = config
        self._handler = handler
        self._convert = convert
        self._on_link = on_link
        self._lanes: dict[_Key, Lane] = {}
        self._tasks: TaskGroup | None = None
        # Read and set by the thread; the event loop only sets them.
        self._stopping = threading.Event()
        self._has_news = False
        self._down = ""
        self._looked_at = 0.0

    async def run(self) -> None:
        """Until cancelled, and then until its partitions are drained. Raises KafkaError, ConfigError."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve, tasks.cancel_scope, name=f"consumer of {self._config.group}")
            try:
                await anyio.sleep_forever()
            finally:
                self._stopping.set()

    @property
    def partitions(self) -> int:
        """How many it has."""
        return len(self._lanes)

    async def _serve(self, outer: anyio.CancelScope) -> None:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                # A thread of its own: the shared ones are few, and this one stays.
                await anyio.to_thread.run_sync(self._work, limiter=anyio.CapacityLimiter(1))
                tasks.cancel_scope.cancel()
        outer.cancel()

    # In the thread.

    def _work(self) -> None:
        module, config = confluent(), self._config
        try:
            consumer = module.Consumer(self._settings())
        except Exception as error:
            raise problem("Kafka's settings are wrong", error) from error
        try:
            consumer.subscribe(
                list(config.topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
            while not self._stopping.is_set():
                self._turn(consumer)
        except module.KafkaException as error:
            raise problem(f"group {config.group}", error) from error
        finally:
            # Gives its partitions back, which drains them.
            consumer.close()

    def _settings(self) -> dict[str, Any]:
        config = self._config
        return {
            **settings(config.cluster),
            "group.id": config.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Where a group begins is settled before; a partition that is new later is read from its beginning.
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": int(config.session_timeout_s * 1000),
            "heartbeat.interval.ms": int(config.session_timeout_s * 1000 / 4),
            "queued.max.messages.kbytes": config.fetch_kbytes,
            # What is read ahead and not handed on comes again when the partition is lost.
            "queued.min.messages": 1000,
            "fetch.wait.max.ms": 100,
            "fetch.message.max.bytes": config.max_message_bytes,
            "error_cb": self._failed,
        }

    def _turn(self, consumer: Any) -> None:
        records = []
        first = consumer.poll(self._config.poll_s)
        if first is not None:
            messages = [first, *consumer.consume(self._config.batch - 1, 0)]
            records = [found for message in messages if (found := self._read(message)) is not None]
        if self._down:
            self._look(consumer)
        if not (records or self._has_news):
            return
        self._has_news = False
        orders = anyio.from_thread.run_sync(self._exchange, records)
        module = confluent()
        if orders.pause:
            consumer.pause([module.TopicPartition(*key) for key in orders.pause])
        if orders.resume:
            consumer.resume([module.TopicPartition(*key) for key in orders.resume])
        if orders.commit:
            consumer.commit(offsets=_offsets(orders.commit), asynchronous=True)

    def _read(self, message: Any) -> Record | None:
        error = message.error()
        if error is not None:
            # Of a topic that is gone for a while, above all; others come to `_failed`.
            self._link(f"{message.topic() or 'Kafka'}: {told(error)}")
            return None
        kind, at_ms = message.timestamp()
        return Record(
            message.topic(), message.partition(), message.offset(), message.key(), message.value(),
            tuple(message.headers() or ()), at_ms if kind else -1,
        )  # fmt: skip

    def _failed(self, error: Any) -> None:
        module = confluent()
        grave = (
            module.KafkaError._ALL_BROKERS_DOWN,
            module.KafkaError._AUTHENTICATION,
            module.KafkaError._SSL,
        )
        if error.code() in grave or error.fatal():
            self._link(told(error))

    def _look(self, consumer: Any) -> None:
        """Whether what was wrong is over: nothing says so where no records come."""
        if time.monotonic() - self._looked_at < 1.0:
            return
        self._looked_at = time.monotonic()
        try:
            found = consumer.list_topics(timeout=1.0).topics
        except confluent().KafkaException:
            return
        if all(topic in found for topic in self._config.topics):
            self._link("")

    def _link(self, text: str) -> None:
        if text != self._down:
            self._down = text
            self._looked_at = time.monotonic()
            anyio.from_thread.run_sync(self._on_link, text)

    def _assigned(self, consumer: Any, partitions: list[Any]) -> None:
        found = partitions
        try:
            found = consumer.committed(partitions, timeout=10.0)
        except confluent().KafkaException as error:
            # It goes on from what Kafka has; only what was tried already is not known.
            _LOG.warning("the offsets of group %s could not be read: %s", self._config.group, error)
        anyio.from_thread.run_sync(
            self._open, [(each.topic, each.partition, each.offset, each.metadata) for each in found]
        )
        module = confluent()
        consumer.incremental_assign(
            [
                module.TopicPartition(
                    each.topic, each.partition, each.offset if each.offset >= 0 else module.OFFSET_STORED
                )
                for each in found
            ]
        )

    def _revoked(self, consumer: Any, partitions: list[Any]) -> None:
        last = anyio.from_thread.run(self._close, [(each.topic, each.partition) for each in partitions])
        if last:
            try:
                consumer.commit(offsets=_offsets(last), asynchronous=False)
            except confluent().KafkaException as error:
                _LOG.warning("group %s: the last events will come again: %s", self._config.group, error)

    def _lost(self, consumer: Any, partitions: list[Any]) -> None:
        del consumer
        anyio.from_thread.run_sync(self._drop, [(each.topic, each.partition) for each in partitions])

    # In the event loop.

    def _exchange(self, records: Sequence[Record]) -> _Orders:
        by_key: dict[_Key, list[Record]] = {}
        for record in records:
            by_key.setdefault((record.topic, record.partition), []).append(record)
        for key, each in by_key.items():
            if key in self._lanes:
                self._lanes[key].add(each)
        orders = _Orders([], [], [])
        for key, lane in self._lanes.items():
            self._check(key, lane, orders)
        return orders

    def _check(self, key: _Key, lane: Lane, orders: _Orders) -> None:
        config = self._config
        is_full = lane.held >= config.most_held or lane.held_bytes >= config.most_held_bytes
        is_low = lane.held <= config.most_held // 2 and lane.held_bytes <= config.most_held_bytes // 2
        if is_full and not lane.is_paused:
            lane.is_paused = True
            orders.pause.append(key)
        elif is_low and lane.is_paused:
            lane.is_paused = False
            orders.resume.append(key)
        if lane.is_dirty and time.monotonic() - lane.committed_at >= config.commit_every_s:
            orders.commit.append(self._mark(key, lane))
        elif lane.is_dirty:
            self._has_news = True

    def _mark(self, key: _Key, lane: Lane) -> tuple[_Key, int, str]:
        lane.is_dirty = False
        lane.committed_at = time.monotonic()
        return key, lane.progress.position, lane.progress.metadata()

    def _open(self, partitions: list[tuple[str, int, int, str | None]]) -> None:
        assert self._tasks is not None
        for topic, number, offset, metadata in partitions:
            lane = Lane(
                f"{topic}[{number}]",
                Progress(max(0, offset), metadata or ""),
                self._handler,
                self._convert,
                concurrency=1 if self._config.is_ordered else self._config.concurrency,
                most_open=1 if self._config.is_ordered else self._config.most_open,
                on_change=self._changed,
            )
            self._lanes[topic, number] = lane
            self._tasks.start_soon(lane.run, name=f"lane {lane.name} of {self._config.group}")

    def _changed(self) -> None:
        self._has_news = True

    async def _close(self, keys: list[_Key]) -> list[tuple[_Key, int, str]]:
        lanes = {key: self._lanes.pop(key) for key in keys if key in self._lanes}
        async with anyio.create_task_group() as tasks:
            for lane in lanes.values():
                tasks.start_soon(lane.drain, self._config.drain_s)
        return [self._mark(key, lane) for key, lane in lanes.items() if lane.is_dirty]

    def _drop(self, keys: list[_Key]) -> None:
        for key in keys:
            if key in self._lanes:
                self._lanes.pop(key).stop()


def _offsets(marks: Sequence[tuple[_Key, int, str]]) -> list[Any]:
    module = confluent()
    return [module.TopicPartition(*key, offset, metadata) for key, offset, metadata in marks]

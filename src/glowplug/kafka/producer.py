"""Writes events to topics: acknowledged by all replicas in sync, each once and in order (`enable.idempotence`).

`send` is done when Kafka has the event, and for nothing less. One thread serves the acknowledgements; they are handed
to the event loop some at a time, since a wake-up for each would cost more than the sending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio.to_thread

from glowplug.errors import GlowplugError, TooLarge
from glowplug.kafka.client import KafkaError, confluent, settings
from glowplug.kafka.records import record_of
from glowplug.kafka.topics import problem
from glowplug.spec.kafka_security import Cluster
from glowplug.wire.events import CloudEvent

_POLL_S = 0.05
_FLUSH_S = 5.0
# What the attributes begin with that a dead letter has, as in Knative.
_FAILURE = "knativeerror"


class EventProducer:
    """Of one cluster, for one event loop; `close` when done."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        timeout_s: float = 30.0,
        linger_ms: float = 1.0,
        max_held_kbytes: int = 64 * 1024,
        max_message_bytes: int = 17 * 2**20,
    ) -> None:
        """Raises KafkaError where the settings are wrong, ConfigError where confluent-kafka is not there."""
        config = {
            **settings(cluster),
            "acks": "all",
            "enable.idempotence": True,
            "delivery.timeout.ms": int(timeout_s * 1000),
            "linger.ms": linger_ms,
            "queue.buffering.max.kbytes": max_held_kbytes,
            "message.max.bytes": max_message_bytes,
        }
        module = confluent()
        try:
            self._producer = module.Producer(config)
        except module.KafkaException as error:
            raise problem("Kafka's settings are wrong", error) from error
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._done: list[Callable[[], None]] = []
        self._is_closing = False
        self._thread = threading.Thread(target=self._serve, name="Kafka producer", daemon=True)
        self._thread.start()

    def send(self, topic: str, event: CloudEvent) -> asyncio.Future[None]:
        """Done when Kafka has the event; KafkaError: it does not say so, though it may have it. TooLarge: it never
        will.
        """
        sent: asyncio.Future[None] = self._loop.create_future()
        key, value, headers = record_of(event)
        try:
            self._producer.produce(
                topic, value=value, key=key, headers=headers, on_delivery=partial(self._delivered, sent)
            )
        except BufferError:
            sent.set_exception(KafkaError("too many events wait for Kafka"))
        except Exception as error:
            sent.set_exception(_refused(topic, error.args[0]) or problem(f"topic {topic}", error))
        return sent

    async def put_aside(self, topic: str, event: CloudEvent) -> None:
        """As `send`; an event that is too large only with what is said of its failure is sent without that."""
        try:
            await self.send(topic, event)
        except TooLarge:
            own = {name: each for name, each in event.attributes.items() if not name.startswith(_FAILURE)}
            await self.send(topic, CloudEvent(own, event.data))

    async def closed(self) -> None:
        """Closes it in a thread."""
        await anyio.to_thread.run_sync(self.close)

    def close(self) -> None:
        """Blocks until what was sent is acknowledged, but not for long."""
        self._producer.flush(_FLUSH_S)
        self._is_closing = True
        self._thread.join(_FLUSH_S)

    def _serve(self) -> None:
        while not self._is_closing:
            self._producer.poll(_POLL_S)

    def _delivered(self, sent: asyncio.Future[None], error: Any, message: Any) -> None:
        """In the thread that polls."""
        topic = message.topic()
        outcome = None
        if error is not None:
            outcome = _refused(topic, error) or KafkaError(
                f"topic {topic} does not take the event: {error.str()}"
            )
        with self._lock:
            self._done.append(partial(_conclude, sent, outcome))
            is_first = len(self._done) == 1
        if is_first:
            try:
                self._loop.call_soon_threadsafe(self._conclude_all)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                return

    def _conclude_all(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for conclude in done:
            conclude()


def _refused(topic: str, error: Any) -> TooLarge | None:
    """Where another attempt would be as much in vain."""
    kinds = confluent().KafkaError
    if not isinstance(error, kinds) or error.code() not in (kinds.MSG_SIZE_TOO_LARGE, kinds.INVALID_MSG_SIZE):
        return None
    hint = "a topic's limit is max.message.bytes"
    return TooLarge(f"the event is larger than what topic {topic} takes", hint=hint)


def _conclude(sent: asyncio.Future[None], error: GlowplugError | None) -> None:
    if sent.done():
        return
    if error is None:
        sent.set_result(None)
    else:
        sent.set_exception(error)

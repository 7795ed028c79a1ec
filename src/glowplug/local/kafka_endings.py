"""Topics of Brokers that are gone: deleted, with their dead letters, or left where Kafka cannot be asked.

As in Knative it is tried a few times, so that a Broker's end does not wait for a cluster that is gone for good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from glowplug.broker.records import BrokerKey
from glowplug.controllers.eventing.engine import KafkaState
from glowplug.errors import GlowplugError
from glowplug.kafka import EventProducer, delete_topics
from glowplug.spec.kafka import Topic
from glowplug.spec.kafka_security import Cluster

_LOG = logging.getLogger(__name__)
_TRIES = 5
_WAIT_S = 5.0
_KAFKA_TIMEOUT_S = 10.0


class KafkaEndings:
    """`wake` is called with the key of a Broker when `state` has changed for good."""

    def __init__(self, wake: Callable[[str, str], None]) -> None:
        self._wake = wake
        self._states: dict[BrokerKey, KafkaState] = {}

    def is_known(self, key: BrokerKey) -> bool:
        return key in self._states

    def take(self, key: BrokerKey) -> KafkaState:
        """How far it is; what is over is forgotten."""
        state = self._states[key]
        if state.is_connected is not None:
            del self._states[key]
        return state

    def start(
        self, tasks: TaskGroup, key: BrokerKey, cluster: Cluster, topic: Topic, producer: EventProducer | None
    ) -> None:
        """Deletes the topic once `producer` has nothing more for it."""
        self._states[key] = KafkaState()
        tasks.start_soon(self._end, key, cluster, topic, producer, name=f"end of Broker {key}")

    async def _end(
        self, key: BrokerKey, cluster: Cluster, topic: Topic, producer: EventProducer | None
    ) -> None:
        if producer is not None:
            await producer.closed()
        for left in reversed(range(_TRIES)):
            try:
                await anyio.to_thread.run_sync(
                    delete_topics, cluster, (topic.name, topic.dead_letters), _KAFKA_TIMEOUT_S,
                    abandon_on_cancel=True,
                )  # fmt: skip
                self._states[key] = KafkaState(True, True)
                break
            except GlowplugError as error:
                _LOG.warning("Broker %s/%s: %s", *key, error.message)
                self._states[key] = KafkaState(None if left else False, None, error.message)
                if left:
                    await anyio.sleep(_WAIT_S)
        self._wake(*key)

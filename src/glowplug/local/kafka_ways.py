"""What a KafkaSource and a Trigger on Kafka have in common here: a bridge that runs, and where its events go.

Events, verdicts and retries are the broker's (`Forwarder`), topics and offsets Kafka's (`Bridge`); they meet here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from glowplug.broker.forwarding import Forwarder
from glowplug.controllers.eventing.engine import KafkaState
from glowplug.errors import ConfigError
from glowplug.kafka import Bridge, BridgeConfig, Link
from glowplug.kafka.client import confluent
from glowplug.kafka.lane import Handler
from glowplug.spec.eventing import Delivery, Destination
from glowplug.wire.events import Value

# Of a subscriber that is given no other.
TIMEOUT_S = 600.0
Resolve = Callable[[Destination], "str | None"]


def absent() -> KafkaState | None:
    """What there is to say where confluent-kafka is not installed."""
    try:
        confluent()
    except ConfigError as error:
        return KafkaState(problem=f"{error.message}; {error.hint}", is_missing=True)
    return None


class Way:
    """Where events go now: addresses are asked for at each attempt."""

    def __init__(self, resolve: Resolve, sink: Destination, delivery: Delivery) -> None:
        self.sink = sink
        self.delivery = delivery
        self.fallback: Destination | None = None
        self._resolve = resolve

    def subscriber(self) -> str | None:
        return self._resolve(self.sink)

    def has_dead_letter(self) -> bool:
        return self._dead_letter is not None

    def dead_letter(self) -> str | None:
        return None if self._dead_letter is None else self._resolve(self._dead_letter)

    @property
    def _dead_letter(self) -> Destination | None:
        return self.delivery.dead_letter or self.fallback


class Selection(Protocol):
    """Lets some events pass."""

    passes: Callable[[Mapping[str, Value]], bool]


class Running:
    """A bridge in a task, with what it counts."""

    def __init__(
        self,
        config: BridgeConfig,
        way: Way,
        forwarder: Forwarder,
        handler: Handler,
        on_change: Callable[[], None],
    ) -> None:
        self.config = config
        self.way = way
        self.forwarder = forwarder
        self.state = KafkaState()
        # Of a KafkaSource that names one.
        self.dead_letter_topic = ""
        # Of a Trigger: whoever selects the events.
        self.selection: Selection | None = None
        self._on_change = on_change
        self._bridge = Bridge(config, handler, self._heard)
        self._scope = anyio.CancelScope()
        self._is_started = False

    def start(self, tasks: TaskGroup) -> None:
        if not self._is_started:
            self._is_started = True
            tasks.start_soon(self._run, name=f"Kafka group {self.config.consuming.group}")

    def stop(self) -> None:
        """Ends once its partitions are drained."""
        self._scope.cancel()

    async def _run(self) -> None:
        with self._scope:
            await self._bridge.run()

    def _heard(self, link: Link) -> None:
        self.state = KafkaState(link.is_connected, link.has_offsets, link.problem)
        if not self._scope.cancel_called:
            self._on_change()

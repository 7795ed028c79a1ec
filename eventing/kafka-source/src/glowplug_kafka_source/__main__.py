"""`python -m glowplug_kafka_source`: from Kafka to `$K_SINK` until SIGTERM; what is under way is finished first."""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import dataclass

import anyio

from glowplug.broker.forwarding import Forwarder
from glowplug.broker.http_client import HttpClient
from glowplug.errors import GlowplugError, TooLarge
from glowplug.kafka import Bridge, BridgeConfig, EventProducer, Origin
from glowplug.kafka.consumer import ConsumerConfig
from glowplug.spec.eventing import Delivery
from glowplug.wire.events import CloudEvent
from glowplug_kafka_source.settings import Settings, read

_LOG = logging.getLogger("glowplug_kafka_source")
_ANSWER_BYTES = 64 * 1024
_TIMEOUT_S = 600.0
_BURY_RETRY_S = 1.0


def main() -> int:
    """Exit code 2 where the environment is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    try:
        anyio.run(_run, read(os.environ))
    except GlowplugError as error:
        print(f"glowplug-kafka-source: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    return 0


@dataclass(frozen=True)
class _Way:
    delivery: Delivery
    sink: str

    def subscriber(self) -> str:
        return self.sink

    def has_dead_letter(self) -> bool:
        return self.delivery.dead_letter is not None

    def dead_letter(self) -> str | None:
        return self.delivery.dead_letter.uri if self.delivery.dead_letter else None


async def _run(settings: Settings) -> None:
    producer = EventProducer(settings.cluster) if settings.dead_letter_topic else None

    async def bury(event: CloudEvent) -> None:
        if producer is None:
            _LOG.error("event %s was taken by nobody and is gone", event.text("id"))
            return
        while True:
            try:
                await producer.put_aside(settings.dead_letter_topic, event)
                return
            except TooLarge as error:
                _LOG.error("event %s was taken by nobody and is gone: %s", event.text("id"), error.message)
                return
            except GlowplugError as error:
                _LOG.warning("a dead letter waits: %s", error.message)
                await anyio.sleep(_BURY_RETRY_S)

    client = HttpClient(_ANSWER_BYTES)
    way = _Way(settings.delivery, settings.sink)
    forwarder = Forwarder(way, client, timeout_s=_TIMEOUT_S, bury=bury)
    consuming = ConsumerConfig(
        settings.cluster,
        settings.group,
        settings.topics,
        is_ordered=settings.is_ordered,
        session_timeout_s=settings.session_timeout_s,
    )
    origin = Origin(settings.source, settings.key_type, settings.extensions)
    bridge = Bridge(
        BridgeConfig(consuming, origin, settings.members, settings.initial_offset),
        forwarder,
        lambda link: _LOG.info("Kafka: %s", link.problem or "connected"),
    )
    try:
        async with anyio.create_task_group() as tasks:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                tasks.start_soon(bridge.run)
                await anext(aiter(signals))
                tasks.cancel_scope.cancel()
    finally:
        client.close()
        if producer is not None:
            producer.close()


if __name__ == "__main__":
    sys.exit(main())

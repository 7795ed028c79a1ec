"""What the eventing control loops drive: the broker, and who posts events where no broker is in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from glowplug.spec.eventing import BrokerSpec, Destination, TriggerSpec
from glowplug.spec.kafka import KafkaSourceSpec, Topic
from glowplug.spec.kafka_security import Cluster

from ..metadata import Object


@dataclass(frozen=True)
class KafkaState:
    """Where a connection to Kafka stands. None: not known yet. `is_missing`: what talks to Kafka is not installed."""

    is_connected: bool | None = None
    has_offsets: bool | None = None
    problem: str = ""
    is_missing: bool = False


class Engine(Protocol):
    """The machine's event engine. Every call is for what is wanted from now on, and may be repeated."""

    def set_broker(self, spec: BrokerSpec) -> None: ...
    def remove_broker(self, namespace: str, name: str) -> None: ...
    def set_kafka_broker(self, spec: BrokerSpec, cluster: Cluster, topic: Topic) -> KafkaState:
        """There is this Broker, whose events are in that topic; how far that is. Its key is woken when it changes."""
        ...

    def hold_kafka_broker(self, namespace: str, name: str) -> None:
        """There is this Broker, and where its events are is not known: it stays where it was, if it was anywhere, and
        else its senders are to come again.
        """
        ...

    def end_kafka_broker(
        self, namespace: str, name: str, cluster: Cluster | None, topic: Topic
    ) -> KafkaState:
        """There is no such Broker any more, and its topic is to go with it. Connected: it is gone, and not so: it
        stays, for the problem; until one of them is so the key is woken. No `cluster`: the last that was known.
        """
        ...

    def set_kafka_source(self, spec: KafkaSourceSpec, cluster: Cluster) -> KafkaState:
        """There is this KafkaSource; how far it is. Its key is woken when that changes."""
        ...

    def remove_kafka_source(self, namespace: str, name: str) -> None: ...
    def set_trigger(self, spec: TriggerSpec) -> KafkaState | None:
        """There is this Trigger; how far it is, where its Broker is on Kafka, and None where it is ready."""
        ...

    def remove_trigger(self, namespace: str, name: str) -> None: ...
    def broker_url(self, namespace: str, name: str) -> str:
        """Where a Broker takes events."""
        ...

    def job_sink_url(self, namespace: str, name: str) -> str:
        """Where a JobSink takes events."""
        ...

    def set_addresses(self, owner: str, addresses: Mapping[Destination, str]) -> None:
        """Where the destinations of `owner` are now; those left out have no URL. Replaces what was said before."""
        ...

    def post(self, source: Object, url: str, headers: Mapping[str, str], body: bytes) -> None:
        """Send one event for `source`, in the background; what goes wrong becomes an Event of it."""
        ...

"""What the eventing control loops drive: the broker, and who posts events where no broker is in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from glowplug.spec.eventing import BrokerSpec, Destination, TriggerSpec

from ..metadata import Object


class Engine(Protocol):
    """The machine's event engine. Every call is for what is wanted from now on, and may be repeated."""

    def set_broker(self, spec: BrokerSpec) -> None: ...
    def remove_broker(self, namespace: str, name: str) -> None: ...
    def set_trigger(self, spec: TriggerSpec) -> None: ...
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

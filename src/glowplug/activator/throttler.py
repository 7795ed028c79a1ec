"""Who waits and who goes, of one revision: decisions only, as data.

First come, first served. A pod gets no more requests at a time than its `containerConcurrency`; among those with room,
the one with the fewest. `finished` must be told of every request that was let go, else its place stays taken.
Time is a parameter throughout; nothing here answers anybody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from glowplug.spec.routes import Backend, Endpoint


@dataclass(eq=False, slots=True)
class Ticket:
    """A request that asks to go: `id` is its hold's, `attempt` counts from 1, `caller` is whom to answer."""

    id: str
    revision: str
    is_grpc: bool
    attempt: int
    expires_at: float
    caller: Any
    arrived_at: float


@dataclass(frozen=True)
class Admission:
    """The request goes to that pod now."""

    ticket: Ticket
    endpoint: Endpoint

    @property
    def address(self) -> str:
        """`host:port` for the request's protocol."""
        endpoint = self.endpoint
        port = endpoint.http_port
        if self.ticket.is_grpc and endpoint.grpc_port is not None:
            port = endpoint.grpc_port
        return f"{endpoint.host}:{port}"


@dataclass(frozen=True)
class Refusal:
    """The request does not go, for this reason (for its sender)."""

    ticket: Ticket
    reason: str


@dataclass(slots=True)
class _Pod:
    endpoint: Endpoint
    in_flight: int = 0
    # When it was last chosen, as a count of choices.
    chosen: int = 0


@dataclass
class Throttler:
    """The requests of one revision that wait, and the pods that have taken others."""

    backend: Backend
    held: OrderedDict[str, Ticket] = field(default_factory=OrderedDict)
    _pods: dict[str, _Pod] = field(default_factory=dict)
    _choices: int = 0

    def __post_init__(self) -> None:
        self._pods = {endpoint.pod: _Pod(endpoint) for endpoint in self.backend.endpoints}

    def take(self, backend: Backend) -> list[Admission]:
        """The revision as it is now; who may go because of that. Pods that stay keep their count."""
        old, self.backend = self._pods, backend
        self._pods = {}
        for endpoint in backend.endpoints:
            known = old.get(endpoint.pod)
            # A pod of the same name at another address is another process: it has nothing in flight.
            is_same = known is not None and known.endpoint == endpoint
            self._pods[endpoint.pod] = known if known is not None and is_same else _Pod(endpoint)
        return self._admit()

    def arrive(self, ticket: Ticket) -> Admission | None:
        """The request goes at once (nobody waits before it then), or is held."""
        pod = self._choose(ticket) if not self.held else None
        if pod is None:
            self.held[ticket.id] = ticket
            return None
        return self._admission(ticket, pod)

    def leave(self, ticket_id: str) -> Ticket | None:
        """A held request goes no more; None if it is not held."""
        return self.held.pop(ticket_id, None)

    def newest(self) -> Ticket:
        """The last that came of those held. Raises KeyError if none is."""
        return self.held[next(reversed(self.held))]

    def finished(self, pod_name: str) -> list[Admission]:
        """A request that went to that pod is over; who may go because of that."""
        pod = self._pods.get(pod_name)
        if pod is not None and pod.in_flight > 0:
            pod.in_flight -= 1
        return self._admit()

    def forget_in_flight(self) -> list[Admission]:
        """Nothing that was let go is in flight any more: the ingress has started anew."""
        for pod in self._pods.values():
            pod.in_flight = 0
        return self._admit()

    def _admit(self) -> list[Admission]:
        admitted: list[Admission] = []
        while self.held:
            ticket = next(iter(self.held.values()))
            pod = self._choose(ticket)
            if pod is None:
                break
            del self.held[ticket.id]
            admitted.append(self._admission(ticket, pod))
        return admitted

    def _admission(self, ticket: Ticket, pod: _Pod) -> Admission:
        self._choices += 1
        pod.chosen = self._choices
        pod.in_flight += 1
        return Admission(ticket, pod.endpoint)

    def _choose(self, ticket: Ticket) -> _Pod | None:
        limit = self.backend.container_concurrency
        free: Iterable[_Pod] = self._pods.values()
        if limit:
            free = [pod for pod in self._pods.values() if pod.in_flight < limit]
        if ticket.attempt > 1:
            # A dead pod has the fewest in flight: who comes again is sent where nobody was for the longest time.
            return min(free, key=lambda pod: pod.chosen, default=None)
        return min(free, key=lambda pod: (pod.in_flight, pod.chosen), default=None)

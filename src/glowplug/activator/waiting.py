"""All revisions together: the bound on what waits, fairness between revisions, deadlines, and what came of a request.

Where the room for waiting is full, a newcomer takes the place of the newest request of the revision that holds the
most, unless that is its own revision: so a flood for one model leaves room for the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from glowplug.activator.config import ActivatorConfig
from glowplug.activator.meter import Load, Meter
from glowplug.activator.throttler import Admission, Refusal, Throttler, Ticket
from glowplug.spec.routes import Backend

Outcome = Admission | Refusal


@dataclass(frozen=True)
class _Flight:
    """A request that was let go."""

    revision: str
    pod: str


class WaitingRoom:
    """The state of the activator. Each method returns the answers to give because of it; `now` is monotonic."""

    def __init__(self, config: ActivatorConfig) -> None:
        self._config = config
        self._throttlers: dict[str, Throttler] = {}
        self._meters: dict[str, Meter] = {}
        self._flights: dict[str, _Flight] = {}
        self._deadlines: list[tuple[float, str, str]] = []
        self.held = 0

    def take(self, backends: Mapping[str, Backend], now: float) -> list[Outcome]:
        """The revisions as they are now, by `namespace/name`."""
        outcomes: list[Outcome] = []
        for revision in [name for name in self._throttlers if name not in backends]:
            outcomes += self._refuse_all(self._throttlers.pop(revision), "revision {} is gone", now)
        for revision, backend in backends.items():
            throttler = self._throttlers.get(revision)
            if throttler is None:
                self._throttlers[revision] = Throttler(backend)
            elif throttler.backend != backend:
                outcomes += self._went(throttler.take(backend))
                if not backend.takes_requests:
                    outcomes += self._refuse_all(throttler, "revision {} has failed", now)
        return outcomes

    def arrive(self, ticket: Ticket, now: float) -> list[Outcome]:
        """A request asks to go. It is answered at once, or held until one of the other methods answers it."""
        throttler = self._throttlers.get(ticket.revision)
        if throttler is None or not throttler.backend.takes_requests:
            see = f"kubectl get revisions -n {ticket.revision.partition('/')[0]}"
            return [Refusal(ticket, f"revision {ticket.revision} has no replica and gets none; see: {see}")]
        self._meter(ticket.revision, now).begin(now)
        admission = throttler.arrive(ticket)
        if admission is not None:
            self._flights[ticket.id] = _Flight(ticket.revision, admission.endpoint.pod)
            return [admission]
        self.held += 1
        heapq.heappush(self._deadlines, (ticket.expires_at, ticket.revision, ticket.id))
        return self._make_room(ticket.revision, now)

    def leave(self, ticket: Ticket, now: float) -> None:
        """Nobody waits for this request's answer any more."""
        throttler = self._throttlers.get(ticket.revision)
        if throttler is not None and throttler.leave(ticket.id) is not None:
            self._stopped_waiting(ticket.revision, now)

    def finished(self, ticket_id: str, now: float) -> list[Outcome]:
        """A request is over, whatever came of it."""
        flight = self._flights.pop(ticket_id, None)
        if flight is None:
            # Its client went while it waited: Envoy tells of the end before it takes the question back.
            self._leave_any(ticket_id, now)
            return []
        self._meter(flight.revision, now).end(now)
        throttler = self._throttlers.get(flight.revision)
        return [] if throttler is None else list(self._went(throttler.finished(flight.pod)))

    def _leave_any(self, ticket_id: str, now: float) -> None:
        for revision, throttler in self._throttlers.items():
            if throttler.leave(ticket_id) is not None:
                self._stopped_waiting(revision, now)
                return

    def forget_in_flight(self, now: float) -> list[Outcome]:
        """The ingress has started anew: nothing that was let go is in flight any more."""
        for flight in self._flights.values():
            self._meter(flight.revision, now).end(now)
        self._flights.clear()
        return [
            outcome
            for throttler in self._throttlers.values()
            for outcome in self._went(throttler.forget_in_flight())
        ]

    def expire(self, now: float) -> list[Outcome]:
        """Refuses who has waited past its deadline."""
        outcomes: list[Outcome] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, revision, ticket_id = heapq.heappop(self._deadlines)
            throttler = self._throttlers.get(revision)
            ticket = throttler.leave(ticket_id) if throttler is not None else None
            if ticket is not None:
                self._stopped_waiting(revision, now)
                waited = f"no replica of revision {revision} was free for {now - ticket.arrived_at:.1f} s"
                outcomes.append(Refusal(ticket, waited))
        return outcomes

    def next_deadline(self) -> float | None:
        """When `expire` has something to do, at the earliest; None while nobody waits."""
        if not self.held:
            self._deadlines.clear()
        return self._deadlines[0][0] if self._deadlines else None

    def held_by_revision(self) -> dict[str, int]:
        """How many wait, of the revisions that somebody waits for."""
        return {name: len(throttler.held) for name, throttler in self._throttlers.items() if throttler.held}

    def in_progress(self, revision: str) -> int:
        """How many requests of the revision wait or were let go and are not over."""
        meter = self._meters.get(revision)
        return 0 if meter is None else meter.in_progress

    def loads(self, now: float) -> dict[str, Load]:
        """By revision, what waited or was in flight since the last call; revisions without any are left out."""
        loads = {revision: meter.take(now) for revision, meter in self._meters.items()}
        for revision, load in loads.items():
            if not load.in_progress:
                del self._meters[revision]
        return loads

    def _meter(self, revision: str, now: float) -> Meter:
        meter = self._meters.get(revision)
        if meter is None:
            meter = self._meters[revision] = Meter(now)
        return meter

    def _make_room(self, newcomer: str, now: float) -> list[Outcome]:
        if self.held <= self._config.max_held:
            return []
        most = max(self._throttlers.values(), key=lambda t: (len(t.held), t.backend.revision == newcomer))
        ticket = most.newest()
        most.leave(ticket.id)
        self._stopped_waiting(ticket.revision, now)
        reason = (
            f"{self._config.max_held} requests wait already; revision {ticket.revision} has no free replica"
        )
        return [Refusal(ticket, reason)]

    def _went(self, admissions: list[Admission]) -> Iterator[Outcome]:
        for admission in admissions:
            ticket = admission.ticket
            self.held -= 1
            self._flights[ticket.id] = _Flight(ticket.revision, admission.endpoint.pod)
            yield admission

    def _refuse_all(self, throttler: Throttler, reason: str, now: float) -> list[Outcome]:
        refused = list(throttler.held.values())
        throttler.held.clear()
        for ticket in refused:
            self._stopped_waiting(ticket.revision, now)
        return [Refusal(ticket, reason.format(ticket.revision)) for ticket in refused]

    def _stopped_waiting(self, revision: str, now: float) -> None:
        self.held -= 1
        self._meter(revision, now).end(now)

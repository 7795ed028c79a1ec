"""All revisions together: the bound on what waits, fairness between revisions, deadlines, and what came of a request.

Where the room for waiting is full, a newcomer takes the place of the newest request of the revision that holds the
most, unless that is its own revision: so a flood for one model leaves room for the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from glowplug.activator.config import ActivatorConfig
from glowplug.activator.throttler import Admission, Refusal, Throttler, Ticket
from glowplug.spec.load import Report, RequestMeter
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
        self._meters: dict[str, RequestMeter] = {}
        self._flights: dict[str, _Flight] = {}
        # The revision of each request that waits: of an end Envoy says only whose it is.
        self._waits: dict[str, str] = {}
        # How many wait, of the revisions that somebody waits for.
        self._holding: dict[str, int] = {}
        self._deadlines: list[tuple[float, str]] = []

    @property
    def held(self) -> int:
        """How many wait."""
        return len(self._waits)

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
        self._meter(ticket.revision, now).request_in(_ns(now))
        admission = throttler.arrive(ticket)
        if admission is not None:
            self._flights[ticket.id] = _Flight(ticket.revision, admission.endpoint.pod)
            return [admission]
        self._waits[ticket.id] = ticket.revision
        self._holding[ticket.revision] = self._holding.get(ticket.revision, 0) + 1
        self._note_deadline(ticket)
        return self._make_room(ticket.revision, now)

    def leave(self, ticket: Ticket, now: float) -> None:
        """Nobody waits for this request's answer any more."""
        self._leave(ticket.id, now)

    def finished(self, ticket_id: str, now: float) -> list[Outcome]:
        """A request is over, whatever came of it."""
        flight = self._flights.pop(ticket_id, None)
        if flight is None:
            # Its client went while it waited: Envoy tells of the end before it takes the question back.
            self._leave(ticket_id, now)
            return []
        self._meter(flight.revision, now).request_out(_ns(now))
        throttler = self._throttlers.get(flight.revision)
        return [] if throttler is None else list(self._went(throttler.finished(flight.pod)))

    def forget_in_flight(self, now: float) -> list[Outcome]:
        """The ingress has started anew: nothing that was let go is in flight any more."""
        for flight in self._flights.values():
            self._meter(flight.revision, now).request_out(_ns(now))
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
            ticket = self._leave(heapq.heappop(self._deadlines)[1], now)
            if ticket is not None:
                waited = (
                    f"no replica of revision {ticket.revision} was free for {now - ticket.arrived_at:.1f} s"
                )
                outcomes.append(Refusal(ticket, waited))
        return outcomes

    def next_deadline(self) -> float | None:
        """When `expire` has something to do, at the earliest; None while nobody waits."""
        if not self.held:
            self._deadlines.clear()
        return self._deadlines[0][0] if self._deadlines else None

    def held_by_revision(self) -> dict[str, int]:
        """How many wait, of the revisions that somebody waits for."""
        return dict(self._holding)

    def in_progress(self, revision: str) -> int:
        """How many requests of the revision wait or were let go and are not over."""
        meter = self._meters.get(revision)
        return 0 if meter is None else meter.in_flight

    def loads(self, now: float) -> dict[str, Report]:
        """By revision, what waited or was in flight since the last call; revisions without any are left out."""
        loads = {revision: meter.report(_ns(now)) for revision, meter in self._meters.items()}
        self._meters = {revision: meter for revision, meter in self._meters.items() if meter.in_flight}
        return loads

    def _note_deadline(self, ticket: Ticket) -> None:
        if len(self._deadlines) > 2 * self._config.max_held:
            # Most are of requests that went long before; under a steady load nothing else would remove them.
            self._deadlines = [deadline for deadline in self._deadlines if deadline[1] in self._waits]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (ticket.expires_at, ticket.id))

    def _leave(self, ticket_id: str, now: float) -> Ticket | None:
        """That request waits no more; None if it did not."""
        throttler = self._throttlers.get(self._waits.get(ticket_id, ""))
        ticket = None if throttler is None else throttler.leave(ticket_id)
        if ticket is not None:
            self._stopped_waiting(ticket, now)
        return ticket

    def _meter(self, revision: str, now: float) -> RequestMeter:
        meter = self._meters.get(revision)
        if meter is None:
            meter = self._meters[revision] = RequestMeter(_ns(now))
        return meter

    def _make_room(self, newcomer: str, now: float) -> list[Outcome]:
        if self.held <= self._config.max_held:
            return []
        most = max(self._holding, key=lambda revision: (self._holding[revision], revision == newcomer))
        ticket = self._throttlers[most].newest()
        self._leave(ticket.id, now)
        reason = (
            f"{self._config.max_held} requests wait already; revision {ticket.revision} has no free replica"
        )
        return [Refusal(ticket, reason)]

    def _went(self, admissions: list[Admission]) -> Iterator[Outcome]:
        for admission in admissions:
            ticket = admission.ticket
            self._forget_wait(ticket)
            self._flights[ticket.id] = _Flight(ticket.revision, admission.endpoint.pod)
            yield admission

    def _refuse_all(self, throttler: Throttler, reason: str, now: float) -> list[Outcome]:
        refused = list(throttler.held.values())
        throttler.held.clear()
        for ticket in refused:
            self._stopped_waiting(ticket, now)
        return [Refusal(ticket, reason.format(ticket.revision)) for ticket in refused]

    def _stopped_waiting(self, ticket: Ticket, now: float) -> None:
        self._forget_wait(ticket)
        self._meter(ticket.revision, now).request_out(_ns(now))

    def _forget_wait(self, ticket: Ticket) -> None:
        del self._waits[ticket.id]
        self._holding[ticket.revision] -= 1
        if not self._holding[ticket.revision]:
            del self._holding[ticket.revision]


def _ns(now: float) -> int:
    return int(now * 1e9)

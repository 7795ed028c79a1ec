"""Whatever happens in which order: each request is answered once, in turn, and no pod gets more than its limit."""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from glowplug.activator import ActivatorConfig
from glowplug.activator.throttler import Admission, Refusal, Ticket
from glowplug.activator.waiting import Outcome, WaitingRoom
from glowplug.spec.routes import Backend, Endpoint, Mode

MAX_HELD = 5
REVISIONS = ("default/a", "default/b")


def endpoint(number: int) -> Endpoint:
    return Endpoint(
        f"default/pod-{number}", "127.0.0.1", 40000 + number, 50000 + number if number % 2 else None
    )


class Waiting(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.room = WaitingRoom(ActivatorConfig(max_held=MAX_HELD))
        self.backends: dict[str, Backend] = {}
        self.open: dict[str, Ticket] = {}
        self.flights: dict[str, tuple[str, str]] = {}
        self.answered: set[str] = set()
        self.area: Counter[str] = Counter()
        # By revision, since when its load is measured.
        self.since: dict[str, float] = {}
        self.count = 0

    def took(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            ticket = self.open.pop(outcome.ticket.id)
            assert ticket.id not in self.answered
            self.answered.add(ticket.id)
            if isinstance(outcome, Admission):
                before = [t for t in self.open.values() if t.revision == ticket.revision and t.id < ticket.id]
                assert before == [], "somebody who came earlier still waits"
                assert outcome.endpoint in self.backends[ticket.revision].endpoints
                self.flights[ticket.id] = (ticket.revision, outcome.endpoint.pod)

    @rule(revision=st.sampled_from(REVISIONS), numbers=st.sets(st.integers(0, 3)), limit=st.integers(0, 2),
          mode=st.sampled_from(Mode))  # fmt: skip
    def change(self, revision: str, numbers: set[int], limit: int, mode: Mode) -> None:
        # Pods of different revisions are different pods.
        first = 10 * REVISIONS.index(revision)
        endpoints = tuple(endpoint(first + number) for number in sorted(numbers))
        # What a revision takes at a time never changes.
        known = self.backends.get(revision)
        limit = known.container_concurrency if known else limit
        self.backends[revision] = Backend(revision, endpoints, limit, 30.0, mode)
        self.took(self.room.take(self.backends, self.now))

    @rule(revision=st.sampled_from(REVISIONS))
    def remove(self, revision: str) -> None:
        self.backends.pop(revision, None)
        self.took(self.room.take(self.backends, self.now))

    @rule(
        revision=st.sampled_from(REVISIONS),
        wait_s=st.integers(1, 9),
        attempt=st.integers(1, 2),
        is_grpc=st.booleans(),
    )
    def arrive(self, revision: str, wait_s: int, attempt: int, is_grpc: bool) -> None:
        self.count += 1
        ticket = Ticket(f"{self.count:06}", revision, is_grpc, attempt, self.now + wait_s, None, self.now)
        self.open[ticket.id] = ticket
        outcomes = self.room.arrive(ticket, self.now)
        self.took(outcomes)
        if not any("gets none" in o.reason for o in outcomes if isinstance(o, Refusal)):
            self.since.setdefault(revision, self.now)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        self.room.leave(ticket, self.now)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        ticket_id = data.draw(st.sampled_from(sorted(self.flights)))
        del self.flights[ticket_id]
        self.took(self.room.finished(ticket_id, self.now))
        self.took(self.room.finished(ticket_id, self.now))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end_while_waiting(self, data: st.DataObject) -> None:
        ticket = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        self.took(self.room.finished(ticket.id, self.now))
        self.room.leave(ticket, self.now)

    @rule(seconds=st.integers(1, 5))
    def pass_time(self, seconds: int) -> None:
        for revision, count in self.in_progress().items():
            self.area[revision] += count * seconds
        self.now += seconds
        self.took(self.room.expire(self.now))
        assert all(ticket.expires_at > self.now for ticket in self.open.values())

    @rule()
    def restart_ingress(self) -> None:
        self.flights.clear()
        self.took(self.room.forget_in_flight(self.now))

    @rule()
    def read(self) -> None:
        loads = self.room.loads(self.now)
        assert loads.keys() == self.since.keys()
        found = {r: round(load.concurrency * (self.now - self.since[r]), 6) for r, load in loads.items()}
        assert {r: area for r, area in found.items() if area} == {r: a for r, a in self.area.items() if a}
        self.area.clear()
        self.since = dict.fromkeys(self.in_progress(), self.now)

    def in_progress(self) -> Counter[str]:
        held = Counter(ticket.revision for ticket in self.open.values())
        return held + Counter(revision for revision, _ in self.flights.values())

    @invariant()
    def bounds_hold(self) -> None:
        held = Counter(ticket.revision for ticket in self.open.values())
        assert self.room.held_by_revision() == dict(held)
        assert self.room.held == len(self.open) <= MAX_HELD
        deadline = self.room.next_deadline()
        assert (deadline is not None) or not self.open
        assert all(deadline is not None and deadline <= ticket.expires_at for ticket in self.open.values())

    @invariant()
    def nobody_waits_beside_a_free_pod(self) -> None:
        busy = Counter(pod for _, pod in self.flights.values())
        for revision, backend in self.backends.items():
            if any(ticket.revision == revision for ticket in self.open.values()):
                limit = backend.container_concurrency
                assert limit or not backend.endpoints
                assert all(busy[e.pod] >= limit for e in backend.endpoints)


TestWaiting = Waiting.TestCase


def arrivals(room: WaitingRoom, count: int, attempt: int = 1) -> list[str]:
    found: list[str] = []
    for number in range(count):
        ticket = Ticket(f"{attempt}-{number}-{len(found)}", "default/a", False, attempt, 100.0, None, 0.0)
        found += [o.endpoint.pod for o in room.arrive(ticket, 0.0) if isinstance(o, Admission)]
    return found


def test_requests_go_to_the_pod_with_the_fewest_and_second_attempts_go_round() -> None:
    room = WaitingRoom(ActivatorConfig())
    backend = Backend("default/a", tuple(endpoint(n) for n in (0, 1, 2)), 0, 30.0)
    room.take({"default/a": backend}, 0.0)
    assert set(Counter(arrivals(room, 6)).values()) == {2}
    # A dead pod has none in flight; whoever comes back to it comes to each pod in turn.
    assert set(Counter(arrivals(room, 6, attempt=2)).values()) == {2}


def test_a_pod_that_speaks_grpc_on_its_only_port_gets_it_there() -> None:
    for number, port in ((1, 50001), (2, 40002)):
        ticket = Ticket("1", "default/a", True, 1, 1.0, None, 0.0)
        assert Admission(ticket, endpoint(number)).address == f"127.0.0.1:{port}"


def test_who_went_long_before_its_deadline_is_not_remembered_until_then() -> None:
    room = WaitingRoom(ActivatorConfig(max_held=MAX_HELD))
    room.take({"default/a": Backend("default/a", (), 1, 300.0, Mode.PROXY)}, 0.0)
    for number in range(1000):
        ticket = Ticket(f"{number:06}", "default/a", False, 1, 300.0, None, float(number))
        assert room.arrive(ticket, float(number)) == []
        if number:
            # The first one stays, so the room is never empty.
            room.finished(ticket.id, float(number))
    assert (room.held, room.next_deadline()) == (1, 300.0)
    assert len(room._deadlines) <= 2 * MAX_HELD + 1

"""What shares a batch, who goes first, who is dropped; on virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from glowplug.serving.batching import Limits, Rhythm, after, decide

LIMITS = Limits(max_rows=8, max_delay_s=0.005)


@dataclass(eq=False)
class Waiting:
    kind: Any
    rows: int
    priority: int
    deadline: float | None


def call(kind: Any = "k", rows: int = 1, priority: int = 5, deadline: float | None = None) -> Waiting:
    return Waiting(kind, rows, priority, deadline)


CALLS = st.lists(
    st.builds(
        call,
        st.sampled_from(["a", "b", None]),
        st.integers(0, 12),
        st.integers(1, 3),
        st.none() | st.floats(0, 2),
    ),
    max_size=40,
)
RHYTHMS = st.builds(Rhythm, st.integers(1, 10), st.floats(0, 2))


@given(waiting=CALLS, rhythm=RHYTHMS, now=st.floats(0, 2))
def test_a_decision_loses_nobody_and_keeps_the_bounds(
    waiting: list[Waiting], rhythm: Rhythm, now: float
) -> None:
    found = decide(waiting, rhythm, LIMITS, now)
    everyone = [*found.batch, *found.expired, *found.rest]
    assert sorted(map(id, everyone)) == sorted(map(id, waiting))
    assert all(item.deadline is not None and item.deadline <= now for item in found.expired)
    assert all(item.deadline is None or item.deadline > now for item in [*found.batch, *found.rest])
    if len(found.batch) > 1:
        assert sum(item.rows for item in found.batch) <= LIMITS.max_rows
        assert {item.kind for item in found.batch} == {found.batch[0].kind} != {None}
    if found.batch:
        order = [
            item for item in sorted(waiting, key=lambda item: item.priority) if item not in found.expired
        ]
        assert found.batch[0] is order[0]
        same = [item for item in order if item.kind == order[0].kind]
        assert list(found.batch) == same[: len(found.batch)]
    # It is held back only for company that is due, and never past that.
    is_idle = now >= rhythm.until or rhythm.requests == 1
    if found.rest and not found.batch:
        assert not is_idle
        assert found.wake_at == rhythm.until > now
        assert all(item.deadline is None or item.deadline > rhythm.until for item in found.rest)
    assert bool(found.batch) or not found.rest or not is_idle


def test_whoever_finds_the_model_idle_runs_at_once() -> None:
    lone = call()
    for last in (1, 2, 30):
        rhythm = after(last, LIMITS, now=10.0)
        assert decide([lone], rhythm, LIMITS, 10.0 + LIMITS.max_delay_s).batch == [lone]
    assert decide([lone], after(1, LIMITS, 10.0), LIMITS, 10.0).batch == [lone]


def test_after_a_shared_batch_its_requests_are_waited_for_and_no_longer() -> None:
    rhythm = after(3, LIMITS, now=10.0)
    first = [call(), call()]
    found = decide(first, rhythm, LIMITS, 10.001)
    assert (found.batch, found.rest, found.wake_at) == ((), first, 10.005)
    assert len(decide([*first, call()], rhythm, LIMITS, 10.001).batch) == 3
    assert len(decide(first, rhythm, LIMITS, 10.005).batch) == 2
    urgent = call(deadline=10.004)
    assert decide([urgent], rhythm, LIMITS, 10.001).batch == [urgent]
    full = call(rows=8)
    assert decide([full], rhythm, LIMITS, 10.001).batch == [full]


def test_priority_goes_first_and_decides_the_kind() -> None:
    low, high, same = call("a", priority=9), call("b", priority=1), call("b", priority=9)
    found = decide([low, same, high], Rhythm(), LIMITS, 0)
    assert found.batch == [high, same]
    assert found.rest == [low]


def test_a_request_above_the_bound_is_a_batch_of_its_own() -> None:
    large, small = call(rows=100), call()
    found = decide([large, small], Rhythm(), LIMITS, 0)
    assert (found.batch, found.rest) == ([large], [small])
    found = decide([small, large], Rhythm(), LIMITS, 0)
    assert (found.batch, found.rest) == ([small], [large])


@dataclass
class Arrival:
    at: float
    call: Waiting


@settings(max_examples=200)
@given(
    gaps=st.lists(st.floats(0, 0.01), min_size=1, max_size=60),
    rows=st.lists(st.integers(1, 3), min_size=60, max_size=60),
    batch_s=st.floats(0.0001, 0.05),
)
def test_waits_are_bounded_on_virtual_time(gaps: list[float], rows: list[int], batch_s: float) -> None:
    """While all that waits fits into one batch, the wait is at most the rest of the running batch and the delay."""
    now, queue, done = 0.0, [], 0
    at, arrivals = 0.0, []
    for gap, count in zip(gaps, rows, strict=False):
        at += gap
        arrivals.append(Arrival(at, call(rows=count)))
    known = {id(item.call): item.at for item in arrivals}
    rhythm, most_waiting, waits = Rhythm(), 0, []
    while done < len(gaps):
        while arrivals and arrivals[0].at <= now:
            queue.append(arrivals.pop(0).call)
        most_waiting = max(most_waiting, sum(item.rows for item in queue))
        found = decide(queue, rhythm, LIMITS, now)
        queue = list(found.rest)
        if found.batch:
            waits.extend(now - known[id(item)] for item in found.batch)
            done += len(found.batch)
            now += batch_s
            rhythm = after(len(found.batch), LIMITS, now)
            continue
        upcoming = [item.at for item in arrivals[:1]] + ([found.wake_at] if found.wake_at is not None else [])
        now = min(upcoming)
    if most_waiting <= LIMITS.max_rows:
        assert max(waits) <= batch_s + LIMITS.max_delay_s + 1e-9

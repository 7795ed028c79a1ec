"""The decision, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timezone

from hypothesis import given
from hypothesis import strategies as st

from glowplug.warmfloor.decision import Decision, Demand, State, Unmeasured, decide
from glowplug.warmfloor.schedule import Schedule
from glowplug.warmfloor.settings import Settings
from glowplug.warmfloor.starts import StartTime

STATE = State(starts=StartTime(10.0, 3, 1.0))
SETTINGS = Settings(maximum=10)
SILENT = Unmeasured("nobody answers")


def run(
    demands: list[Demand | Unmeasured],
    settings: Settings = SETTINGS,
    state: State = STATE,
    start: float = 0.0,
) -> tuple[State, list[Decision]]:
    found = []
    for tick, demand in enumerate(demands):
        state, decision = decide(settings, state, demand, 7.0, 5.0, start + tick * 5.0)
        found.append(decision)
    return state, found


def test_it_follows_the_demand_up_at_once_and_down_after_a_while() -> None:
    _, found = run([Demand(6.0)] * 100 + [Demand(20.0)] * 20 + [Demand(0.0)] * 60)
    floors = [each.floor for each in found]
    assert floors[99] == 1
    assert floors[101] >= 2 and floors[119] in (3, 4)
    # It is held for 30 s at least.
    assert min(floors[120:125]) >= 3
    assert floors[-1] == 0
    assert "/ target 7 = " in found[119].reason and "in 15 s" in found[119].reason


def test_what_nobody_measured_is_held() -> None:
    state, found = run([Demand(20.0)] * 20)
    high = found[-1].floor
    state, held = run([SILENT] * 100, state=state, start=100.0)
    assert {each.floor for each in held} == {high} and high >= 3
    assert held[-1].reason == f"nobody answers: the forecast's {high} stay"


def test_the_schedule_moves_it_even_then() -> None:
    schedule = Schedule.parse("0 1 * * *=4; 0 2 * * *=0", timezone.utc, 100)
    settings = replace(SETTINGS, schedule=schedule)
    floors = {
        now: decide(settings, STATE, SILENT, 7.0, 5.0, now)[1].floor for now in (3580, 3586, 3600, 7199, 7200)
    }
    assert floors == {3580: 0, 3586: 4, 3600: 4, 7199: 4, 7200: 0}
    assert decide(settings, STATE, SILENT, 7.0, 5.0, 3600)[1].reason == "schedule 0 1 * * * = 4"


def test_bounds_win() -> None:
    _, found = run([Demand(500.0)] * 30)
    assert found[-1].floor == 10
    schedule = Schedule.parse("* * * * *=40", timezone.utc, 100)
    settings = replace(SETTINGS, schedule=schedule, minimum=2)
    assert run([SILENT], settings)[1][0].floor == 10
    raised = run([SILENT], replace(SETTINGS, minimum=2))[1][0]
    assert raised.floor == 2 and "raised to the minimum 2" in raised.reason


def test_a_queue_is_no_demand() -> None:
    # 50 requests a second of 0.1 s are 5 in progress; a queue holds 300 more.
    _, found = run([Demand(5.0, 50.0)] * 30 + [Demand(305.0, 50.0)] * 6)
    assert found[-1].floor <= 2
    _, without = run([Demand(5.0)] * 30 + [Demand(305.0)] * 6)
    assert without[-1].floor == 10


def test_slower_requests_are_more_demand_in_the_end() -> None:
    _, found = run([Demand(5.0, 50.0)] * 30 + [Demand(15.0, 50.0)] * 200)
    assert found[-1].floor >= 3


@given(
    st.lists(st.none() | st.tuples(st.floats(0, 1e4), st.none() | st.floats(0, 1e4)), max_size=60),
    st.integers(0, 5),
    st.integers(5, 20),
)
def test_the_floor_is_within_its_bounds_whatever_comes(
    demands: list[tuple[float, float | None] | None], minimum: int, maximum: int
) -> None:
    settings = Settings(minimum, maximum)
    state, found = run([SILENT if each is None else Demand(*each) for each in demands], settings)
    assert all(minimum <= each.floor <= maximum and each.reason for each in found)
    assert len(state.wanted) <= maximum + 1

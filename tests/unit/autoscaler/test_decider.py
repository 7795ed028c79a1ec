from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.autoscaler import decider
from glowplug.autoscaler.decider import Decision, NoData, Observation, State, Undecided, decide, start
from glowplug.autoscaler.parameters import Parameters

S = 10**9
P = Parameters(target=7, total=10)


def after(
    parameters: Parameters, ready: int, *ticks: tuple[float, int, float, float]
) -> tuple[State, Decision]:
    """The state and the last decision after ticks of (seconds, ready, stable, panic)."""
    state = start(parameters, ready, 0)
    for at, pods, stable, panic in ticks:
        state, found = decide(parameters, state, Observation(pods, stable, panic), int(at * S))
        assert isinstance(found, Decision)
    return state, found


def test_pods_for_the_load() -> None:
    assert after(P, 1, (0, 3, 15, 15))[1].desired == 3


def test_no_data_decides_nothing_and_changes_nothing() -> None:
    state = start(P, 5, 0)
    assert decide(P, state, NoData("why not"), 9 * S) == (state, Undecided("why not"))


def test_panic_begins_at_the_threshold_and_does_not_shrink() -> None:
    state, found = after(P, 0, (0, 1, 7, 14))
    assert (found.desired, found.is_panicking, state.panic_since_ns) == (2, True, 0)
    state, found = after(P, 0, (0, 1, 7, 70), (2, 10, 7, 7))
    assert found.desired == 10
    assert "panic keeps 10 pods where 5 would do" in found.reason


def test_panic_ends_after_a_stable_window_without_food() -> None:
    _, found = after(P, 0, (0, 1, 7, 70), (60, 10, 7, 7))
    assert found.is_panicking
    state, found = after(P, 0, (0, 1, 7, 70), (60.5, 10, 7, 7))
    assert (found.desired, found.is_panicking, state.max_panic_pods) == (5, False, 0)
    _, found = after(P, 0, (0, 1, 7, 70), (40, 1, 7, 14), (90, 10, 7, 7))
    assert found.is_panicking


def test_several_ready_pods_at_the_start_are_kept_for_a_window() -> None:
    assert after(P, 5, (2, 5, 0, 0))[1].desired == 5
    assert after(P, 2, (2, 2, 0, 0))[1].desired == 2
    assert after(P, 1, (2, 1, 0, 0))[1].desired == 0


def test_one_step_is_limited() -> None:
    assert after(replace(P, max_scale_up_rate=1.1), 0, (0, 2, 700, 0))[1].desired == 3
    assert after(P, 0, (0, 9, 1, 1))[1].desired == 4
    assert after(replace(P, is_reachable=False), 0, (0, 9, 1, 1))[1].desired == 1


def test_activation_scale_is_for_a_load_only() -> None:
    parameters = replace(P, activation_scale=3)
    assert after(parameters, 0, (0, 0, 0.1, 0))[1].desired == 3
    assert after(parameters, 0, (0, 1, 0, 0))[1].desired == 0


def test_a_scale_down_waits_for_the_delay() -> None:
    parameters = replace(P, scale_down_delay_ns=4 * S)
    ticks = [(0, 4, 28, 0), (2, 4, 14, 0), (4, 4, 14, 0)]
    assert after(parameters, 0, *ticks[:2])[1].desired == 4
    assert "scale-down-delay 4s keeps 4 pods where 2 would do" in after(parameters, 0, *ticks[:2])[1].reason
    assert after(parameters, 0, *ticks)[1].desired == 2
    assert after(replace(parameters, is_reachable=False), 0, *ticks[:2])[1].desired == 2


def test_excess_burst_capacity() -> None:
    assert after(P, 0, (0, 30, 0, 50.5))[1].excess_burst_capacity == 38
    assert after(P, 0, (0, 0, 0, 0))[1].excess_burst_capacity == -211
    assert after(replace(P, target_burst_capacity=0), 0, (0, 1, 0, 900))[1].excess_burst_capacity == 0
    assert after(replace(P, target_burst_capacity=-1), 0, (0, 99, 0, 0))[1].excess_burst_capacity == -1


def test_before_the_first_decision() -> None:
    assert decider.initial_excess_burst_capacity(replace(P, initial_scale=3)) == -181
    assert decider.initial_excess_burst_capacity(replace(P, target_burst_capacity=-1)) == -1


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [((3, 5), (3, 9), False), ((3, 5), (4, 5), True), ((3, 0), (3, -1), True), ((3, -5), (3, -1), False)],
)
def test_what_is_news(before: tuple[int, int], after: tuple[int, int], news: bool) -> None:
    assert decider.is_news(before, Decision(*after, False, "")) is news


PARAMETERS = st.builds(
    Parameters,
    target=st.floats(0.01, 500), total=st.floats(0.01, 500), max_scale_up_rate=st.floats(1.01, 1000),
    max_scale_down_rate=st.floats(1.01, 100), panic_threshold=st.floats(1.1, 10),
    stable_window_ns=st.integers(6, 600).map(lambda s: s * S), scale_down_delay_ns=st.sampled_from([0, S, 30 * S]),
    target_burst_capacity=st.sampled_from([-1.0, 0.0, 211.0]), activation_scale=st.sampled_from([0, 2, 9]),
    is_reachable=st.booleans(),
)  # fmt: skip
LOAD = st.floats(0, 1e6)
TICKS = st.lists(
    st.tuples(
        st.floats(0, 90),
        st.one_of(st.just(NoData()), st.builds(Observation, st.integers(0, 999), LOAD, LOAD)),
    ),
    max_size=30,
)


@given(PARAMETERS, st.integers(0, 20), TICKS)
def test_what_holds_on_every_trace(
    parameters: Parameters, ready: int, ticks: list[tuple[float, Observation | NoData]]
) -> None:
    state, now_ns, was = start(parameters, ready, 0), 0, 0
    for gap, observation in ticks:
        now_ns += int(gap * S)
        before = state
        state, found = decide(parameters, state, observation, now_ns)
        assert found.reason
        if isinstance(found, Undecided):
            assert state == before and isinstance(observation, NoData)
            continue
        assert isinstance(observation, Observation)
        assert found.desired >= 0
        assert found.is_panicking == (state.panic_since_ns is not None)
        if before.panic_since_ns is not None and found.is_panicking:
            assert state.max_panic_pods >= before.max_panic_pods and found.desired >= state.max_panic_pods
        most = max(1, observation.ready) * parameters.max_scale_up_rate + 1
        assert found.desired <= max(most, parameters.activation_scale, state.max_panic_pods, was)
        was = max(was, found.desired)
        # The same question has the same answer.
        assert decide(parameters, before, observation, now_ns) == (state, found)


@given(PARAMETERS, st.integers(0, 50), LOAD, LOAD, st.floats(0, 1e5))
def test_more_load_never_means_fewer_pods(
    parameters: Parameters, ready: int, stable: float, panic: float, more: float
) -> None:
    state = start(parameters, 0, 0)
    _, less_found = decide(parameters, state, Observation(ready, stable, panic), S)
    _, more_found = decide(parameters, state, Observation(ready, stable + more, panic + more), S)
    assert isinstance(less_found, Decision) and isinstance(more_found, Decision)
    assert more_found.desired >= less_found.desired
    assert more_found.excess_burst_capacity <= less_found.excess_burst_capacity

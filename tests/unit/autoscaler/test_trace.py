from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.autoscaler import record, replay, trace
from glowplug.autoscaler.decider import Decision, NoData, Observation, decide, start
from glowplug.autoscaler.parameters import Parameters
from glowplug.errors import ConfigError

S = 10**9
HEADER = '{"target":7,"total":10}'


def lines_of(found: trace.Trace) -> Iterator[str]:
    """The trace as it is written."""
    yield trace.header_line(found.parameters, found.initial_ready)
    for tick in found.ticks:
        yield trace.tick_line(tick.t, tick.ready, tick.observation)


def decisions(*ticks: str, header: str = HEADER) -> list[dict[str, object]]:
    found = trace.parse([header, *ticks], "t.jsonl")
    return [json.loads(line) for line in replay.json_lines(replay.replay(found))]


def test_a_line_a_tick() -> None:
    found = decisions('{"t":0,"ready":1,"no_data":true}', "", '{"t":2.5,"ready":1,"stable":3,"panic":30}')
    assert [list(line) for line in found] == [
        ["t", "valid", "desired", "excess_burst_capacity", "reason"]
    ] * 2
    assert [list(line.values())[:4] for line in found] == [[0, False, 0, 0], [2.5, True, 5, -231]]
    assert found[0]["reason"] == "no data to scale on yet"


def test_all_parameters() -> None:
    values = {
        "target": 1, "total": 2, "max_scale_up_rate": 3, "max_scale_down_rate": 4, "panic_threshold": 5,
        "stable_window_s": 6.5, "scale_down_delay_s": 7, "target_burst_capacity": -1, "activation_scale": 8,
        "reachable": False, "initial_ready": 9,
    }  # fmt: skip
    found = trace.parse([json.dumps(values), '{"t":0,"ready":0,"no_data":true}'], "t")
    assert found.parameters == Parameters(1, 2, 3, 4, 5, 6_500_000_000, 7 * S, -1, 8, False)
    assert found.initial_ready == 9
    assert json.loads(next(lines_of(found))) == values


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        ([], ["t:1 there is no line with the parameters"]),
        ([HEADER], ["t:2 there is no observation"]),
        (
            ['{"target":0,"totl":1,"reachable":1}', "nope", "[1]", '{"t":1,"ready":1.5}'],
            [
                't:1 "totl" is not a key', "t:1 target = 0, must be a number greater than 0", "t:1 total is missing",
                "t:1 reachable = 1, must be true or false", "t:2 is not JSON: Expecting value at character 1",
                "t:3 is [1], must be a JSON object", "t:4 ready = 1.5, must be a whole number", "t:4 stable is missing",
                "t:4 panic is missing",
            ],
        ),
        (
            [
                HEADER, '{"t":2,"ready":1,"no_data":true}', '{"t":1,"ready":1,"no_data":true}',
                '{"ready":1,"no_data":true}',
            ],
            ["t:3 t = 1, must not be less than the 2 of a line before", "t:4 t is missing"],
        ),
        (
            [HEADER, '{"t":-1,"ready":-1,"stable":NaN,"panic":1}', '{"t":0,"ready":true,"stable":"1","panic":1e999}'],
            ["t:2 is not JSON that can be read: NaN", "t:3 ready = true", 't:3 stable = "1"', "t:3 panic = Infinity"],
        ),
        (['{"target":1e400,"total":1,"target_burst_capacity":-2}'], ["t:1 target", "t:1 target_burst_capacity = -2"]),
        ([HEADER, "[" * 100_000], ["t:2 is not JSON"]),
    ],
)  # fmt: skip
def test_all_problems_with_their_lines(lines: list[str], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        trace.parse(lines, "t")
    found = error.value.message.split("\n")
    assert len(found) == len(problems)
    for line, problem in zip(found, problems, strict=True):
        assert line.startswith(problem)


def test_a_file_of_nonsense_is_not_repeated_in_full() -> None:
    with pytest.raises(ConfigError, match="and 401 more"):
        trace.parse(["x"] * 500, "t")


def test_the_table_explains() -> None:
    found = trace.parse(
        [HEADER, '{"t":0,"ready":1,"no_data":true}', '{"t":2,"ready":1,"stable":3,"panic":30}'], "t"
    )
    lines = list(replay.table(found, replay.replay(found)))
    assert lines[0].startswith("target 7 of 10 a pod, stable window 1m0s, panic at 2 times the ready pods")
    assert lines[2].split() == ["t", "ready", "stable", "panic", "desired", "excess", "why"]
    assert lines[3].split()[:3] == ["0", "1", "-"] and "no decision: no data" in lines[3]
    assert "panic begins" in lines[4]
    assert lines[-1] == "2 ticks, 0 changes of the desired scale, at most 5 pods"


NUMBER = st.floats(0, 1e6, allow_nan=False) | st.integers(0, 10**6)
TICK = st.builds(
    lambda ready, stable, panic: Observation(ready, float(stable), float(panic)),
    st.integers(0, 99), NUMBER, NUMBER,
)  # fmt: skip


class Run:
    """A decider that runs on given observations, and hands over what it decides on."""

    def __init__(
        self, parameters: Parameters, begin_ns: int, observations: list[Observation | NoData]
    ) -> None:
        self._parameters, self._begin_ns, self._observations = parameters, begin_ns, observations
        self.made: list[int] = []

    def decisions(self) -> Iterator[record.Recorded]:
        state = start(self._parameters, 0, self._begin_ns)
        for number, observation in enumerate(self._observations):
            now_ns = self._begin_ns + number * 2 * S
            yield record.Recorded(self._parameters, state, observation, 1, now_ns)
            state, found = decide(self._parameters, state, observation, now_ns)
            self.made.append(found.desired if isinstance(found, Decision) else 0)


@given(
    st.lists(st.just(NoData()) | TICK, min_size=1, max_size=20),
    st.integers(0, 10**9),
    st.sampled_from([0, 5 * S]),
)
def test_a_recording_replays_as_it_was(
    observations: list[Observation | NoData], begin_s: int, delay_ns: int
) -> None:
    run = Run(Parameters(7, 10, scale_down_delay_ns=delay_ns), begin_s * S, observations)
    found = trace.parse(record.lines(run), "recorded")
    replayed = [json.loads(line)["desired"] for line in replay.json_lines(replay.replay(found))]
    assert replayed == run.made
    assert list(lines_of(trace.parse(lines_of(found), "again"))) == list(lines_of(found))


def test_a_recording_ends_where_the_parameters_change() -> None:
    class Changed(Run):
        def decisions(self) -> Iterator[record.Recorded]:
            yield from super().decisions()
            yield from Run(Parameters(1, 10), 90 * S, self._observations).decisions()

    observed: list[Observation | NoData] = [Observation(1, 1, 1)] * 3
    assert len(list(record.lines(Changed(Parameters(7, 10), 0, observed)))) == 4


@given(
    st.lists(
        st.text(max_size=30) | st.just(HEADER) | st.just('{"t":1,"ready":1,"stable":1,"panic":2}'), max_size=6
    )
)
def test_any_file_is_a_trace_or_refused(lines: list[str]) -> None:
    try:
        found = trace.parse(lines, "t")
    except ConfigError as error:
        assert error.message.startswith("t:")
    else:
        assert len(list(replay.replay(found))) == len(found.ticks) > 0

"""The state's text in the annotation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.rollout import record
from glowplug.rollout.evidence import Evidence, Histogram, Moments, Sample
from glowplug.rollout.state import Member, News, Phase, State
from glowplug.rollout.verdict import GateResult, Outcome, Verdict

TEXT = st.text(max_size=12)
COUNT = st.integers(0, 10**12)
NUMBER = st.floats(0, 1e12)
MOMENT = st.integers(0, 2 * 10**12).map(lambda ms: ms / 1000)
GATE = st.builds(
    GateResult,
    TEXT,
    st.sampled_from(Outcome),
    TEXT,
    st.none() | NUMBER,
    requests=COUNT,
    needed=st.none() | COUNT,
)
VERDICT = st.builds(
    Verdict, st.sampled_from(Outcome), TEXT, st.lists(GATE, max_size=3).map(tuple), st.booleans()
)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    bounds = tuple(sorted(draw(st.sets(st.floats(0.001, 60), max_size=5))))
    counts = draw(st.lists(COUNT, min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    loss = draw(st.builds(Moments, COUNT, NUMBER, NUMBER))
    return Sample(draw(COUNT), draw(COUNT), Histogram(bounds, tuple(counts)), loss)


STATE = st.builds(
    State,
    phase=st.sampled_from(Phase),
    members=st.dictionaries(TEXT, st.builds(Member, TEXT, TEXT, TEXT), max_size=2),
    weight=st.none() | st.integers(0, 100),
    since=MOMENT,
    started=MOMENT,
    is_paused=st.booleans(),
    hold=TEXT,
    verdict=st.none() | VERDICT,
    evidence=st.dictionaries(TEXT, st.builds(Evidence, samples(), samples()), max_size=2),
    news=st.lists(st.builds(News, TEXT, TEXT, TEXT, st.booleans(), TEXT), max_size=3).map(tuple),
    told=COUNT,
)


@given(STATE)
def test_what_is_written_is_read_back(state: State) -> None:
    assert record.load(record.dump(state)) == state


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", "nonsense", '{"v":2}', '{"v":1,"phase":"Flying"}', "[" * 5000]
)
def test_what_cannot_be_read_is_none(text: str | None) -> None:
    assert record.load(text) is None


@given(STATE, st.data())
def test_a_broken_text_is_none_or_a_state(state: State, data: st.DataObject) -> None:
    found = json.loads(record.dump(state))
    key = data.draw(st.sampled_from(sorted(found)))
    found[key] = data.draw(st.sampled_from([None, "x", -1, [], {}, {"predictor": [1]}, float("nan")]))
    read = record.load(json.dumps(found))
    assert read is None or isinstance(read, State)


def test_it_is_small() -> None:
    latency = Histogram(tuple(0.001 * 1.3**i for i in range(30)), (123456,) * 31)
    sample = Sample(10**6, 10**4, latency)
    gates = tuple(GateResult(f"p{i}<=1.1x", Outcome.PASS, "x" * 120, 0.01, 0.01, 0.011) for i in range(4))
    state = State(
        Phase.PROGRESSING,
        {"predictor": Member("f-predictor-00001", "f-predictor-00001", "f-predictor-00002")},
        verdict=Verdict(Outcome.PASS, "y" * 400, gates),
        evidence={"predictor": Evidence(sample, sample)},
    )
    assert len(record.dump(state)) < 8000

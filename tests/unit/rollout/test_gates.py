"""What gates may be written, and what is said of those that may not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug.rollout.gates import (
    DEFAULT_GATES,
    Form,
    Gate,
    metrics_of,
    parse_gates,
    without_source,
)


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("errors<=+0.5%", Gate("errors<=+0.5%", "errors", Form.MARGIN, 0.005)),
        ("errors<=2%", Gate("errors<=2%", "errors", Form.CEILING, 0.02)),
        ("p99<=1.2x", Gate("p99<=1.2x", "latency", Form.RATIO, 1.2, 0.99)),
        (" p99.9 <= +20ms ", Gate("p99.9<=+20ms", "latency", Form.MARGIN, 0.02, 0.999)),
        ("p50<=0.25s", Gate("p50<=0.25s", "latency", Form.CEILING, 0.25, 0.5)),
        ("loss<=1.05x", Gate("loss<=1.05x", "loss", Form.RATIO, 1.05)),
        ("loss<=+0.1", Gate("loss<=+0.1", "loss", Form.MARGIN, 0.1)),
        ("loss<=0.3", Gate("loss<=0.3", "loss", Form.CEILING, 0.3)),
    ],
)
def test_what_is_written_is_read(text: str, gate: Gate) -> None:
    (found,) = parse_gates(text)
    assert found == Gate(
        gate.text, gate.metric, gate.form, pytest.approx(gate.limit), pytest.approx(gate.quantile)
    )


def test_the_defaults_are_gates_in_order() -> None:
    assert [gate.text for gate in parse_gates(DEFAULT_GATES)] == DEFAULT_GATES.split(", ")
    assert metrics_of(parse_gates(DEFAULT_GATES)) == {"errors", "latency"}


def test_all_problems_are_told_at_once_with_their_place() -> None:
    text = "errors<=1.5x, p99<=1.2x,latency<=3, p99<=1.5x, p50<=0.9x, , loss<=3%"
    with pytest.raises(ConfigError) as caught:
        parse_gates(text)
    message = caught.value.message
    places = [int(found) for found in re.findall(r"at position (\d+)", message)]
    assert places == [1, 25, 37, 48, 58, 61]
    for place, word in zip(places, ("errors", "latency", "p99<=1.5x", "p50", "", "loss"), strict=True):
        assert text[place - 1 :].startswith(word)
    assert "there is such a gate before it" in message
    assert "errors<=+0.5%" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "errors", "errors<1%", "errors<=0%", "errors<=100%", "p100<=1.2x", "p0<=1.2x", "p99<=1x", "p99<=+1.2x",
             "p99<=0ms", "p99<=5", "loss<=0", "loss<=1.05ms", "errors<=-1%", "errors<=1e9%", "p99<=1.2x;p50<=2x"],
)  # fmt: skip
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_gates(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        gates = parse_gates(text)
    except ConfigError as error:
        assert "at position" in error.message
    else:
        assert parse_gates(", ".join(gate.text for gate in gates)) == gates


@given(st.floats(0.001, 10), st.floats(0, 10))
def test_a_gate_allows_at_least_what_the_stable_revision_has(limit: float, stable: float) -> None:
    assert Gate("", "latency", Form.RATIO, 1 + limit, 0.99).bound(stable) >= stable + 0.005 - 1e-9
    assert Gate("", "errors", Form.MARGIN, limit).bound(stable) > stable
    assert Gate("", "latency", Form.CEILING, limit, 0.99).bound(stable) == limit


def test_gates_that_nobody_measures_are_named() -> None:
    gates = parse_gates("errors<=+1%, loss<=1.05x")
    assert without_source(gates, frozenset({"errors", "latency", "loss"})) == ""
    told = without_source(gates, frozenset({"errors", "latency"}))
    assert "loss<=1.05x" in told
    assert "errors<=+1%" not in told
    assert "the source measures errors, latency" in told

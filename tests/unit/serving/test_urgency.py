"""Priority and deadline, from parameters, headers and gRPC."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import InferenceError
from glowplug.serving.urgency import DEFAULT_PRIORITY, TIMEOUT_HEADER, Urgency, header_limit_s, read_urgency


@pytest.mark.parametrize(
    ("parameters", "limit_s", "expected"),
    [
        ({}, None, Urgency()),
        ({"other": "x"}, None, Urgency()),
        ({"timeout": 0, "priority": 0}, None, Urgency(DEFAULT_PRIORITY, None)),
        ({"timeout": 500_000}, None, Urgency(deadline=100.5)),
        ({"timeout": 500_000}, 2.0, Urgency(deadline=100.5)),
        ({"timeout": 500_000}, 0.25, Urgency(deadline=100.25)),
        ({"priority": 1}, 0.0, Urgency(1, 100.0)),
    ],
)
def test_the_shortest_limit_counts(parameters: Any, limit_s: float | None, expected: Urgency) -> None:
    assert read_urgency(parameters, limit_s, 100.0) == expected


@pytest.mark.parametrize("value", [-1, 1.5, True, "5", 2**63])
@pytest.mark.parametrize("name", ["timeout", "priority"])
def test_anything_but_a_whole_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InferenceError, match=f"parameter '{name}' is not a whole number") as caught:
        read_urgency({name: value}, None, 0)
    assert caught.value.code == 400


@given(text=st.text(max_size=20))
def test_headers_are_read_or_refused(text: str) -> None:
    try:
        limit_s = header_limit_s({TIMEOUT_HEADER: text})
    except InferenceError as error:
        assert error.code == 400
    else:
        assert limit_s is None or limit_s > 0


def test_envoys_header_is_in_milliseconds() -> None:
    assert header_limit_s({TIMEOUT_HEADER: "1500"}) == 1.5
    assert header_limit_s({TIMEOUT_HEADER: "0"}) is None
    assert header_limit_s({}) is None

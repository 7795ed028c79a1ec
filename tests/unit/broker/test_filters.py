"""Filters as functions of an event's attributes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.broker.filters import compiled
from glowplug.spec.cesql import SqlProblem
from glowplug.spec.eventing import Filter, parse_filter

EVENT = {"type": "order.placed", "source": "/shop/berlin", "count": 4, "sampled": True}


@pytest.mark.parametrize(
    ("filter", "passes"),
    [
        ({}, True),
        ({"exact": {"type": "order.placed", "source": "/shop/berlin"}}, True),
        ({"exact": {"type": "order.placed", "source": "/shop"}}, False),
        ({"exact": {"subject": "x"}}, False),
        ({"exact": {"count": "4", "sampled": "true"}}, True),
        ({"prefix": {"type": "order.", "source": "/"}}, True),
        ({"prefix": {"type": "Order."}}, False),
        ({"suffix": {"source": "berlin"}}, True),
        ({"suffix": {"source": "shop"}}, False),
        ({"all": [{"prefix": {"type": "order"}}, {"exact": {"count": "4"}}]}, True),
        ({"all": [{"prefix": {"type": "order"}}, {"exact": {"count": "5"}}]}, False),
        ({"any": [{"prefix": {"type": "x"}}, {"exact": {"count": "4"}}]}, True),
        ({"any": [{"prefix": {"type": "x"}}, {"exact": {"count": "5"}}]}, False),
        ({"not": {"exact": {"type": "order.placed"}}}, False),
        ({"not": {"exact": {"type": "order.paid"}}}, True),
        # What filters nothing lets everything pass, negated too.
        ({"not": {}}, True),
        ({"any": [{"exact": {"type": "x"}}, {}]}, True),
        ({"all": [{}, {"exact": {"type": "x"}}]}, False),
        ({"cesql": "count > 3 AND sampled"}, True),
        ({"cesql": "subject = 'x'"}, False),
        ({"not": {"cesql": "subject = 'x'"}}, True),
    ],
)
def test_filters(filter: dict[str, Any], passes: bool) -> None:
    assert compiled(parse_filter(filter))(EVENT) is passes


def test_what_does_not_parse() -> None:
    with pytest.raises(SqlProblem, match="at character 8"):
        compiled(Filter(cesql="type = "))


_leaves = st.sampled_from([{"exact": {"type": "a"}}, {"prefix": {"type": "b"}}, {"suffix": {"source": "c"}}])
_filters = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(lambda each: {"not": each}, inner),
        st.builds(lambda each: {"all": each}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda each: {"any": each}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


def _holds(filter: dict[str, Any], event: dict[str, str]) -> bool:
    ((name, inner),) = filter.items()
    if name == "not":
        return not _holds(inner, event)
    if name in ("all", "any"):
        return (all if name == "all" else any)(_holds(each, event) for each in inner)
    ((attribute, value),) = inner.items()
    return {"exact": str.__eq__, "prefix": str.startswith, "suffix": str.endswith}[name](
        event[attribute], value
    )


@given(_filters, st.text("abc", max_size=3), st.text("abc", max_size=3))
def test_nested_filters_are_boolean_algebra(filter: dict[str, Any], type: str, source: str) -> None:
    event = {"type": type, "source": source}
    assert compiled(parse_filter(filter))(event) is _holds(filter, event)

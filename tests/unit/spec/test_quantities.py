from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec.quantities import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"), ("2", "2"), ("1.5Gi", "1610612736"), (".5", "0.5"), ("5.", "5"), ("1e3", "1000"),
        ("1E", "1e18"), ("1Ei", str(2**60)), ("-1k", "-1000"), ("+3u", "0.000003"), (4, "4"), (0.25, "0.25"),
    ],
)  # fmt: skip
def test_amounts(text: object, value: str) -> None:
    assert parse(text) == Decimal(value)


@pytest.mark.parametrize(
    "text", ["", "Gi", "1GB", "1 Gi", "1g", "0x10", "1e", "--1", "½", True, None, [], "1" * 99]
)
def test_what_is_no_amount(text: object) -> None:
    assert parse(text) is None


@given(st.text(max_size=20))
def test_any_text_is_an_amount_or_none(text: str) -> None:
    assert parse(text) is None or isinstance(parse(text), Decimal)


@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Ei"]),
)
def test_order_of_numbers_is_order_of_amounts(number: int, suffix: str) -> None:
    smaller, larger = parse(f"{number}{suffix}"), parse(f"{number + 1}{suffix}")
    assert smaller is not None
    assert larger is not None
    assert smaller < larger

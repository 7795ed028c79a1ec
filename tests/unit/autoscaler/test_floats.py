from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.autoscaler import floats

NAN, INF = math.nan, math.inf
ANY = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(
    ("number", "cut"), [(2.9, 2), (-2.9, -2), (2.0**31, -(2**31)), (NAN, -(2**31)), (INF, -(2**31))]
)
def test_what_does_not_fit_32_bits_is_the_smallest(number: float, cut: int) -> None:
    assert floats.to_int32(number) == cut


def test_what_does_not_fit_64_bits() -> None:
    assert (floats.to_int64(1.9), floats.to_int64(1e30), floats.to_int64(NAN)) == (1, -(2**63), -(2**63))


def test_division_raises_nothing() -> None:
    assert (floats.divide(1, 0.0), floats.divide(1, -0.0), floats.divide(-1, 0.0)) == (INF, -INF, -INF)
    assert math.isnan(floats.divide(0, 0.0))


def test_nan_wins_over_all_but_one_infinity() -> None:
    assert math.isnan(floats.maximum(NAN, 1)) and math.isnan(floats.minimum(1, NAN))
    assert (floats.maximum(NAN, INF), floats.minimum(-INF, NAN)) == (INF, -INF)


def test_halves_are_rounded_away_from_zero() -> None:
    assert [floats.to_sixth_digit(n) for n in (0.0000005, -0.0000005, 0.00000049, 1 / 3)] == [
        1e-6,
        -1e-6,
        0.0,
        0.333333,
    ]


@given(ANY, ANY)
def test_no_number_raises(a: float, b: float) -> None:
    for found in (
        floats.ceil(a),
        floats.floor(a),
        floats.maximum(a, b),
        floats.minimum(a, b),
        floats.divide(a, b),
    ):
        assert isinstance(found, float)
    assert isinstance(floats.to_sixth_digit(a), float)
    assert -(2**31) <= floats.to_int32(a) < 2**31


@given(st.floats(min_value=0, max_value=1), st.floats(min_value=0, max_value=4000))
def test_powers(base: float, exponent: float) -> None:
    assert floats.power(base, exponent) == pytest.approx(math.pow(base, exponent), rel=1e-9, abs=1e-300)

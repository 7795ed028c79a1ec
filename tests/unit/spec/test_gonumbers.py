from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec.gonumbers import (
    GoValueError,
    duration_text,
    fixed_text,
    float_text,
    parse_bool,
    parse_duration,
    parse_float,
    parse_int,
    quoted,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1), ("1_000", 1000), ("0x1p4", 16), ("0x_8p0", 8), (".5", 0.5), ("5.", 5), ("-Inf", -math.inf),
        ("+1e3", 1000),
    ],
)  # fmt: skip
def test_floats(text: str, number: float) -> None:
    assert parse_float(text) == number


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1__0", "_1", "1_", "0x1", "٣", "+nan", "1e", "infinit", "1e999"]
)
def test_no_floats(text: str) -> None:
    with pytest.raises(GoValueError, match=r"strconv\.ParseFloat: parsing"):
        parse_float(text)


def test_nan_is_a_float() -> None:
    assert math.isnan(parse_float("NaN"))


def test_an_integer_too_large_is_another_error_than_none() -> None:
    assert (parse_int("-2147483648"), parse_int("+7")) == (-(2**31), 7)
    with pytest.raises(GoValueError, match="value out of range") as error:
        parse_int("2147483648")
    assert error.value.is_range
    with pytest.raises(GoValueError, match=r'strconv\.ParseInt: parsing "7\.0": invalid syntax') as error:
        parse_int("7.0")
    assert not error.value.is_range
    with pytest.raises(GoValueError, match="out of range"):
        parse_int("9" * 10_000)


def test_truth_values() -> None:
    assert (parse_bool("T"), parse_bool("0")) == (True, False)
    with pytest.raises(GoValueError, match=r'strconv\.ParseBool: parsing "yes": invalid syntax'):
        parse_bool("yes")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1h30m", 5400 * 10**9), ("-1.5s", -1_500_000_000), ("0", 0), ("+0", 0), ("2ms3us", 2_003_000),
        (".5s", 500_000_000), ("1µs", 1000), ("-9223372036854775808ns", -(2**63)),
    ],
)  # fmt: skip
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", 'time: invalid duration ""'), ("1", 'time: missing unit in duration "1"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'), ("s", 'time: invalid duration "s"'),
        ("9223372036854775808ns", "invalid duration"), ("1ß", 'unknown unit "\\xc3\\x9f" in duration "1\\xc3\\x9f"'),
        ("99999999999999999999999s", "invalid duration"),
    ],
)  # fmt: skip
def test_no_durations(text: str, why: str) -> None:
    with pytest.raises(GoValueError) as error:
        parse_duration(text)
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"), (3600 * 10**9, "1h0m0s"), (90 * 10**9, "1m30s"), (1_500_000_000, "1.5s"), (-2_000_000, "-2ms"),
        (1500, "1.5µs"), (7, "7ns"), (60_500_000_000, "1m0.5s"),
    ],
)  # fmt: skip
def test_durations_are_written(ns: int, text: str) -> None:
    assert duration_text(ns) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (100.0, "100"), (0.01, "0.01"), (1e6, "1e+06"), (123456789.0, "1.23456789e+08"), (0.00001, "1e-05"),
        (-0.0, "-0"), (math.nan, "NaN"), (math.inf, "+Inf"), (123456.5, "123456.5"), (0.7, "0.7"),
    ],
)  # fmt: skip
def test_floats_are_written(number: float, text: str) -> None:
    assert float_text(number) == text


def test_six_digits_and_quotes() -> None:
    assert (fixed_text(-2), fixed_text(math.inf)) == ("-2.000000", "+Inf")
    assert quoted('a"\n\x00é\u200b\U000e0001') == '"a\\"\\n\\x00é\\u200b\\U000e0001"'


@given(st.floats(allow_nan=False))
def test_a_float_is_read_as_it_is_written(number: float) -> None:
    assert parse_float(float_text(number)) == number


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_a_duration_is_read_as_it_is_written(ns: int) -> None:
    read = parse_duration(duration_text(ns))
    # Go itself reads fractions of a second in floating point and may cut a nanosecond off.
    assert abs(read - ns) <= 1


@given(st.text(max_size=12) | st.text("0123456789._-+xpeshmnuµ", max_size=12))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    for parse in (parse_float, parse_int, parse_bool, parse_duration):
        try:
            parse(text)
        except GoValueError as error:
            assert str(error)

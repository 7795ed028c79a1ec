"""CloudEvents SQL as a filter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.spec.cesql import SqlProblem, compile_filter
from glowplug.spec.cesql.values import like

EVENT = {
    "specversion": "1.0", "id": "7", "source": "/shop/berlin", "type": "dev.shop.order.placed",
    "subject": "it's new", "sequence": "10", "hop": "3", "urgent": "TRUE", "count": 4, "sampled": True,
}  # fmt: skip


@pytest.mark.parametrize(
    "expression",
    [
        "type = 'dev.shop.order.placed'",
        'source LIKE "/shop/%" AND NOT (hop > 3)',
        "subject = 'it\\'s new'",
        "sequence = 10",
        "sequence <> '010' and int(sequence) = +10",
        "hop < sequence",
        "EXISTS subject AND NOT EXISTS traceparent",
        "hop IN (1, 2, '3')",
        "hop NOT IN ('03', 'x')",
        "urgent = TRUE",
        "sampled AND count * 2 - 1 = 7",
        "-7 / 2 = -3 AND -7 % 2 = -1",
        "2 + 3 * 4 = 14",
        "length(source) = 12 AND UPPER(LEFT(type, 3)) = 'DEV'",
        "RIGHT(source, 6) = 'berlin' AND SUBSTRING(source, 2, 4) = 'shop'",
        "SUBSTRING(source, -6) = 'berlin'",
        "CONCAT_WS('-', id, hop) = '7-3' AND CONCAT(id, hop) = '73'",
        "ABS(-5) = 5 AND TRIM('  a ') = 'a'",
        "IS_INT(sequence) AND NOT IS_INT(type) AND IS_BOOL(urgent)",
        "TRUE XOR FALSE",
        # Read from the right, and the left side decides.
        "TRUE OR missing = 'x'",
        "NOT (FALSE AND missing = 'x')",
        "type NOT LIKE '_ev' AND 'a%b' LIKE 'a\\%_'",
    ],
)
def test_what_holds_passes_and_its_contrary_does_not(expression: str) -> None:
    assert compile_filter(expression)(EVENT)
    assert not compile_filter(f"NOT ({expression})")(EVENT)


@pytest.mark.parametrize(
    "expression",
    [
        "missing = ''",
        "missing <> 'x'",
        "NOT missing",
        "1 / 0 = 0",
        "1 % 0 = 0",
        "type > 3",
        "type AND TRUE",
        "2147483647 + 1 > 0",
        "ABS(-2147483648) > 0",
        "LEFT(id, -1) = ''",
        "SUBSTRING(id, 5) = ''",
        "3",
        "'true'",
    ],
)
def test_what_errs_or_is_no_boolean_does_not_pass_and_nor_does_its_contrary(expression: str) -> None:
    assert not compile_filter(expression)(EVENT)


@pytest.mark.parametrize(
    ("expression", "position", "why"),
    [
        ("type = ", 8, "found the end"),
        ("type == 'a'", 7, "found '='"),
        ("type = 'a", 8, "a string without an end"),
        ("(type = 'a'", 12, "expected ')'"),
        ("type LIKE source", 11, "a pattern in quotes"),
        ("hop IN ()", 9, "found ')'"),
        ("hop NOT = 3", 9, "LIKE or IN after NOT"),
        ("SHOUT(type)", 1, "there is no function SHOUT"),
        ("LEFT(type)", 1, "LEFT takes 2 arguments, found 1"),
        ("type ! 'a'", 6, "means nothing here"),
        ("9999999999 = 1", 1, "out of the range"),
        ("a_b = 1", 1, "is no attribute"),
        ("type 'a'", 6, "an operator or the end"),
        ("", 1, "found the end"),
    ],
)
def test_what_does_not_parse_is_refused_with_its_place(expression: str, position: int, why: str) -> None:
    with pytest.raises(SqlProblem) as refused:
        compile_filter(expression)
    assert why in str(refused.value)
    assert str(refused.value).startswith(f"at character {position}: ")


def test_depth_and_length_are_bounded() -> None:
    in_a_row = "+".join("1" * 2000)
    for expression in ("(" * 5000 + "TRUE", "NOT " * 900 + "TRUE", "x" * 5000, in_a_row):
        with pytest.raises(SqlProblem):
            compile_filter(expression)


def test_what_is_just_within_the_bounds_can_be_evaluated() -> None:
    added = "+".join("1" * 150)
    assert compile_filter("ABS(" * 90 + added + ")" * 90 + " = 150")(EVENT)
    assert compile_filter("hop" + " NOT IN (TRUE)" * 200)({"hop": True}) in (True, False)


PATTERNS = st.lists(st.sampled_from(["a", "b", "%", "_", "\\%", "\\_", "\\"]), max_size=8).map("".join)


@given(PATTERNS, st.text("ab%_\\", max_size=8))
def test_like_is_what_its_definition_says(pattern: str, text: str) -> None:
    def holds(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "%":
            return any(holds(pattern[1:], text[n:]) for n in range(len(text) + 1))
        if pattern[:2] in ("\\%", "\\_"):
            pattern = pattern[1:]
        elif pattern[0] == "_":
            return bool(text) and holds(pattern[1:], text[1:])
        return text[:1] == pattern[0] and holds(pattern[1:], text[1:])

    assert like(pattern)(text) is holds(pattern, text)


def test_a_pattern_is_not_tried_in_every_way() -> None:
    # As one regular expression this takes longer than anybody waits.
    assert not compile_filter(f"subject LIKE '{'%a' * 50}%b'")({"subject": "a" * 100_000})


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_problem(text: str) -> None:
    try:
        passes = compile_filter(text)
    except SqlProblem as problem:
        assert 0 <= problem.position <= len(text)
        return
    assert passes(EVENT) in (True, False)


WORDS = st.sampled_from(
    [
        "type",
        "hop",
        "'a'",
        "3",
        "TRUE",
        "(",
        ")",
        "=",
        "<",
        "AND",
        "OR",
        "NOT",
        "LIKE",
        "IN",
        "EXISTS",
        "-",
        "*",
    ]
)


@given(st.lists(WORDS, max_size=12).map(" ".join))
def test_words_in_any_order_are_a_filter_or_a_problem(text: str) -> None:
    test_any_text_is_a_filter_or_a_problem.hypothesis.inner_test(text)

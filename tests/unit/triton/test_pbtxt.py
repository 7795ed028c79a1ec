"""Protobuf's text form: what is written is read back, whatever it holds, and what is wrong is named with its line."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import ConfigError
from glowplug.triton.pbtxt import Word, parse, without_empty, write

names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
words = st.from_regex(r"KIND_[A-Z]{1,5}", fullmatch=True).map(Word)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
scalars = st.one_of(st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False), texts, words)
messages: Any = st.recursive(
    st.dictionaries(names, st.lists(scalars, min_size=1, max_size=3), max_size=3),
    lambda inner: st.dictionaries(
        names,
        st.one_of(st.lists(scalars, min_size=1, max_size=3), st.lists(inner, min_size=1, max_size=2)),
        max_size=3,
    ),
    max_leaves=8,
)


@given(messages)
def test_what_is_written_is_read_back(message: Any) -> None:
    found = parse(write(message), "m")
    assert found == without_empty(message)
    assert write(found) == write(message), "words stay words, and texts texts"


@given(st.text(max_size=60))
def test_any_text_is_a_message_or_a_config_error(text: str) -> None:
    try:
        parse(text, "m")
    except ConfigError as error:
        assert error.message.startswith("m:")


def test_the_forms_that_people_write() -> None:
    text = """
    # a comment
    name: 'a' "b\\x63\\144\\n"; backend : "python"
    max_batch_size: 0x10, input [ { name: "x" dims: [ 1, -1 ] }, < name: "y" data_type: TYPE_FP32 > ]
    instance_group { kind: KIND_GPU count: 010 } rate: -1.5e2f small: .5 on: true
    empty [] output: { } more: -inf
    """
    assert parse(text, "m") == {
        "name": ["abcd\n"],
        "backend": ["python"],
        "max_batch_size": [16],
        "input": [{"name": ["x"], "dims": [1, -1]}, {"name": ["y"], "data_type": ["TYPE_FP32"]}],
        "instance_group": [{"kind": ["KIND_GPU"], "count": [8]}],
        "rate": [-150.0],
        "small": [0.5],
        "on": [True],
        "empty": [],
        "output": [{}],
        "more": [-math.inf],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb {", "m:2 it ends inside a message or a list"),
        ("a: [1,", "it ends inside a message or a list"),
        ("a: 1 }", "m:1 found }, expected a field's name"),
        ("\n\na 1", "m:3 found 1, expected : or { after a"),
        ("a: [1 2]", "found 2, expected , or ] in a list"),
        ("a: :", "found :, expected a value"),
        ("a:", "expected a value"),
        ("a: ?", "unexpected '?'"),
        ('a: "\\xff"', "a string is not UTF-8"),
        ("a { " * 40, "nested deeper than 32"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"^m:") as caught:
        parse(text, "m")
    assert said in caught.value.message

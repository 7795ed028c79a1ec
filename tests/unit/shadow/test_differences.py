"""Values that differ, and those that only look so."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.shadow.differences import Apart, Tolerance, between_json, between_tensors
from glowplug.wire.tensors import Tensor

EXACT = Tolerance(0.0, 0.0)
USUAL = Tolerance(1e-4, 1e-6)
FLOATS = st.lists(st.floats(width=32), min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def tensor(values: list[float], name: str = "y", dtype: type = np.float32) -> Tensor:
    return Tensor.from_numpy(name, np.array(values, dtype))


def between(a: list[float], b: list[float], tolerance: Tolerance = USUAL) -> Apart:
    return between_tensors([tensor(a)], [tensor(b)], tolerance)


@given(FLOATS)
def test_a_tensor_is_no_distance_from_itself(values: list[float]) -> None:
    assert between(values, values, EXACT) == Apart()


@given(FLOATS, FLOATS)
def test_which_comes_first_does_not_matter_to_the_distance(a: list[float], b: list[float]) -> None:
    assert between(a, b).distance == between(b, a).distance


@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=20), st.data())
def test_close_is_what_numpy_calls_close(values: list[float], data: st.DataObject) -> None:
    factor = data.draw(st.sampled_from([1.0, 1 + 1e-6, 1 + 9e-5, 1 + 2e-4, 2.0, -1.0]))
    a = np.array(values, np.float32)
    b = (a * np.float32(factor)).astype(np.float32)
    apart = between(list(a), list(b))
    x, y = a.astype(np.float64), b.astype(np.float64)
    assert (apart.what == "") is bool(np.all(np.abs(x - y) <= 1e-6 + 1e-4 * np.abs(x)))


def test_not_a_number_is_close_to_itself_and_to_nothing_else() -> None:
    assert between([math.nan, math.inf], [math.nan, math.inf]) == Apart()
    assert between([math.nan], [1.0]).what == "output y[0]: nan and 1.0"
    assert between([math.inf], [-math.inf]).distance == math.inf


def test_the_distance_is_relative_to_the_largest() -> None:
    assert between([100.0, 1.0], [100.0, 2.0]).distance == pytest.approx(0.01)
    assert between([0.0], [0.0]).distance == 0


def test_the_worst_element_is_named() -> None:
    assert between([1.0, 2.0, 3.0], [1.1, 5.0, 3.0]).what == "output y[1]: 2.0 and 5.0"


def test_whole_numbers_are_equal_or_not() -> None:
    a, b = tensor([100_000_000], dtype=np.int64), tensor([100_000_001], dtype=np.int64)
    assert between_tensors([a], [b], USUAL).what == "output y[0]: 100000000 and 100000001"
    # To a float these two are the same.
    c, d = tensor([2**53], dtype=np.int64), tensor([2**53 + 1], dtype=np.int64)
    assert between_tensors([c], [d], USUAL).what == "output y[0]: 9007199254740992 and 9007199254740993"


def test_shapes_types_and_names_have_to_agree() -> None:
    assert between([1.0], [1.0, 2.0]).what == "output y: FP32[1] and FP32[2]"
    other = tensor([1.0], dtype=np.float64)
    assert between_tensors([tensor([1.0])], [other], USUAL).what == "output y: FP32[1] and FP64[1]"
    assert between_tensors([tensor([1.0])], [tensor([1.0], "z")], USUAL).what == "outputs y and z"


def test_the_order_of_outputs_is_no_difference() -> None:
    a, b = tensor([1.0], "a"), tensor([2.0], "b")
    assert between_tensors([a, b], [b, a], USUAL) == Apart()


def test_texts_are_told_apart_and_not_shown() -> None:
    a, b = (Tensor.from_strings("y", ["same", word]) for word in ("secret", "hidden"))
    assert between_tensors([a], [b], USUAL).what == "output y[1] is another text"


@given(JSON)
def test_a_document_is_no_distance_from_itself(document: object) -> None:
    assert between_json(document, document, EXACT).what == ""


@given(JSON, JSON)
def test_any_two_documents_can_be_compared_both_ways(a: object, b: object) -> None:
    to, fro = (between_json(*pair, EXACT) for pair in ((a, b), (b, a)))
    assert to.distance == fro.distance >= 0
    assert bool(to.what) is bool(fro.what)


def test_numbers_of_a_v1_answer() -> None:
    a, b = {"predictions": [[1, 2.0], [3.0, 4.0]]}, {"predictions": [[1.00001, 2.0], [3.0, 4.0]]}
    assert between_json(a, b, USUAL).what == ""
    assert between_json(a, b, USUAL).distance == pytest.approx(5e-6, rel=0.01)
    b["predictions"][1][0] = 3.5
    assert between_json(a, b, USUAL).what == "predictions[1][0]: 3.0 and 3.5"


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        ({"x": 1}, {"y": 1}, "the answer: only one has x, y"),
        ({"x": [1, 2]}, {"x": [1]}, "x: 2 and 1 elements"),
        ({"x": {"y": True}}, {"x": {"y": 1}}, "x.y: True and a number"),
        ({"x": None}, {"x": 1.5}, "x: None and a number"),
        ({"x": ["a"]}, {"x": ["b"]}, "x[0] is another text"),
        ([], {}, "the answer: an array and an object"),
    ],
)
def test_what_differs_is_named(a: object, b: object, what: str) -> None:
    assert between_json(a, b, USUAL).what == what


def test_what_only_names_the_answer_is_left_out() -> None:
    a, b = {"id": "1", "x": {"id": 1}}, {"id": "2", "x": {"id": 1}}
    assert between_json(a, b, USUAL, frozenset({"id"})) == Apart()
    b["x"] = {"id": 2}
    assert between_json(a, b, USUAL, frozenset({"id"})).what

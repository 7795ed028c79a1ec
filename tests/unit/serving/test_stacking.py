"""Requests stacked and cut again are themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.serving.stacking import kind, row_count, stack, unstack
from glowplug.wire import InferRequest, InferResponse, RequestedOutput, Tensor


def tensor(rows: int, value: float = 0, **more: Any) -> Tensor:
    array = np.full((rows, 2), value, dtype=more.pop("dtype", np.float32))
    made = Tensor.from_numpy(more.pop("name", "x"), array)
    return Tensor(made.name, made.datatype, made.shape, made.data, more)


def ask(*inputs: Tensor, **more: Any) -> InferRequest:
    return InferRequest("m", inputs, **more)


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_every_request_gets_its_own_rows_back(counts: list[int]) -> None:
    requests = [
        ask(
            tensor(rows, index),
            Tensor.from_strings("s", [f"{index}.{item}" for item in range(rows * 3)], (rows, 3)),
            id=str(index),
        )
        for index, rows in enumerate(counts)
    ]
    assert len({kind(request) for request in requests}) == 1
    whole = stack(requests)
    assert whole.input("x").shape == (sum(counts), 2)
    assert whole.id == ""
    parts = unstack(InferResponse("m", whole.inputs), [row_count(request) for request in requests])
    for request, part in zip(requests, parts, strict=True):
        np.testing.assert_array_equal(part.output("x").data, request.input("x").data)
        assert part.output("x").shape == request.input("x").shape
        assert part.output("s").data == request.input("s").data
        assert part.output("s").shape == request.input("s").shape


SAME = ask(tensor(1))


@pytest.mark.parametrize(
    "other",
    [
        ask(tensor(1, name="y")),
        ask(tensor(1, dtype=np.float64)),
        ask(Tensor.from_numpy("x", np.zeros((1, 3), dtype=np.float32))),
        ask(Tensor.from_numpy("x", np.zeros((1, 2, 1), dtype=np.float32))),
        ask(tensor(1, unit="m")),
        ask(tensor(1), tensor(1, name="y")),
        ask(tensor(1), parameters={"temperature": 1}),
        ask(tensor(1), outputs=(RequestedOutput("y"),)),
        ask(tensor(1), model_version="2"),
    ],
)
def test_what_differs_stays_apart(other: InferRequest) -> None:
    assert kind(other) != kind(SAME)


def test_true_is_not_one() -> None:
    kinds = {kind(ask(tensor(1), parameters={"flag": value})) for value in (1, True, 1.0, "1")}
    assert len(kinds) == 4


@pytest.mark.parametrize(
    "other",
    [
        ask(tensor(7)),
        ask(tensor(1), id="9", is_raw=True),
        ask(tensor(1), parameters={"timeout": 5, "priority": 1, "binary_data_output": True}),
    ],
)
def test_what_the_model_does_not_see_does_not_matter(other: InferRequest) -> None:
    assert kind(other) == kind(SAME)
    assert stack([other, SAME]).parameters == {}


@pytest.mark.parametrize(
    "request_",
    [ask(), ask(Tensor.from_numpy("x", np.float32(1))), ask(tensor(1), tensor(2, name="y"))],
)
def test_what_has_no_rows_is_of_no_kind(request_: InferRequest) -> None:
    assert kind(request_) is None


@pytest.mark.parametrize("shape", [(), (3,), (1, 2)])
def test_answers_that_are_not_row_wise_are_refused(shape: Any) -> None:
    output = Tensor.from_numpy("y", np.zeros(shape, dtype=np.float32))
    with pytest.raises(ValueError, match="answers a row with a row"):
        unstack(InferResponse("m", (output,)), [1, 1])

"""V1: rows, objects and columns to tensors, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import InferenceError
from glowplug.wire import InferResponse, Tensor, v1, v2_json
from glowplug.wire.v2_grpc import TensorMetadata

ROWS = (TensorMetadata("x", "FP32", (-1, 2)),)
COLUMNS = (TensorMetadata("a", "FP32", (-1,)), TensorMetadata("b", "BYTES", (-1,)))


def decode(document: Any, declared: Any = ROWS, **more: Any) -> Any:
    return v1.decode_request(document, model_name="m", declared=declared, **more)


def test_rows_take_name_and_datatype_from_the_model() -> None:
    tensor = decode({"instances": [[1, 2], [3, 4.5]]}).inputs[0]
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", "FP32", (2, 2))
    assert tensor.data.tolist() == [[1, 2], [3, 4.5]]


def test_objects_and_columns_are_the_same() -> None:
    by_row = decode({"instances": [{"a": 1, "b": "x"}, {"b": "y", "a": 2}]}, COLUMNS)
    by_column = decode({"inputs": {"a": [1, 2], "b": ["x", "y"]}}, COLUMNS)
    for request in (by_row, by_column):
        assert request.input("a").data.tolist() == [1, 2]
        assert request.input("a").datatype == "FP32"
        assert request.input("b").data == [b"x", b"y"]


def test_values_of_an_undeclared_model_say_what_they_are() -> None:
    kinds = {"INT64": [1, 2], "FP64": [1, 2.5], "BYTES": ["a"], "BOOL": [True]}
    for datatype, values in kinds.items():
        assert decode({"instances": values}, ()).inputs[0].datatype == datatype


def test_base64_values_are_bytes() -> None:
    assert decode({"instances": [{"b64": "AP8="}]}, ()).inputs[0].data == [b"\x00\xff"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "an array, expected an object"),
        ({}, "'instances' is missing"),
        ({"instances": [1], "inputs": [1]}, "both"),
        ({"instances": {"a": [1]}}, "'instances' is an object, expected an array"),
        ({"instances": [[1, 2], [3]]}, "tensor 'x': rows of different length"),
        ({"instances": [[1, 2], 3]}, "tensor 'x': rows of different length"),
        ({"instances": [[1, None]]}, "element 1 is null"),
        ({"instances": [["a", "b"]]}, "element 0 is a string, expected FP32"),
        ({"instances": [{"a": 1}, {"c": 1}]}, "instances[1] has other names"),
        ({"instances": [{"a": 1}, 2]}, "instances[1] has other names"),
        ({"instances": [{"b64": "!"}]}, "'b64' is not base64"),
        ({"instances": [[{"q": 1}]]}, "an object where a value was expected"),
        ({"inputs": {"": [1]}}, "name is empty"),
    ],
)
def test_what_is_broken_is_named(document: Any, said: str) -> None:
    with pytest.raises(InferenceError) as caught:
        decode(document)
    assert said in caught.value.message


def test_missing_values_where_the_model_takes_them() -> None:
    tensor = decode({"instances": [[1, None]]}, accepts_missing=True).inputs[0]
    assert np.isnan(tensor.data[0, 1])


def test_answers_are_rows_or_objects() -> None:
    scores = Tensor.from_numpy("scores", np.array([[0.5, 0.25], [1, 2]], dtype=np.float32))
    labels = Tensor.from_strings("label", ["a", "b"])
    assert v1.encode_response(InferResponse("m", (scores,))) == {"predictions": [[0.5, 0.25], [1.0, 2.0]]}
    assert v1.encode_response(InferResponse("m", (scores, labels))) == {
        "predictions": [{"scores": [0.5, 0.25], "label": "a"}, {"scores": [1.0, 2.0], "label": "b"}]
    }
    back = v1.decode_response({"predictions": [{"scores": 1.5, "label": "a"}]}, model_name="m")
    assert back.output("scores").data.tolist() == [1.5]
    assert back.output("label").data == [b"a"]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "b64"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([(), ROWS, COLUMNS]), st.booleans(), st.sampled_from(["instances", "inputs"]))
def test_any_document_is_a_request_or_a_400(value: Any, declared: Any, missing: bool, key: str) -> None:
    for document in (value, {key: value}):
        try:
            request = decode(document, declared, accepts_missing=missing)
        except InferenceError as error:
            assert error.code == 400
        else:
            v2_json.encode_request(request, binary=True)


def test_a_v2_body_is_told_where_it_belongs() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    with pytest.raises(InferenceError, match="this is a V2 body: POST it to /v2/models/m/infer"):
        decode({"inputs": [tensor]})
    rows = [{"name": "x", "shape": 1.5}]
    assert decode({"inputs": rows}, ()).input_names == ["name", "shape"]

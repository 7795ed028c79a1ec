"""V2 JSON and binary tensors: what is read is what was written, and what is broken is a 400 that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from glowplug.errors import InferenceError
from glowplug.wire import InferRequest, InferResponse, RequestedOutput, Tensor, v2_json
from glowplug.wire.datatypes import DATATYPES

NUMERIC = [name for name in DATATYPES if name not in ("BYTES", "BF16")]


@st.composite
def tensors(draw: st.DrawFn, *, text_only: bool = False) -> Tensor:
    name = draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    datatype = draw(st.sampled_from([*NUMERIC, "BYTES"]))
    if datatype == "BYTES":
        count = int(np.prod(shape, dtype=int))
        element = st.text(st.characters(codec="utf-8")).map(str.encode) if text_only else st.binary()
        return Tensor(name, datatype, shape, draw(st.lists(element, min_size=count, max_size=count)))
    dtype = DATATYPES[datatype].dtype
    elements = None
    if dtype.kind == "f":
        elements = npst.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    return Tensor(name, datatype, shape, draw(npst.arrays(dtype, shape, elements=elements)))


def requests(*, text_only: bool = False) -> st.SearchStrategy[InferRequest]:
    return st.lists(tensors(text_only=text_only), max_size=3, unique_by=lambda t: t.name).map(
        lambda items: InferRequest("m", tuple(items), id="7")
    )


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert [(t.name, t.datatype, t.shape) for t in found] == [(t.name, t.datatype, t.shape) for t in expected]
    for one, other in zip(found, expected, strict=True):
        if one.datatype == "BYTES":
            assert one.data == other.data
        else:
            assert one.data.dtype == other.data.dtype
            assert one.data.flags.aligned
            assert one.data.tobytes() == other.data.tobytes() or np.array_equal(one.data, other.data)


def one(datatype: str, shape: Any, data: Any, **more: Any) -> bytes:
    return orjson.dumps(
        {"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data, **more}]}
    )


def decode(body: bytes, **more: Any) -> InferRequest:
    return v2_json.decode_request(body, model_name="m", **more)


def refused(body: bytes, **more: Any) -> str:
    with pytest.raises(InferenceError) as caught:
        decode(body, **more)
    assert caught.value.code == 400
    return caught.value.message


@given(requests(text_only=True))
def test_json_round_trip_keeps_every_value(request: InferRequest) -> None:
    body, length = v2_json.encode_request(request)
    assert length is None
    found = decode(body)
    assert found.id == "7"
    assert_same(found.inputs, request.inputs)


@given(requests())
def test_binary_round_trip_keeps_every_bit(request: InferRequest) -> None:
    body, length = v2_json.encode_request(request, binary=True)
    found = decode(body, header_length=None if length is None else str(length))
    assert_same(found.inputs, request.inputs)
    assert found.parameters["binary_data_output"] is True


@given(tensors())
def test_nested_data_is_the_flat_data(tensor: Tensor) -> None:
    if tensor.datatype == "BYTES":
        return
    nested = orjson.dumps(tensor.data.tolist()) if tensor.shape else orjson.dumps([tensor.data.item()])
    body = one(tensor.datatype, tensor.shape, orjson.Fragment(nested))
    assert_same(decode(body).inputs, (Tensor("x", tensor.datatype, tensor.shape, tensor.data),))


def test_large_integers_keep_their_precision() -> None:
    values = [2**63 - 1, -(2**63), 9007199254740993]
    assert decode(one("INT64", [3], values)).inputs[0].data.tolist() == values
    assert decode(one("UINT64", [1], [2**64 - 1])).inputs[0].data.tolist() == [2**64 - 1]


def test_bf16_is_rounded_to_nearest_even_and_back() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3.1415927, 65280.0], dtype=np.float32)
    body, length = v2_json.encode_request(
        InferRequest("m", (Tensor("x", "BF16", (5,), values),)), binary=True
    )
    found = decode(body, header_length=str(length)).inputs[0]
    assert found.data.tolist() == [1.0, 1.0, 1.015625, -3.140625, 65280.0]


def test_a_whole_number_written_as_a_float_is_an_integer() -> None:
    assert decode(one("INT32", [2], [1.0, 2])).inputs[0].data.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "an array, expected an object"),
        (b"{}", "'inputs' is missing"),
        (b'{"inputs":{}}', "expected an array"),
        (b'{"inputs":[1]}', "inputs[0] is an integer"),
        (b'{"inputs":[{}]}', "inputs[0]: name"),
        (b'{"inputs":[{"name":"x"}]}', "tensor 'x': datatype"),
        (b'{"id":7,"inputs":[]}', "'id' is an integer"),
        (one("FP99", [1], [1]), "'FP99', expected one of BOOL"),
        (one("FP32", None, [1]), "shape is null"),
        (one("FP32", [1.5], [1]), "shape[0] is a number"),
        (one("FP32", [True], [1]), "shape[0] is a boolean"),
        (one("FP32", [-1], [1]), "shape[0] = -1"),
        (one("FP32", [2**62, 2**62], [1]), "shape[0] = 4611686018427387904"),
        (one("FP32", [2**40, 2**40], [1]), "needs 1208925819614629174706176 elements, the data has 1"),
        (one("FP32", [1] * 33, [1]), "33 dimensions"),
        (one("FP32", [2, 3], [1, 2, 3, 4, 5]), "shape [2, 3] needs 6 elements, the data has 5"),
        (one("FP32", [2, 2], [[1, 2], [3]]), "an array of 1 where shape [2, 2] needs 2"),
        (one("FP32", [2, 2], [[1, 2], 3]), "an integer where shape [2, 2] needs an array"),
        (one("FP32", [4], [[1, 2], [3, 4]]), "an array of 2 where shape [4] needs 4"),
        (one("FP32", [1], [[[1]]]), "element 0 is an array"),
        (one("FP32", [1], 1), "data is an integer"),
        (one("FP32", [2], [1, "1.5"]), "element 1 is a string, expected FP32"),
        (one("FP32", [2], [1, True]), "element 1 is a boolean, expected FP32"),
        (one("FP32", [2], [1, None]), "element 1 is null; this model takes no missing values"),
        (one("FP32", [1], [{}]), "element 0 is an object"),
        (one("INT32", [1], [None]), "element 0 is null, expected INT32"),
        (one("INT8", [2], [1, 128]), "element 1 is outside INT8 (-128 to 127)"),
        (one("UINT8", [1], [-1]), "element 0 is outside UINT8"),
        (one("INT32", [1], [1.5]), "element 0 is not a whole number"),
        (one("INT64", [1], [1e300]), "element 0 is not a whole number"),
        (one("BOOL", [1], [1]), "element 0 is an integer, expected BOOL"),
        (one("BYTES", [1], [1]), "element 0 is an integer, expected BYTES"),
        (one("FP32", [1], [1], parameters={"a": []}), "parameter 'a' is an array"),
        (one("FP32", [1], [1], parameters={"binary_data_size": 4}), "both data and binary_data_size"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}', "neither data nor binary_data_size"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}', "not JSON"),
    ],
)
def test_what_is_broken_is_named(body: bytes, said: str) -> None:
    assert said in refused(body)


def test_two_inputs_of_one_name_are_refused() -> None:
    item = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}
    assert "input 'x' is there twice" in refused(orjson.dumps({"inputs": [item, item]}))


def test_a_number_too_large_for_fp16_is_infinite_and_no_crash() -> None:
    assert np.isinf(decode(one("FP16", [1], [1e6])).inputs[0].data[0])


def test_missing_values_are_nan_where_the_model_takes_them() -> None:
    found = decode(one("FP32", [3], [1, None, 2.5]), accepts_missing=True).inputs[0].data
    assert np.isnan(found[1])
    assert found[[0, 2]].tolist() == [1.0, 2.5]


def test_nan_in_the_binary_form_is_missing_too() -> None:
    data = np.array([1, np.nan], dtype=np.float32)
    body, length = v2_json.encode_request(InferRequest("m", (Tensor.from_numpy("x", data),)), binary=True)
    assert "1 of 2 elements are missing" in refused(body, header_length=str(length))
    assert np.isnan(decode(body, header_length=str(length), accepts_missing=True).inputs[0].data[1])


def binary(
    size: Any, tail: bytes, *, datatype: str = "FP32", shape: Any = (2,), length: str | None = None
) -> str:
    head = orjson.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
            ]
        }
    )
    return refused(head + tail, header_length=str(len(head)) if length is None else length)


@pytest.mark.parametrize("length", ["-1", "abc", "9" * 30, "", "1.0", "٣"])
def test_a_header_length_that_is_no_length(length: str) -> None:
    assert "Inference-Header-Content-Length" in binary(8, b"\0" * 8, length=length)


def test_binary_sizes_are_checked() -> None:
    assert "the body has 4 bytes left" in binary(8, b"\0" * 4)
    assert "needs 8 bytes, the data has 4" in binary(4, b"\0" * 4)
    assert "4 bytes are left after the last binary tensor" in binary(8, b"\0" * 12)
    assert "binary_data_size is not a whole number" in binary(-8, b"\0" * 8)
    assert "binary_data_size is not a whole number" in binary(True, b"\0" * 8)
    assert "the body has only" in binary(8, b"\0" * 8, length="99999")
    assert "needs 4398046511104 bytes" in binary(4, b"\0" * 4, shape=[2**40])
    assert "neither 0 nor 1" in binary(2, b"\1\2", datatype="BOOL")
    assert "element 0 says 4294967295 bytes" in binary(8, b"\xff" * 8, datatype="BYTES", shape=[1])
    assert "need at least 4398046511104 bytes" in binary(8, b"\0" * 8, datatype="BYTES", shape=[2**40])
    assert "4 bytes are left after 1 elements" in binary(8, b"\0" * 8, datatype="BYTES", shape=[1])
    assert "without the header" in refused(
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}'
    )


def test_errors_never_repeat_the_input() -> None:
    secret = "s3cr3t" * 1000
    for body in (
        one("FP32", [1], [secret]),
        one(secret, [1], [1]),
        orjson.dumps({"inputs": [{"name": secret, "datatype": "FP32", "shape": [1], "data": [1]}]}),
        orjson.dumps({"inputs": secret}),
        b'{"inputs": ' + secret.encode(),
        one("FP32", [1], [1], parameters={secret: []}),
    ):
        message = refused(body)
        assert len(message) < 400
        assert message.count("s3cr3t") < 20


def test_a_long_string_among_many_short_ones_allocates_no_product() -> None:
    # numpy would make of these an array of 20,000 x 1,000,000 characters.
    body = one("BYTES", [20_000], ["x" * 1_000_000] + ["y"] * 19_999)
    assert decode(body).inputs[0].size == 20_000
    assert "element 0 is a string" in refused(one("FP32", [20_000], ["x" * 1_000_000] + ["y"] * 19_999))


def test_deep_nesting_is_refused() -> None:
    for depth in (40, 900, 100_000):
        assert refused(
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":'
            + b"[" * depth
            + b"]" * depth
            + b"}]}"
        )


RESPONSE = InferResponse(
    "m",
    (
        Tensor.from_numpy("a", np.array([[1.5, 2]], dtype=np.float32)),
        Tensor.from_strings("b", ["é", b"\x01"]),
    ),
    id="9",
)


def test_the_response_has_what_was_asked_for_in_the_form_asked_for() -> None:
    asked = InferRequest("m", (), outputs=(RequestedOutput("b", {"binary_data": True}), RequestedOutput("a")))
    body, length = v2_json.encode_response(RESPONSE, asked)
    document = orjson.loads(body[:length])
    assert [item["name"] for item in document["outputs"]] == ["b", "a"]
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 11}
    assert document["outputs"][1]["data"] == [1.5, 2.0]
    assert body[length:] == b"\x02\0\0\0\xc3\xa9\x01\0\0\0\x01"
    found = v2_json.decode_response(body, header_length=str(length))
    assert_same(found.outputs, (RESPONSE.outputs[1], RESPONSE.outputs[0]))


def test_an_output_that_is_not_there_is_named() -> None:
    with pytest.raises(InferenceError, match="no output 'c'; the outputs are: 'a', 'b'"):
        v2_json.encode_response(RESPONSE, InferRequest("m", (), outputs=(RequestedOutput("c"),)))


def test_bytes_that_are_no_text_cannot_be_json() -> None:
    broken = InferResponse("m", (Tensor.from_strings("b", [b"\xff"]),))
    with pytest.raises(InferenceError, match="not UTF-8") as caught:
        v2_json.encode_response(broken)
    assert "binary_data" in caught.value.hint


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=300)
@given(
    name=JSON_VALUES | st.just("x"),
    datatype=JSON_VALUES | st.sampled_from(list(DATATYPES)),
    shape=JSON_VALUES | st.lists(st.integers(-2, 4), max_size=4),
    data=JSON_VALUES | st.lists(JSON_VALUES, max_size=6),
    more=JSON_VALUES,
    tail=st.none() | st.binary(max_size=20),
)
def test_any_json_is_a_request_or_a_400(
    name: Any, datatype: Any, shape: Any, data: Any, more: Any, tail: bytes | None
) -> None:
    item = {"name": name, "datatype": datatype, "shape": shape, "data": data, "parameters": more}
    try:
        head = orjson.dumps({"inputs": [item], "parameters": more, "outputs": more, "id": name})
    except TypeError:  # an integer beyond 64 bits, which orjson does not write
        return
    try:
        if tail is None:
            decode(head)
        else:
            decode(head + tail, header_length=str(len(head)))
    except InferenceError as error:
        assert error.code == 400


@given(st.binary(max_size=200), st.none() | st.integers(0, 250).map(str))
def test_any_bytes_are_a_request_or_a_400(body: bytes, length: str | None) -> None:
    try:
        decode(body, header_length=length)
    except InferenceError as error:
        assert error.code == 400


def test_a_v1_body_is_told_where_it_belongs() -> None:
    with pytest.raises(InferenceError, match=r"'inputs' is missing.*POST it to /v1/models/m:predict\)"):
        v2_json.decode_request(b'{"instances": [[1, 2]]}', model_name="m")

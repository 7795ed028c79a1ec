"""Broken bytes into the decoders of V1, V2 JSON, V2 binary and CloudEvents: a request or a 400, nothing else.

`GLOWPLUG_FUZZ_SECONDS=600 pytest tests/fuzz` goes on for so long in each test.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from fuzz.mutations import endless, mutated, seeds, tensors, timeout_s
from hypothesis import given
from hypothesis import strategies as st

from glowplug.errors import InferenceError
from glowplug.serving.http import inflate
from glowplug.wire import InferRequest, InferResponse, cloudevents, v1, v2_json
from glowplug.wire.datatypes import DATATYPES
from glowplug.wire.json_data import convert, decode_data
from glowplug.wire.tensors import element_count

pytestmark = pytest.mark.timeout(timeout_s())

COUNT = 3000
MAX_MESSAGE = 2000
# Bytes of memory for a byte of the body: Python's objects for the JSON are the most of it.
FACTOR = 60
SPARE = 3_000_000


def decode_v2(body: bytes, headers: dict[str, str], chance: random.Random) -> InferRequest:
    return v2_json.decode_request(
        body,
        model_name="m",
        header_length=headers.get(v2_json.HEADER_LENGTH),
        accepts_missing=chance.random() < 0.5,
    )


def decode_v1(body: bytes, headers: dict[str, str], chance: random.Random) -> InferRequest:
    return v1.decode_request(v2_json.parse_json(body), model_name="m", accepts_missing=chance.random() < 0.5)


def decode_answer(body: bytes, headers: dict[str, str], chance: random.Random) -> InferResponse:
    body = body.replace(b'"inputs"', b'"outputs"')
    return v2_json.decode_response(body, header_length=headers.get(v2_json.HEADER_LENGTH))


def decode_event(body: bytes, headers: dict[str, str], chance: random.Random) -> None:
    _, found = cloudevents.decode(
        {"ce-specversion": "1.0", **headers} if chance.random() < 0.3 else headers, body
    )
    if type(found) is not bytes:
        v2_json.decode_request_document(found, model_name="m")


def decode_gzip(body: bytes, headers: dict[str, str], chance: random.Random) -> None:
    inflate(body, 100_000)


DECODERS: list[Callable[..., Any]] = [decode_v2, decode_v1, decode_answer, decode_event, decode_gzip]


def check(found: Any) -> None:
    """A decoded tensor's data is what its shape and datatype say."""
    for tensor in found.inputs if isinstance(found, InferRequest) else found.outputs:
        assert tensor.size == element_count(tensor.shape)
        if tensor.datatype != "BYTES":
            assert tensor.data.shape == tensor.shape
            assert tensor.data.dtype == DATATYPES[tensor.datatype].dtype


@pytest.mark.parametrize("decoder", DECODERS)
def test_broken_bytes_are_a_request_or_a_400(decoder: Callable[..., Any]) -> None:
    all_seeds = seeds()
    for chance in endless(1, COUNT):
        seed = chance.choice(all_seeds)
        body = mutated(seed.body, chance)
        headers = dict(seed.headers)
        if v2_json.HEADER_LENGTH in headers and chance.random() < 0.2:
            headers[v2_json.HEADER_LENGTH] = mutated(b"500", chance).decode("latin-1")
        try:
            found = decoder(body, headers, chance)
        except InferenceError as error:
            assert 400 <= error.code < 500, (body, error)
            assert len(error.message) < MAX_MESSAGE
        except Exception as error:
            raise AssertionError(f"{body!r} {headers!r}") from error
        else:
            if found is not None:
                check(found)


HUGE = [
    {"shape": [2**40, 2**40], "data": []},
    {"shape": [2**40], "data": [1]},
    {"shape": [1] * 32, "data": [[1]]},
    {"shape": [0, 2**40], "data": []},
    {"shape": [2**31, 2**31, 0], "data": []},
    {"shape": [2**40], "parameters": {"binary_data_size": 2**62}},
    {"shape": [2**40], "parameters": {"binary_data_size": 0}},
]


@pytest.mark.parametrize("item", HUGE)
@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_a_tensor_claims_is_not_allocated(item: dict[str, Any], datatype: str) -> None:
    head = orjson.dumps({"inputs": [{"name": "huge", "datatype": datatype, **item}]})
    tracemalloc.start()
    try:
        v2_json.decode_request(head, model_name="m", header_length=str(len(head)))
    except InferenceError as error:
        assert "huge" in error.message
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < SPARE


@pytest.mark.parametrize("unit", [b"[", b"[1,", b"1,", b'{"a":', b'"a",', b"null,", b"[[1],[2]],"])
@pytest.mark.parametrize("key", [b"inputs", b"instances", b"outputs"])
def test_memory_grows_with_the_body_and_no_faster(unit: bytes, key: bytes) -> None:
    body = b'{"%s":[' % key + unit * (300_000 // len(unit)) + b"1]}"
    item = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[300000],"data":[%s1]}]}' % (
        unit * (300_000 // len(unit))
    )
    for text in (body, item):
        for decoder in (decode_v2, decode_v1, decode_answer):
            tracemalloc.start()
            try:
                decoder(text, {}, random.Random(1))
            except InferenceError as error:
                assert len(error.message) < MAX_MESSAGE
            finally:
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            assert peak < FACTOR * len(text) + SPARE


BROKEN: dict[str, list[Any]] = {
    "datatype": ["FP8", "", None, 3, [], {}],
    "shape": [None, "2", 2, [2.0], [True], ["2"], [-1], [2**41], [1] * 33, [3], [[2]], {}],
    "data": [
        None,
        "12",
        1,
        {},
        [],
        [1],
        [1, 2, 3],
        [[1, 2], [3]],
        [{}, {}],
        ["a", None],
        [[1], [2], [3]],
        [True, "x"],
    ],
    "parameters": [[], "p", 1, {"k": None}, {"k": []}, {"binary_data_size": "1"}, {"binary_data_size": -1}],
}


@pytest.mark.parametrize(
    "tensor", [each for each in tensors() if each.shape == (2,)], ids=lambda each: each.datatype
)
@pytest.mark.parametrize("key", BROKEN)
def test_the_message_names_the_tensor_and_what_was_expected(tensor: Any, key: str) -> None:
    for value in BROKEN[key]:
        document = orjson.loads(v2_json.encode_request(InferRequest("m", (tensor,)))[0])
        (item,) = document["inputs"]
        item["name"] = "alpha"
        item[key] = value
        with pytest.raises(InferenceError, match="alpha") as caught:
            v2_json.decode_request_document(document, model_name="m")
        assert caught.value.code == 400


@given(st.lists(st.floats(allow_nan=False), max_size=60))
def test_the_short_way_for_floats_gives_what_numpy_gives(values: list[float]) -> None:
    found = decode_data("x", "FP32", (len(values),), values, accepts_missing=False)
    with np.errstate(over="ignore"):
        expected = np.array(values, dtype=np.float32)
    assert found.tobytes() == expected.tobytes()
    assert found.dtype == expected.dtype
    assert found.flags.writeable
    # An integer among them takes the long way.
    longer = convert("x", DATATYPES["FP32"], (len(values) + 1,), [*values, 0], accepts_missing=False)
    assert longer[:-1].tobytes() == expected.tobytes()

"""Our protobuf codec against kserve's generated messages, in both directions."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from glowplug.errors import InferenceError
from glowplug.wire import InferRequest, InferResponse, RequestedOutput, Tensor, v2_grpc
from glowplug.wire.binary import encode_raw
from glowplug.wire.datatypes import DATATYPES
from glowplug.wire.packed import pack_varints, packed_varints
from glowplug.wire.protobuf import field_bytes, field_text, read_varint, varint

pb: Any = pytest.importorskip("kserve.protocol.grpc.grpc_predict_v2_pb2")

CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
PARAMETERS = st.dictionaries(TEXT, st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT, max_size=3)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(list(CONTENTS)))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    name = draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6))
    parameters = draw(PARAMETERS)
    if datatype == "BYTES":
        count = int(np.prod(shape, dtype=int))
        data = draw(st.lists(st.binary(max_size=200), min_size=count, max_size=count))
        return Tensor(name, datatype, shape, data, parameters)
    dtype = DATATYPES[datatype].dtype
    elements = npst.from_dtype(dtype, allow_nan=False) if dtype.kind == "f" else None
    return Tensor(name, datatype, shape, draw(npst.arrays(dtype, shape, elements=elements)), parameters)


@st.composite
def requests(draw: st.DrawFn) -> InferRequest:
    inputs = tuple(draw(st.lists(tensors(), max_size=3, unique_by=lambda tensor: tensor.name)))
    outputs = tuple(RequestedOutput(draw(TEXT), draw(PARAMETERS)) for _ in range(draw(st.integers(0, 2))))
    return InferRequest(draw(TEXT), inputs, draw(TEXT), outputs, draw(PARAMETERS), draw(TEXT))


def pb_parameters(parameters: Any) -> dict[str, Any]:
    made = {}
    for key, value in parameters.items():
        field = (
            "bool_param"
            if isinstance(value, bool)
            else "int64_param"
            if isinstance(value, int)
            else "string_param"
        )
        made[key] = pb.InferParameter(**{field: value})
    return made


def plain(parameters: Any) -> dict[str, Any]:
    return {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in parameters.items()}


def pb_tensor(kind: Any, tensor: Tensor, raw: bool) -> Any:
    message = kind(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        parameters=pb_parameters(tensor.parameters),
    )
    if not raw:
        flat = tensor.data if tensor.datatype == "BYTES" else tensor.data.reshape(-1).tolist()
        getattr(message.contents, CONTENTS[tensor.datatype]).extend(flat)
    return message


def pb_request(request: InferRequest, raw: bool) -> Any:
    return pb.ModelInferRequest(
        model_name=request.model_name,
        model_version=request.model_version,
        id=request.id,
        parameters=pb_parameters(request.parameters),
        inputs=[pb_tensor(pb.ModelInferRequest.InferInputTensor, item, raw) for item in request.inputs],
        outputs=[
            pb.ModelInferRequest.InferRequestedOutputTensor(
                name=item.name, parameters=pb_parameters(item.parameters)
            )
            for item in request.outputs
        ],
        raw_input_contents=[encode_raw(item) for item in request.inputs] if raw else [],
    )


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert [(t.name, t.datatype, t.shape, dict(t.parameters)) for t in found] == [
        (t.name, t.datatype, t.shape, dict(t.parameters)) for t in expected
    ]
    for one, other in zip(found, expected, strict=True):
        if one.datatype == "BYTES":
            assert one.data == other.data
        else:
            assert one.data.dtype == other.data.dtype
            assert one.data.flags.aligned
            assert one.data.tobytes() == other.data.tobytes()


@given(requests(), st.booleans())
def test_what_kserve_writes_we_read(request: InferRequest, raw: bool) -> None:
    found = v2_grpc.decode_infer_request(pb_request(request, raw).SerializeToString())
    assert (found.model_name, found.model_version, found.id) == (
        request.model_name,
        request.model_version,
        request.id,
    )
    assert dict(found.parameters) == dict(request.parameters)
    assert [(o.name, dict(o.parameters)) for o in found.outputs] == [
        (o.name, dict(o.parameters)) for o in request.outputs
    ]
    assert_same(found.inputs, request.inputs)
    assert found.is_raw == (raw and bool(request.inputs))


@given(requests(), st.booleans())
def test_what_we_write_kserve_reads(request: InferRequest, raw: bool) -> None:
    found = pb.ModelInferRequest.FromString(v2_grpc.encode_infer_request(request, raw=raw))
    expected = pb_request(request, raw)
    if not raw:
        # An empty `contents` and none are the same to a reader, and only one of the two is written.
        for message in (*found.inputs, *expected.inputs):
            message.contents.SetInParent()
    assert found == expected


@given(requests(), st.booleans())
def test_responses_both_ways(request: InferRequest, raw: bool) -> None:
    response = InferResponse(request.model_name, request.inputs, request.id, "3", request.parameters)
    expected = pb.ModelInferResponse(
        model_name=response.model_name,
        model_version="3",
        id=response.id,
        parameters=pb_parameters(response.parameters),
        outputs=[pb_tensor(pb.ModelInferResponse.InferOutputTensor, item, raw) for item in response.outputs],
        raw_output_contents=[encode_raw(item) for item in response.outputs] if raw else [],
    )
    asked = InferRequest("m", (), is_raw=raw)
    found = pb.ModelInferResponse.FromString(v2_grpc.encode_infer_response(response, asked))
    for message in (*found.outputs, *expected.outputs):
        if not raw:
            message.contents.SetInParent()
    assert found == expected
    back = v2_grpc.decode_infer_response(expected.SerializeToString())
    assert_same(back.outputs, response.outputs)
    assert (back.id, back.model_version, dict(back.parameters)) == (
        response.id,
        "3",
        dict(response.parameters),
    )


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_any_bytes_are_a_message_or_a_400(data: bytes) -> None:
    for decode in (v2_grpc.decode_infer_request, v2_grpc.decode_infer_response, v2_grpc.decode_model_id):
        try:
            decode(data)
        except InferenceError as error:
            assert error.code == 400


@settings(max_examples=300)
@given(requests(), st.booleans(), st.data())
def test_a_damaged_message_is_read_as_kserve_reads_it_or_refused(
    request: InferRequest, raw: bool, data: st.DataObject
) -> None:
    whole = bytearray(v2_grpc.encode_infer_request(request, raw=raw))
    for _ in range(data.draw(st.integers(1, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = v2_grpc.decode_infer_request(damaged, accepts_missing=True)
    except InferenceError as error:
        assert error.code == 400
        return
    expected = pb.ModelInferRequest.FromString(damaged)
    assert (found.model_name, found.id) == (expected.model_name, expected.id)
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [
        (t.name, t.datatype, list(t.shape)) for t in expected.inputs
    ]


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_packed_varints_are_varints(values: list[int]) -> None:
    packed = b"".join(varint(value) for value in values)
    assert pack_varints(np.array(values, dtype=np.uint64)) == packed
    assert packed_varints(memoryview(packed)).tolist() == values
    offset = 0
    for value in values:
        found, offset = read_varint(packed, offset, len(packed))
        assert found == value


def test_unpacked_split_and_unknown_fields_are_read() -> None:
    # int64_contents once packed, once alone, in two `contents`; between them an unknown field and an unknown group.
    contents = b"\x1a\x02\x01\x02"
    more = b"\x18\x03"
    unknown = b"\xf8\x01\x05" + b"\xf3\x01\x08\x01\xf4\x01"
    tensor = (
        b"\x0a\x01x\x12\x05INT64\x18\x03" + b"\x2a" + bytes([len(contents)]) + contents + unknown
        + b"\x2a" + bytes([len(more)]) + more
    )  # fmt: skip
    data = b"\x2a" + bytes([len(tensor)]) + tensor
    assert list(pb.ModelInferRequest.FromString(data).inputs[0].contents.int64_contents) == [1, 2, 3]
    assert v2_grpc.decode_infer_request(data).inputs[0].data.tolist() == [1, 2, 3]


@given(st.data())
def test_contents_in_any_runs_are_their_concatenation(data: st.DataObject) -> None:
    """Packed, one at a time and in several runs, mixed, as long as protobuf allows it."""
    datatype = data.draw(st.sampled_from([name for name in CONTENTS if name != "BYTES"]))
    dtype = DATATYPES[datatype].dtype
    elements = npst.from_dtype(dtype, allow_nan=False) if dtype.kind == "f" else None
    values = data.draw(npst.arrays(dtype, st.integers(0, 8), elements=elements))
    field = {"bool": 1, "int_": 2, "int6": 3, "uint_": 4, "uint6": 5, "fp32": 6, "fp64": 7}
    key = next(number for start, number in field.items() if CONTENTS[datatype].startswith(start))
    contents = b""
    cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=5).map(sorted))
    is_single = data.draw(st.booleans())
    for start, stop in zip([0, *cuts], [*cuts, len(values)], strict=True):
        run = values[start:stop]
        is_packed = len(run) != 1 or not is_single
        if dtype.kind == "f":
            plain, wire = run.tobytes(), 5 if key == 6 else 1
        else:
            plain, wire = b"".join(varint(int(value)) for value in run), 0
        contents += field_bytes(key, plain) if is_packed else varint(key << 3 | wire) + plain
    tensor = field_text(1, "x") + field_text(2, datatype) + field_bytes(3, varint(len(values)))
    whole = field_bytes(5, tensor + field_bytes(5, contents))
    theirs = list(getattr(pb.ModelInferRequest.FromString(whole).inputs[0].contents, CONTENTS[datatype]))
    assert np.array(theirs, dtype=dtype).tobytes() == values.tobytes()
    (found,) = v2_grpc.decode_infer_request(whole).inputs
    assert found.data.dtype == dtype
    assert found.data.tobytes() == values.tobytes()


def test_long_packed_runs_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [1, 2**64 - 1, 300, 0, 2**35] * 50
    packed = b"".join(map(varint, values))
    for size in (20, 50, 110, 10**6):
        monkeypatch.setattr("glowplug.wire.packed.PIECE_BYTES", size)
        assert packed_varints(packed).tolist() == values


def test_what_is_remembered_of_a_tensor_is_not_its_data() -> None:
    def decoded(value: float, **parameters: str) -> Tensor:
        data = np.array([value], dtype=np.float32)
        tensor = Tensor("x", "FP32", (1,), data, parameters)
        (found,) = v2_grpc.decode_infer_request(
            v2_grpc.encode_infer_request(InferRequest("m", (tensor,)))
        ).inputs
        return found

    assert [float(decoded(value).data[0]) for value in (1, 2, 3)] == [1, 2, 3]
    assert dict(decoded(4, a="b").parameters) == {"a": "b"}
    assert dict(decoded(5, a="c").parameters) == {"a": "c"}
    assert dict(decoded(6).parameters) == {}


def test_what_is_remembered_is_bounded() -> None:
    for index in range(3000):
        tensor = Tensor(f"x{index}", "FP32", (0,), np.empty(0, dtype=np.float32))
        v2_grpc.decode_infer_request(v2_grpc.encode_infer_request(InferRequest("m", (tensor,))))
        assert len(v2_grpc._heads) <= v2_grpc.MAX_HEADS


SIZE = 30_000
HEAD = field_text(1, "x") + field_text(2, "FP32")


@pytest.mark.parametrize(
    "data",
    [
        b"\x2a\x00" * SIZE,  # tensors
        b"\x32\x00" * SIZE,  # outputs
        b"\x3a\x00" * SIZE,  # raw contents
        b"".join(field_bytes(4, field_text(1, str(n)) + b"\x12\x02\x08\x01") for n in range(SIZE // 4)),
        field_bytes(5, HEAD + b"\x18\x01" * SIZE),  # a shape, one dimension at a time
        field_bytes(5, HEAD + field_bytes(3, b"\x01" * SIZE)),
        field_bytes(5, HEAD + field_bytes(5, b"\x35\0\0\0\0" * SIZE)),  # elements one at a time
        field_bytes(5, HEAD + field_bytes(5, b"\x28\x01" * SIZE)),
        field_bytes(5, HEAD + field_bytes(5, b"\x2a\x01\x01" * SIZE)),
        field_bytes(5, HEAD + field_bytes(5, field_bytes(5, b"\x81\x01" * SIZE))),
        field_bytes(5, HEAD + field_bytes(5, b"\x42\x00" * SIZE)),
    ],
)
def test_a_hostile_message_takes_little_more_memory_than_it_is_long(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v2_grpc, "MAX_TENSORS", 1000)
    tracemalloc.start()
    try:
        with pytest.raises(InferenceError):
            v2_grpc.decode_infer_request(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(data) + 2**20


def message(
    datatype: str, shape: list[int], contents: dict[str, Any] | None = None, raw: list[bytes] | None = None
) -> bytes:
    made = pb.ModelInferRequest(
        inputs=[
            {
                "name": "x",
                "datatype": datatype,
                "shape": shape,
                **({"contents": contents} if contents else {}),
            }
        ],
        raw_input_contents=raw or [],
    )
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (message("FP32", [2], {"fp32_contents": [1]}), "shape [2] needs 2 elements, the data has 1"),
        (message("FP32", [-1], {"fp32_contents": [1]}), "shape[0] = -1"),
        (message("FP32", [2**50], {"fp32_contents": [1]}), "shape[0] = 1125899906842624"),
        (message("FP32", [2**40, 2**40], raw=[b"1234"]), "needs 4835703278458516698824704 bytes"),
        (message("FP32", [1], {"fp64_contents": [1]}), "FP32 is in fp64_contents, expected fp32_contents"),
        (message("FP32", [1], {"fp32_contents": [float("nan")]}), "1 of 1 elements are missing"),
        (message("INT8", [1], {"int_contents": [200]}), "outside INT8"),
        (message("UINT16", [1], {"uint_contents": [70000]}), "outside UINT16"),
        (message("FP16", [1], {"fp32_contents": [1]}), "FP16 can be sent as raw_input_contents only"),
        (message("FP99", [1]), "datatype is 'FP99'"),
        (message("FP32", [1], raw=[b"1234", b"1234"]), "1 inputs, but 2 raw_input_contents"),
        (message("FP32", [1], {"fp32_contents": [1]}, raw=[b"1234"]), "both contents and raw_input_contents"),
        (message("FP32", [1], raw=[b"123"]), "needs 4 bytes, the data has 3"),
        (message("", [1]), "datatype is ''"),
        (b"\x2a\xff\xff\xff\xff\x0f", "field 5 says"),
        (b"\x0a\x02\xff\xfe", "not UTF-8"),
        (b"\xff" * 11, "longer than 10 bytes"),
        (b"\x00", "no valid number"),
    ],
)
def test_what_is_broken_is_named(data: bytes, said: str) -> None:
    with pytest.raises(InferenceError) as caught:
        v2_grpc.decode_infer_request(data)
    assert said in caught.value.message
    assert caught.value.code == 400


def test_fp16_goes_raw_though_typed_contents_are_asked_for() -> None:
    tensor = Tensor.from_numpy("h", np.array([1.5], dtype=np.float16))
    found = pb.ModelInferRequest.FromString(
        v2_grpc.encode_infer_request(InferRequest("m", (tensor,)), raw=False)
    )
    assert list(found.raw_input_contents) == [b"\x00\x3e"]


def test_the_small_messages_are_kserves() -> None:
    for flag in (True, False):
        data = v2_grpc.encode_flag(flag)
        assert pb.ServerLiveResponse.FromString(data).live is flag
        assert pb.ServerReadyResponse.FromString(data).ready is flag
        assert pb.ModelReadyResponse.FromString(data).ready is flag
        assert v2_grpc.decode_flag(pb.ModelReadyResponse(ready=flag).SerializeToString()) is flag
    model = v2_grpc.ModelId("m", "2")
    assert (
        v2_grpc.decode_model_id(pb.ModelMetadataRequest(name="m", version="2").SerializeToString()) == model
    )
    assert pb.ModelReadyRequest.FromString(v2_grpc.encode_model_id(model)) == pb.ModelReadyRequest(
        name="m", version="2"
    )
    assert pb.RepositoryModelLoadResponse.FromString(
        v2_grpc.encode_repository_response("m", True)
    ) == pb.RepositoryModelLoadResponse(model_name="m", isLoaded=True)
    assert pb.ServerMetadataResponse.FromString(
        v2_grpc.encode_server_metadata("s", "1", ["a", "b"])
    ) == pb.ServerMetadataResponse(name="s", version="1", extensions=["a", "b"])
    metadata = v2_grpc.ModelMetadata(
        "m",
        "p",
        (v2_grpc.TensorMetadata("x", "FP32", (-1, 3)),),
        (v2_grpc.TensorMetadata("y", "INT64", ()),),
        ("1",),
    )
    assert pb.ModelMetadataResponse.FromString(
        v2_grpc.encode_model_metadata(metadata)
    ) == pb.ModelMetadataResponse(
        name="m",
        platform="p",
        versions=["1"],
        inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        outputs=[{"name": "y", "datatype": "INT64"}],
    )

"""The messages of `inference.GRPCInferenceService`, bytes <-> values.

Field numbers are those of KServe's `grpc_predict_v2.proto`. As protobuf has it: unknown fields are skipped, the last
of a repeated single field wins, and a message given twice is merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from glowplug.errors import InferenceError
from glowplug.wire.binary import decode_raw, encode_raw
from glowplug.wire.datatypes import find_datatype
from glowplug.wire.grpc_contents import Contents, decode_contents, encode_contents, has_field, parse_contents
from glowplug.wire.packed import packed_varints
from glowplug.wire.protobuf import (
    BYTES,
    MAX_VARINT_BYTES,
    VARINT,
    field_bytes,
    field_text,
    field_varint,
    fields,
    next_field,
    small_numbers,
    to_signed,
    to_text,
    varint,
)
from glowplug.wire.tensors import (
    MAX_RANK,
    NO_PARAMETERS,
    InferRequest,
    InferResponse,
    Parameter,
    Parameters,
    RequestedOutput,
    Tensor,
    check_missing,
    check_names,
    check_shape,
)
from glowplug.wire.v2_json import MAX_NAME, MAX_TENSORS

SERVICE = "inference.GRPCInferenceService"
_FLOATS = ("FP32", "FP64", "FP16", "BF16")


# Of a request, a tensor or an output; each costs more memory than its bytes.
MAX_PARAMETERS = 1024
# A tensor's message without its data is the same in every request of a client: the last of them are remembered.
MAX_HEADS = 1024
MAX_HEAD_BYTES = 256


class _TensorMessage:
    """InferInputTensor or InferOutputTensor, as read; `checked_shape` once name, datatype and shape were checked."""

    __slots__ = ("checked_shape", "contents", "datatype", "name", "parameters", "shape")

    def __init__(self) -> None:
        self.name = ""
        self.datatype = ""
        self.shape: list[int] = []
        self.parameters: Parameters = NO_PARAMETERS
        self.contents: Contents | None = None
        self.checked_shape: tuple[int, ...] | None = None


_heads: dict[bytes, _TensorMessage] = {}


class _InferMessage:
    """ModelInferRequest or ModelInferResponse, as read: they differ in the number of one field."""

    __slots__ = ("id", "model_name", "model_version", "outputs", "parameters", "raw", "tensors")

    def __init__(self, data: bytes, what: str, raw_field: int) -> None:
        self.model_name = self.model_version = self.id = ""
        self.parameters: dict[str, Parameter] = {}
        self.tensors: list[_TensorMessage] = []
        self.outputs: list[RequestedOutput] = []
        self.raw: list[memoryview] = []
        view = memoryview(data)
        offset, end = 0, len(data)
        while offset < end:
            number, wire, start, stop, offset = next_field(data, offset, end)
            if wire != BYTES:
                continue
            if number == raw_field:
                self._check_count(self.raw, what)
                self.raw.append(view[start:stop])
            elif number == 5:
                self._check_count(self.tensors, what)
                self.tensors.append(_tensor_message(data, start, stop))
            elif number == 1:
                self.model_name = to_text(view[start:stop])
            elif number == 3:
                self.id = to_text(view[start:stop])
            elif number == 2:
                self.model_version = to_text(view[start:stop])
            elif number == 4:
                _parameter_entry(view[start:stop], self.parameters)
            elif number == 6:
                self._check_count(self.outputs, "output")
                self.outputs.append(_requested_output(view[start:stop]))

    def _check_count(self, items: Sized, what: str) -> None:
        if len(items) >= MAX_TENSORS:
            raise InferenceError(f"more than {MAX_TENSORS} {what}s")


def decode_infer_request(data: bytes, *, accepts_missing: bool = False) -> InferRequest:
    """A ModelInferRequest. Raises InferenceError (400)."""
    found = _InferMessage(data, "input", raw_field=7)
    return InferRequest(
        found.model_name,
        _tensors(found.tensors, found.raw, "input", accepts_missing),
        found.id,
        tuple(found.outputs),
        found.parameters,
        found.model_version,
        is_raw=bool(found.raw),
    )


def decode_infer_response(data: bytes) -> InferResponse:
    """A ModelInferResponse; missing values are let through. Raises InferenceError (400)."""
    found = _InferMessage(data, "output", raw_field=6)
    outputs = _tensors(found.tensors, found.raw, "output", accepts_missing=True)
    return InferResponse(found.model_name, outputs, found.id, found.model_version, found.parameters)


def encode_infer_request(request: InferRequest, *, raw: bool = True) -> bytes:
    """A ModelInferRequest; `raw` False uses typed contents where every datatype has them."""
    parts = _head(request.model_name, request.model_version, request.id, request.parameters)
    raws = _encode_tensors(request.inputs, parts, raw)
    for output in request.outputs:
        message = field_text(1, output.name) + b"".join(_parameter_fields(2, output.parameters))
        parts.append(field_bytes(6, message))
    parts.extend(field_bytes(7, item) for item in raws)
    return b"".join(parts)


def encode_infer_response(response: InferResponse, request: InferRequest | None = None) -> bytes:
    """A ModelInferResponse with the outputs that `request` asks for, raw if its inputs were.

    Raises InferenceError (400) where it asks for an output that is not there.
    """
    outputs = response.outputs
    if request is not None and request.outputs:
        outputs = tuple(response.output(asked.name) for asked in request.outputs)
    parts = _head(response.model_name, response.model_version, response.id, response.parameters)
    raws = _encode_tensors(outputs, parts, request is None or request.is_raw)
    parts.extend(field_bytes(6, item) for item in raws)
    return b"".join(parts)


def _head(model_name: str, model_version: str, request_id: str, parameters: Parameters) -> list[bytes]:
    parts = [_names(model_name, model_version)]
    if request_id:
        parts.append(field_text(3, request_id))
    if parameters:
        parts.extend(_parameter_fields(4, parameters))
    return parts


@lru_cache(256)
def _names(model_name: str, model_version: str) -> bytes:
    return field_text(1, model_name) + field_text(2, model_version)


def _encode_tensors(tensors: Sequence[Tensor], parts: list[bytes], raw: bool) -> list[bytes]:
    """Appends the tensors' messages to `parts` and returns the raw contents: of all tensors or of none."""
    raw = raw or not all(has_field(tensor.datatype) for tensor in tensors)
    raws: list[bytes] = []
    for tensor in tensors:
        message = _tensor_head(tensor.name, tensor.datatype, tensor.shape)
        if tensor.parameters:
            message += b"".join(_parameter_fields(4, tensor.parameters))
        if raw:
            raws.append(encode_raw(tensor))
        else:
            message += field_bytes(5, encode_contents(tensor))
        parts.append(field_bytes(5, message))
    return raws


@lru_cache(256)
def _tensor_head(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """A tensor's message without parameters and data."""
    head = field_text(1, name) + field_text(2, datatype)
    return head + field_bytes(3, b"".join([varint(dimension) for dimension in shape])) if shape else head


def _tensors(
    messages: list[_TensorMessage], raw: list[memoryview], what: str, accepts_missing: bool
) -> tuple[Tensor, ...]:
    if raw and len(raw) != len(messages):
        raise InferenceError(
            f"{len(messages)} {what}s, but {len(raw)} raw_{what}_contents; one for each expected"
        )
    tensors = []
    for index, message in enumerate(messages):
        shape = message.checked_shape
        if shape is None:
            shape = _check_head(message, f"{what}s[{index}]")
        name, datatype, contents = message.name, message.datatype, message.contents
        if raw:
            if contents:
                raise InferenceError(f"tensor {name!r}: both contents and raw_{what}_contents")
            data = decode_raw(name, datatype, shape, raw[index], accepts_missing=accepts_missing)
        else:
            data = decode_contents(name, datatype, shape, contents or {}, accepts_missing=accepts_missing)
        tensors.append(Tensor(name, datatype, shape, data, message.parameters))
    if len(tensors) > 1:
        check_names(tensors, what)
    return tuple(tensors)


def _check_head(message: _TensorMessage, where: str) -> tuple[int, ...]:
    name = message.name
    if not name or len(name) > MAX_NAME:
        raise InferenceError(f"{where}: name is missing, or longer than {MAX_NAME} characters")
    find_datatype(name, message.datatype)
    message.checked_shape = check_shape(name, message.shape)
    return message.checked_shape


def _tensor_message(data: bytes, start: int, stop: int) -> _TensorMessage:
    size = stop - start
    key = data[start:stop] if size <= MAX_HEAD_BYTES else b""
    message = _heads.get(key)
    if message is not None:
        return message
    message = _read_tensor(memoryview(data)[start:stop])
    if key and message.contents is None and not message.parameters:
        if len(_heads) >= MAX_HEADS:
            _heads.clear()
        _heads[key] = message
    return message


def _read_tensor(data: memoryview) -> _TensorMessage:
    message = _TensorMessage()
    parameters: dict[str, Parameter] = {}
    offset, end = 0, len(data)
    while offset < end:
        number, wire, start, stop, offset = next_field(data, offset, end)
        if number == 3 and wire in (VARINT, BYTES):
            # Counted before it is read: there may be millions.
            if len(message.shape) >= MAX_RANK or stop - start > MAX_RANK * MAX_VARINT_BYTES:
                raise InferenceError(f"a tensor's shape has more than {MAX_RANK} dimensions")
            message.shape += [to_signed(start)] if wire == VARINT else small_numbers(data[start:stop])
        elif wire != BYTES:
            continue
        elif number == 1:
            message.name = to_text(data[start:stop])
        elif number == 2:
            message.datatype = to_text(data[start:stop])
        elif number == 4:
            _parameter_entry(data[start:stop], parameters)
        elif number == 5:
            if message.contents is None:
                message.contents = {}
            parse_contents(data[start:stop], message.contents)
    if parameters:
        message.parameters = parameters
    return message


def _requested_output(data: memoryview) -> RequestedOutput:
    name = ""
    parameters: dict[str, Parameter] = {}
    for number, wire, value in fields(data):
        if wire == BYTES and number == 1:
            name = to_text(value)
        elif wire == BYTES and number == 2:
            _parameter_entry(value, parameters)
    return RequestedOutput(name, parameters)


def _parameter_entry(data: memoryview, into: dict[str, Parameter]) -> None:
    """One entry of a map<string, InferParameter>; an entry without a value is left out."""
    key = ""
    value: Parameter | None = None
    for number, wire, item in fields(data):
        if wire == BYTES and number == 1:
            key = to_text(item)
        elif wire == BYTES and number == 2:
            value = _parameter(item, value)
    if value is None:
        into.pop(key, None)
    elif len(into) < MAX_PARAMETERS or key in into:
        into[key] = value
    else:
        raise InferenceError(f"more than {MAX_PARAMETERS} parameters")


def _parameter(data: memoryview, value: Parameter | None) -> Parameter | None:
    for number, wire, item in fields(data):
        if number == 1 and wire == VARINT:
            value = bool(item)
        elif number == 2 and wire == VARINT:
            value = to_signed(item)
        elif number == 3 and wire == BYTES:
            value = to_text(item)
    return value


def _parameter_fields(number: int, parameters: Parameters) -> Iterable[bytes]:
    for key, value in parameters.items():
        yield field_bytes(number, field_text(1, key) + field_bytes(2, _encode_parameter(value)))


def _encode_parameter(value: Any) -> bytes:
    """An InferParameter, written out even where zero: it is a oneof. A float has no field and goes as text."""
    if isinstance(value, bool):
        return b"\x08" + varint(int(value))
    if isinstance(value, int):
        return b"\x10" + varint(value)
    return field_bytes(3, str(value).encode("utf-8", "replace"))


@dataclass(frozen=True)
class ModelId:
    """What ModelReadyRequest, ModelMetadataRequest and the repository's requests say."""

    name: str = ""
    version: str = ""


@dataclass(frozen=True)
class TensorMetadata:
    """One input or output in a model's metadata; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """A ModelMetadataResponse.

    `columns`, ours and no part of the protocol, names the columns of the one input in their order: what the model was
    trained on. Others skip the field, as protobuf wants it.
    """

    name: str
    platform: str = ""
    inputs: tuple[TensorMetadata, ...] = ()
    outputs: tuple[TensorMetadata, ...] = ()
    versions: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


def decode_model_id(data: bytes) -> ModelId:
    """Any request that names a model. Raises InferenceError (400)."""
    texts = {1: "", 2: ""}
    for number, wire, value in fields(memoryview(data)):
        if wire == BYTES and number in texts:
            texts[number] = to_text(value)
    return ModelId(texts[1], texts[2])


def encode_model_id(model: ModelId) -> bytes:
    """Any request that names a model."""
    return field_text(1, model.name) + field_text(2, model.version)


def encode_flag(value: bool) -> bytes:
    """ServerLiveResponse, ServerReadyResponse or ModelReadyResponse."""
    return field_varint(1, int(value))


def decode_flag(data: bytes) -> bool:
    """The same, read. Raises InferenceError (400)."""
    flag = False
    for number, wire, value in fields(memoryview(data)):
        if number == 1 and wire == VARINT:
            flag = bool(value)
    return flag


def encode_repository_response(name: str, done: bool) -> bytes:
    """RepositoryModelLoadResponse or RepositoryModelUnloadResponse."""
    return field_text(1, name) + field_varint(2, int(done))


def encode_server_metadata(name: str, version: str, extensions: Sequence[str]) -> bytes:
    """A ServerMetadataResponse."""
    return (
        field_text(1, name)
        + field_text(2, version)
        + b"".join(field_bytes(3, item.encode()) for item in extensions)
    )


def encode_model_metadata(metadata: ModelMetadata) -> bytes:
    """A ModelMetadataResponse."""
    parts = [field_text(1, metadata.name)]
    parts.extend(field_bytes(2, version.encode()) for version in metadata.versions)
    parts.append(field_text(3, metadata.platform))
    parts.extend(field_bytes(4, _encode_tensor_metadata(item)) for item in metadata.inputs)
    parts.extend(field_bytes(5, _encode_tensor_metadata(item)) for item in metadata.outputs)
    parts.extend(field_bytes(_COLUMNS, column.encode()) for column in metadata.columns)
    return b"".join(parts)


# Field numbers of ModelMetadataResponse.
_NAME, _INPUTS, _OUTPUTS, _COLUMNS = 1, 4, 5, 1000


def decode_model_metadata(data: bytes) -> ModelMetadata:
    """A ModelMetadataResponse, without platform and versions. Raises InferenceError (400) for what is none."""
    name = ""
    tensors: dict[int, list[TensorMetadata]] = {_INPUTS: [], _OUTPUTS: []}
    columns: list[str] = []
    for number, wire, value in fields(memoryview(data)):
        if number == _NAME and wire == BYTES:
            name = to_text(value)
        elif number in tensors and wire == BYTES:
            tensors[number].append(_decode_tensor_metadata(value))
        elif number == _COLUMNS and wire == BYTES:
            columns.append(to_text(value))
    return ModelMetadata(
        name, inputs=tuple(tensors[_INPUTS]), outputs=tuple(tensors[_OUTPUTS]), columns=tuple(columns)
    )


def _decode_tensor_metadata(data: memoryview) -> TensorMetadata:
    texts = {1: "", 2: ""}
    shape: list[int] = []
    for number, wire, value in fields(data):
        if number in texts and wire == BYTES:
            texts[number] = to_text(value)
        elif number == 3:
            sizes = [value] if wire == VARINT else packed_varints(value).tolist()
            shape.extend(to_signed(int(size)) for size in sizes)
    return TensorMetadata(texts[1], texts[2], tuple(shape))


def _encode_tensor_metadata(item: TensorMetadata) -> bytes:
    shape = b"".join(varint(dimension) for dimension in item.shape)
    return field_text(1, item.name) + field_text(2, item.datatype) + (field_bytes(3, shape) if shape else b"")


def refuse_missing(request: InferRequest) -> None:
    """Raises InferenceError (400) where a float input holds NaN."""
    for tensor in request.inputs:
        if tensor.datatype in _FLOATS:
            check_missing(tensor.name, tensor.data)

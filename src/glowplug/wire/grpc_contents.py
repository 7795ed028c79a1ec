"""`InferTensorContents`: tensor data in gRPC's typed form.

A message may carry a field packed, one element at a time, or in several runs: all are legal protobuf and mean their
concatenation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.wire.binary import aligned
from glowplug.wire.datatypes import DATATYPES, Datatype
from glowplug.wire.protobuf import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    field_bytes,
    fields,
    malformed,
    pack_varints,
    packed_varints,
)
from glowplug.wire.tensors import Tensor, check_count, check_missing

# field number -> (wire type of one element, dtype of a fixed-width one)
_BOOL, _INT, _INT64, _UINT, _UINT64, _FP32, _FP64, _BYTES = range(1, 9)
_FIELD_OF = {
    "BOOL": _BOOL, "INT8": _INT, "INT16": _INT, "INT32": _INT, "INT64": _INT64, "UINT8": _UINT, "UINT16": _UINT,
    "UINT32": _UINT, "UINT64": _UINT64, "FP32": _FP32, "FP64": _FP64, "BYTES": _BYTES,
}  # fmt: skip
_NAMES = {
    _BOOL: "bool_contents", _INT: "int_contents", _INT64: "int64_contents", _UINT: "uint_contents",
    _UINT64: "uint64_contents", _FP32: "fp32_contents", _FP64: "fp64_contents", _BYTES: "bytes_contents",
}  # fmt: skip

Contents = dict[int, list[Any]]


def has_field(datatype: str) -> bool:
    """Whether the typed form can carry the datatype (FP16 and BF16 travel raw only)."""
    return datatype in _FIELD_OF


def parse_contents(data: memoryview, into: Contents) -> None:
    """Adds a message's runs to `into`, by field number. Raises InferenceError (400)."""
    for number, wire, value in fields(data):
        if number == _BYTES and wire == BYTES:
            into.setdefault(number, []).append(bytes(value))
        elif number in (_FP32, _FP64):
            dtype, one = ("<f4", FIXED32) if number == _FP32 else ("<f8", FIXED64)
            if wire not in (BYTES, one):
                continue
            if len(value) % (4 if number == _FP32 else 8):
                raise malformed(f"{_NAMES[number]} is cut off")
            into.setdefault(number, []).append(aligned(np.frombuffer(value, dtype=dtype)))
        elif _BOOL <= number <= _UINT64 and wire == BYTES:
            into.setdefault(number, []).append(packed_varints(value))
        elif _BOOL <= number <= _UINT64 and wire == VARINT:
            into.setdefault(number, []).append(np.array([value], dtype=np.uint64))


def decode_contents(
    name: str, datatype: str, shape: tuple[int, ...], contents: Contents, *, accepts_missing: bool
) -> Any:
    """The `data` of a Tensor from typed contents. Raises InferenceError (400)."""
    expected = _FIELD_OF.get(datatype)
    if expected is None:
        if not contents and 0 in shape:
            return np.empty(shape, dtype=DATATYPES[datatype].dtype)
        raise InferenceError(f"tensor {name!r}: {datatype} can be sent as raw_input_contents only")
    for number, runs in contents.items():
        if number != expected and any(len(run) for run in runs):
            raise InferenceError(
                f"tensor {name!r}: {datatype} is in {_NAMES[number]}, expected {_NAMES[expected]}"
            )
    runs = contents.get(expected, [])
    if expected == _BYTES:
        check_count(name, shape, len(runs))
        return runs
    kind = DATATYPES[datatype]
    flat = runs[0] if len(runs) == 1 else np.concatenate(runs) if runs else np.empty(0, dtype=kind.dtype)
    check_count(name, shape, int(flat.size))
    array = _narrow(name, kind, flat).reshape(shape)
    if kind.kind == "float" and not accepts_missing:
        check_missing(name, array)
    return array


def _narrow(name: str, kind: Datatype, flat: Any) -> Any:
    if kind.kind == "float":
        return flat
    if kind.kind == "bool":
        return flat != 0
    if kind.name in ("INT64", "UINT64"):
        return flat.view(kind.dtype) if flat.dtype == np.uint64 else flat.astype(kind.dtype)
    # protobuf keeps the low 32 bits of an int32 or uint32, whatever was sent.
    wide = flat.astype(np.uint64).astype(np.uint32)
    wide = wide.view(np.int32) if kind.low < 0 else wide
    if wide.size and (int(wide.min()) < kind.low or int(wide.max()) > kind.high):
        raise InferenceError(
            f"tensor {name!r}: an element is outside {kind.name} ({kind.low} to {kind.high})"
        )
    return wide.astype(kind.dtype)


def encode_contents(tensor: Tensor) -> bytes:
    """The message of a tensor's data; `has_field` must hold."""
    number = _FIELD_OF[tensor.datatype]
    if number == _BYTES:
        return b"".join(field_bytes(number, item) for item in tensor.data)
    flat = tensor.array().reshape(-1)
    if flat.size == 0:
        return b""
    if number in (_FP32, _FP64):
        return field_bytes(number, flat.tobytes())
    if tensor.datatype.startswith("INT"):
        flat = flat.astype(np.int64).view(np.uint64)
    return field_bytes(number, pack_varints(flat))

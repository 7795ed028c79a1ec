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
from glowplug.wire.packed import count_varints, pack_varints, packed_varints
from glowplug.wire.protobuf import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Buffer,
    field_bytes,
    fields,
    malformed,
    varint,
)
from glowplug.wire.tensors import Tensor, check_count, check_missing

_BOOL, _INT, _INT64, _UINT, _UINT64, _FP32, _FP64, _BYTES = range(1, 9)
_FIELD_OF = {
    "BOOL": _BOOL, "INT8": _INT, "INT16": _INT, "INT32": _INT, "INT64": _INT64, "UINT8": _UINT, "UINT16": _UINT,
    "UINT32": _UINT, "UINT64": _UINT64, "FP32": _FP32, "FP64": _FP64, "BYTES": _BYTES,
}  # fmt: skip
_NAMES = {
    _BOOL: "bool_contents", _INT: "int_contents", _INT64: "int64_contents", _UINT: "uint_contents",
    _UINT64: "uint64_contents", _FP32: "fp32_contents", _FP64: "fp64_contents", _BYTES: "bytes_contents",
}  # fmt: skip

# By field number: a view of the one run, or all runs one after the other; for BYTES the elements.
Contents = dict[int, Any]


def has_field(datatype: str) -> bool:
    """Whether the typed form can carry the datatype (FP16 and BF16 travel raw only)."""
    return datatype in _FIELD_OF


def parse_contents(data: memoryview, into: Contents) -> None:
    """Adds a message's runs to `into`, by field number, as they are on the wire. Raises InferenceError (400).

    A run may be a single element: nothing is made for each, so that a message takes no more memory than it is long.
    """
    for number, wire, value in fields(data):
        if number == _BYTES and wire == BYTES:
            into.setdefault(number, []).append(bytes(value))
        elif number in (_FP32, _FP64):
            if wire not in (BYTES, FIXED32 if number == _FP32 else FIXED64):
                continue
            if len(value) % (4 if number == _FP32 else 8):
                raise malformed(f"{_NAMES[number]} is cut off")
            _append(into, number, value)
        elif _BOOL <= number <= _UINT64 and wire == BYTES:
            if len(value) and value[-1] >= 0x80:
                raise malformed("a packed field ends inside a number")
            _append(into, number, value)
        elif _BOOL <= number <= _UINT64 and wire == VARINT:
            _append(into, number, varint(value))


def _append(into: Contents, number: int, run: Buffer) -> None:
    before = into.get(number)
    if before is None:
        into[number] = run
    elif isinstance(before, bytearray):
        before += run
    else:
        into[number] = bytearray(before) + run


def decode_contents(
    name: str, datatype: str, shape: tuple[int, ...], contents: Contents, *, accepts_missing: bool
) -> Any:
    """The `data` of a Tensor from typed contents. Raises InferenceError (400)."""
    expected = _FIELD_OF.get(datatype)
    if expected is None:
        if not contents and 0 in shape:
            return np.empty(shape, dtype=DATATYPES[datatype].dtype)
        raise InferenceError(f"tensor {name!r}: {datatype} can be sent as raw_input_contents only")
    for number, found in contents.items():
        if number != expected and len(found):
            raise InferenceError(
                f"tensor {name!r}: {datatype} is in {_NAMES[number]}, expected {_NAMES[expected]}"
            )
    runs = contents.get(expected, b"")
    if expected == _BYTES:
        check_count(name, shape, len(runs))
        return runs or []
    kind = DATATYPES[datatype]
    if kind.kind == "float":
        check_count(name, shape, len(runs) // kind.item_size)
        array = aligned(np.frombuffer(runs, dtype=kind.dtype)).reshape(shape)
        if not accepts_missing:
            check_missing(name, array)
        return array
    # Before it is read, which takes several times its own memory.
    check_count(name, shape, count_varints(runs))
    return _narrow(name, kind, packed_varints(runs)).reshape(shape)


def _narrow(name: str, kind: Datatype, flat: Any) -> Any:
    if kind.kind == "bool":
        return flat != 0
    if kind.name in ("INT64", "UINT64"):
        return flat.view(kind.dtype)
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

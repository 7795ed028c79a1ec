"""The raw form of tensor data: row-major, little-endian, no padding; BYTES elements have a 4-byte length before them.

V2's binary extension over HTTP and gRPC's `raw_*_contents` are both this. Sizes are compared before anything is
allocated.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.wire.datatypes import DATATYPES
from glowplug.wire.protobuf import Buffer
from glowplug.wire.tensors import Tensor, check_missing, element_count

_LENGTH = struct.Struct("<I")


def decode_raw(
    name: str, datatype: str, shape: tuple[int, ...], raw: Buffer, *, accepts_missing: bool
) -> Any:
    """The `data` of a Tensor from its raw form; arrays are aligned, and read-only views of `raw` where
    they can be.

    Raises InferenceError (400) where the size is not what shape and datatype say.
    """
    kind = DATATYPES[datatype]
    if kind.kind == "bytes":
        return _decode_bytes(name, shape, raw)
    expected = element_count(shape) * kind.item_size
    if len(raw) != expected:
        raise InferenceError(
            f"tensor {name!r}: {datatype} of shape {list(shape)} needs {expected} bytes, the data has {len(raw)}"
        )
    if kind.kind == "bool":
        flags = np.frombuffer(raw, dtype=np.uint8)
        if flags.size and int(flags.max()) > 1:
            raise InferenceError(f"tensor {name!r}: a BOOL byte is neither 0 nor 1")
        return flags.view(np.bool_).reshape(shape)
    if datatype == "BF16":
        array = (np.frombuffer(raw, dtype="<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    else:
        array = aligned(np.frombuffer(raw, dtype=kind.dtype)).reshape(shape)
    if kind.kind == "float" and not accepts_missing:
        check_missing(name, array)
    return array


def aligned(array: Any) -> Any:
    """The array, copied where it begins in the middle of a word: a message's parts do, and native code refuses it."""
    return array if array.flags.aligned else array.copy()


def _decode_bytes(name: str, shape: tuple[int, ...], raw: Buffer) -> list[bytes]:
    count = element_count(shape)
    if count * 4 > len(raw):
        raise InferenceError(
            f"tensor {name!r}: {count} BYTES elements need at least {count * 4} bytes, the data has {len(raw)}"
        )
    view = memoryview(raw)
    items: list[bytes] = []
    offset = 0
    for index in range(count):
        if offset + 4 > len(view):
            raise InferenceError(f"tensor {name!r}: the data ends at element {index} of {count}")
        (length,) = _LENGTH.unpack_from(view, offset)
        offset += 4
        if offset + length > len(view):
            raise InferenceError(
                f"tensor {name!r}: element {index} says {length} bytes, {len(view) - offset} are left"
            )
        items.append(bytes(view[offset : offset + length]))
        offset += length
    if offset != len(view):
        raise InferenceError(f"tensor {name!r}: {len(view) - offset} bytes are left after {count} elements")
    return items


def encode_raw(tensor: Tensor) -> bytes:
    """The raw form of a tensor's data."""
    if tensor.datatype == "BYTES":
        return b"".join([part for item in tensor.data for part in (_LENGTH.pack(len(item)), item)])
    if tensor.datatype == "BF16":
        return bytes(_to_bf16(tensor.array()).tobytes())
    return bytes(tensor.array().tobytes())


def _to_bf16(array: Any) -> Any:
    """float32 -> the upper 16 bits, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype("<u2")

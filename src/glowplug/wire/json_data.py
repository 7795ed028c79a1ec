"""Tensor data in JSON: flat or nested lists <-> arrays, element types checked exactly.

numpy's own conversion takes "1.5" for 1.5, True for 1, null for NaN, and a list that mixes long and short strings for
an order to allocate their product; so types are looked at first, and numpy sees only what it converts faithfully.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from struct import pack_into
from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.wire.datatypes import DATATYPES, Datatype
from glowplug.wire.tensors import MAX_RANK, Tensor, check_count, kind_of

# A float stands for every integer up to here; above, a client's number was rounded before it was sent.
MAX_EXACT_FLOAT = 2.0**53
# Above, numpy's own conversion is as fast.
MAX_PACKED = 4096
_ONLY_FLOATS = {float}
_NUMBERS = {float, int, type(None)}


def decode_data(name: str, datatype: str, shape: tuple[int, ...], data: Any, *, accepts_missing: bool) -> Any:
    """The `data` of a Tensor from JSON's. Raises InferenceError (400) where it disagrees with shape or datatype."""
    if type(data) is not list:
        raise InferenceError(f"tensor {name!r}: data is {kind_of(data)}, expected an array")
    flat = _flatten(name, shape, data)
    check_count(name, shape, len(flat))
    return convert(name, DATATYPES[datatype], shape, flat, accepts_missing=accepts_missing)


def convert(
    name: str, kind: Datatype, shape: tuple[int, ...], flat: list[Any], *, accepts_missing: bool
) -> Any:
    """Flat JSON values, as many as `shape` says, to the `data` of a Tensor."""
    types = set(map(type, flat))
    if kind.kind == "float":
        return _to_floats(name, kind, shape, flat, types, accepts_missing)
    if type(None) in types:
        raise InferenceError(f"tensor {name!r}: element {flat.index(None)} is null, expected {kind.name}")
    if kind.kind == "bytes":
        _check_types(name, kind, flat, types, {str, bytes})
        return [item.encode("utf-8", "surrogatepass") if type(item) is str else item for item in flat]
    if kind.kind == "bool":
        _check_types(name, kind, flat, types, {bool})
        return np.array(flat, dtype=np.bool_).reshape(shape)
    return _to_integers(name, kind, shape, flat, types)


def _to_floats(
    name: str,
    kind: Datatype,
    shape: tuple[int, ...],
    flat: list[Any],
    types: set[type],
    accepts_missing: bool,
) -> Any:
    if types == _ONLY_FLOATS:
        if kind.name == "FP32" and len(flat) <= MAX_PACKED:
            array = _packed(flat)
            if array is not None:
                return array.reshape(shape)
    else:
        if type(None) in types and not accepts_missing:
            raise InferenceError(
                f"tensor {name!r}: element {flat.index(None)} is null; this model takes no missing values"
            )
        _check_types(name, kind, flat, types, _NUMBERS)
    try:
        with np.errstate(over="ignore"):
            # JSON's numbers are never NaN, and one that is too large for the datatype is infinite.
            return np.array(flat, dtype=kind.dtype).reshape(shape)
    except OverflowError as error:
        raise InferenceError(f"tensor {name!r}: a number is too large for {kind.name}") from error


def _packed(flat: list[float]) -> Any:
    """What numpy makes of so many floats, writable, in a third of its time; None where one is too large."""
    data = bytearray(4 * len(flat))
    try:
        pack_into(f"<{len(flat)}f", data, 0, *flat)
    except OverflowError:
        return None
    return np.frombuffer(data, dtype=DATATYPES["FP32"].dtype)


def _to_integers(name: str, kind: Datatype, shape: tuple[int, ...], flat: list[Any], types: set[type]) -> Any:
    if float in types:
        flat = [_integral(name, kind, index, item) for index, item in enumerate(flat)]
        types = set(map(type, flat))
    _check_types(name, kind, flat, types, {int})
    if flat and (min(flat) < kind.low or max(flat) > kind.high):
        index = next(i for i, item in enumerate(flat) if not kind.low <= item <= kind.high)
        raise InferenceError(
            f"tensor {name!r}: element {index} is outside {kind.name} ({kind.low} to {kind.high})"
        )
    return np.array(flat, dtype=kind.dtype).reshape(shape)


def _integral(name: str, kind: Datatype, index: int, item: Any) -> Any:
    if type(item) is not float:
        return item
    if not item.is_integer() or abs(item) > MAX_EXACT_FLOAT:
        raise InferenceError(f"tensor {name!r}: element {index} is not a whole number, expected {kind.name}")
    return int(item)


def _check_types(name: str, kind: Datatype, flat: list[Any], types: set[type], allowed: set[type]) -> None:
    if types <= allowed:
        return
    index, found = next((i, item) for i, item in enumerate(flat) if type(item) not in allowed)
    raise InferenceError(f"tensor {name!r}: element {index} is {kind_of(found)}, expected {kind.name}")


def _flatten(name: str, shape: tuple[int, ...], data: list[Any]) -> list[Any]:
    """Row-major elements. Nested lists must nest exactly as the shape says; a flat list is taken as it is."""
    if not data or type(data[0]) is not list:
        return data
    for axis, size in enumerate(shape):
        rows = [data] if axis == 0 else data
        for row in rows:
            if type(row) is not list:
                raise InferenceError(
                    f"tensor {name!r}: {kind_of(row)} where shape {list(shape)} needs an array (axis {axis})"
                )
            if len(row) != size:
                raise InferenceError(
                    f"tensor {name!r}: an array of {len(row)} where shape {list(shape)} needs {size} (axis {axis})"
                )
        if axis:
            data = list(chain.from_iterable(data))
    return data


def infer_shape(name: str, data: Any) -> tuple[tuple[int, ...], list[Any]]:
    """The shape and the flat elements of nested lists that come without a shape, as V1's do.

    Raises InferenceError (400) for ragged lists.
    """
    shape: list[int] = []
    level: list[Any] = [data]
    while level and type(level[0]) is list:
        size = len(level[0])
        if any(type(row) is not list or len(row) != size for row in level):
            raise InferenceError(f"tensor {name!r}: rows of different length or depth (axis {len(shape)})")
        shape.append(size)
        if len(shape) > MAX_RANK:
            raise InferenceError(f"tensor {name!r}: nested more than {MAX_RANK} deep")
        level = list(chain.from_iterable(level))
    if any(type(item) is list for item in level):
        raise InferenceError(f"tensor {name!r}: rows of different depth (axis {len(shape)})")
    return tuple(shape), level


def encode_data(tensor: Tensor) -> Any:
    """JSON's flat `data` of a tensor; orjson writes float32 as the shortest text that reads back the same.

    Raises InferenceError (400) for bytes that are not text: JSON cannot carry them, the binary form can.
    """
    if tensor.datatype == "BYTES":
        try:
            return [item.decode() for item in tensor.data]
        except UnicodeDecodeError as error:
            raise InferenceError(
                f"tensor {tensor.name!r}: an element is not UTF-8 text and cannot be written as JSON",
                hint="ask for binary_data, or use gRPC",
            ) from error
    flat = tensor.array().reshape(-1)
    return flat.tolist() if flat.dtype == np.float16 else flat


def rows_of(tensor: Tensor) -> list[Any]:
    """Nested Python lists of a tensor, as V1 writes it; BYTES as text, or base64 objects where it is none."""
    if tensor.datatype != "BYTES":
        rows = tensor.data.tolist()
        return rows if isinstance(rows, list) else [rows]
    leaves: Iterator[Any] = map(_text, tensor.data)
    return _nest(leaves, tensor.shape)


def _nest(leaves: Iterator[Any], shape: tuple[int, ...]) -> list[Any]:
    if not shape:
        return [next(leaves)]
    if len(shape) == 1:
        return [next(leaves) for _ in range(shape[0])]
    return [_nest(leaves, shape[1:]) for _ in range(shape[0])]


def _text(item: bytes) -> Any:
    import base64

    try:
        return item.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(item).decode()}

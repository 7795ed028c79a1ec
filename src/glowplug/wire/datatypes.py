"""The V2 protocol's datatypes: what each is called, holds and weighs.

BF16 has no numpy dtype: its values are held as float32 and narrowed only on the wire. BYTES holds byte strings of
any length, kept as a flat list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from glowplug.errors import InferenceError

Kind = Literal["bool", "int", "float", "bytes"]


@dataclass(frozen=True)
class Datatype:
    """One V2 datatype. `item_size` is bytes an element in the binary form (0: BYTES, length-prefixed)."""

    name: str
    kind: Kind
    dtype: Any  # np.dtype in memory
    item_size: int
    low: int = 0
    high: int = 0


def _integer(name: str, dtype: str) -> Datatype:
    info = np.iinfo(dtype)
    return Datatype(name, "int", np.dtype(dtype), info.bits // 8, int(info.min), int(info.max))


DATATYPES: dict[str, Datatype] = {
    datatype.name: datatype
    for datatype in (
        Datatype("BOOL", "bool", np.dtype("?"), 1),
        _integer("INT8", "<i1"),
        _integer("INT16", "<i2"),
        _integer("INT32", "<i4"),
        _integer("INT64", "<i8"),
        _integer("UINT8", "<u1"),
        _integer("UINT16", "<u2"),
        _integer("UINT32", "<u4"),
        _integer("UINT64", "<u8"),
        Datatype("FP16", "float", np.dtype("<f2"), 2),
        Datatype("BF16", "float", np.dtype("<f4"), 2),
        Datatype("FP32", "float", np.dtype("<f4"), 4),
        Datatype("FP64", "float", np.dtype("<f8"), 8),
        Datatype("BYTES", "bytes", np.dtype("O"), 0),
    )
}

_BY_DTYPE = {
    datatype.dtype.str: name for name, datatype in DATATYPES.items() if name not in ("BF16", "BYTES")
}


def datatype_of(dtype: Any) -> str:
    """The V2 datatype of a numpy dtype; strings and objects are BYTES. Raises TypeError for what V2 cannot say."""
    if dtype.kind in "OSU":
        return "BYTES"
    name = _BY_DTYPE.get(dtype.newbyteorder("<").str)
    if name is None:
        raise TypeError(f"numpy dtype {dtype} has no V2 datatype")
    return name


def find_datatype(tensor: str, name: object) -> Datatype:
    """The datatype that a tensor names. Raises InferenceError (400) that lists the known ones."""
    datatype = DATATYPES.get(name) if isinstance(name, str) else None
    if datatype is None:
        known = ", ".join(DATATYPES)
        found = repr(name[:20]) if isinstance(name, str) else type(name).__name__
        raise InferenceError(f"tensor {tensor!r}: datatype is {found}, expected one of {known}")
    return datatype

"""Rows ↔ bytes: what one value in Redis looks like.

    format u16 | features u16 | schema hash 8 bytes | event timestamp i64, ms | features × f32      little-endian

A whole batch is packed or unpacked by one numpy structured array, not row by row in Python.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from glowplug.errors import FeatureError
from glowplug.features.view import SCHEMA_HASH_BYTES, Group

FORMAT = 1
_START = struct.Struct(f"<HH{SCHEMA_HASH_BYTES}s")
HEADER_BYTES = 2 + 2 + SCHEMA_HASH_BYTES + 8

Float32s: TypeAlias = npt.NDArray[np.float32]
Int64s: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """n rows of one group: `values` float32 [n, features], `event_ms` int64 [n], `found` bool [n].

    Where `found` is False the other two mean nothing. NaN in a found row is a NULL of the source. The arrays may be
    read-only views.
    """

    values: Float32s
    event_ms: Int64s
    found: Bools

    @classmethod
    def empty(cls, count: int, features: int) -> Rows:
        return cls(
            np.full((count, features), np.nan, dtype=np.float32),
            np.zeros(count, dtype=np.int64),
            np.zeros(count, dtype=np.bool_),
        )


def pack(group: Group, event_ms: Int64s, values: Float32s) -> list[bytes]:
    """n values for Redis from `event_ms` int64 [n] and `values` float32 [n, features of the group].

    Raises `FeatureError` when the shapes do not fit the group.
    """
    expected = (len(event_ms), len(group.features))
    if values.shape != expected:
        raise FeatureError(f"rows of group {group.name} have shape {values.shape}, must be {expected}")
    records = np.zeros(len(event_ms), dtype=_record(len(group.features)))
    records["format"] = FORMAT
    records["features"] = len(group.features)
    records["schema"] = _schema(group)
    records["event_ms"] = event_ms
    records["values"] = values
    size = records.itemsize
    data = records.tobytes()
    return [data[start : start + size] for start in range(0, len(data), size)]


def unpack(group: Group, packed: Sequence[bytes | None]) -> Rows:
    """The rows of n values as Redis returned them, None for a key that it does not have.

    Raises `FeatureError` when a value was not written for this group's feature list.
    """
    record = _record(len(group.features))
    size = record.itemsize
    # Of the right group and format, by their first bytes; only where one is not is it worked out what is wrong.
    start = _START.pack(FORMAT, len(group.features), group.schema_hash)
    for value in packed:
        if value is not None and (len(value) != size or not value.startswith(start)):
            raise _foreign(group, value, size)
    absent = bytes(size)
    data = b"".join([absent if value is None else value for value in packed])
    records = np.frombuffer(data, dtype=record)
    found = np.array([value is not None for value in packed], dtype=np.bool_)
    return Rows(records["values"], records["event_ms"], found)


@lru_cache(maxsize=256)
def _record(features: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("format", "<u2"),
            ("features", "<u2"),
            ("schema", "<u8"),
            ("event_ms", "<i8"),
            ("values", "<f4", (features,)),
        ]
    )


def _foreign(group: Group, value: bytes, size: int) -> FeatureError:
    """What is wrong with a value that was not written for this group."""
    again = "materialize the view again"
    if len(value) != size:
        return FeatureError(f"a row of group {group.name} has {len(value)} bytes, must be {size}", hint=again)
    written, _, schema = _START.unpack_from(value)
    if written != FORMAT:
        return FeatureError(f"rows of group {group.name} have format {written}, must be {FORMAT}", hint=again)
    return FeatureError(
        f"rows of group {group.name} were written for the feature list {schema.hex()}, "
        f"must be {group.schema_hash.hex()}",
        hint=again,
    )


def _schema(group: Group) -> int:
    return int.from_bytes(group.schema_hash, "little")

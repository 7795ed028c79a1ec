"""Packed runs of varints, as protobuf has them, to and from numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from glowplug.wire.protobuf import MAX_VARINT_BYTES, Buffer, malformed

# How much of a run is decoded at once.
PIECE_BYTES = 2**18


def count_varints(data: Buffer) -> int:
    """How many numbers a packed run holds."""
    return int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) < 0x80))


def packed_varints(data: Buffer) -> Any:
    """A uint64 array of a packed run of varints. Raises InferenceError (400)."""
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size == 0:
        return np.empty(0, dtype=np.uint64)
    is_last = raw < 0x80
    if is_last.all():
        return raw.astype(np.uint64)
    if not is_last[-1]:
        raise malformed("a packed field ends inside a number")
    ends: Any = np.flatnonzero(is_last) + 1
    if raw.size <= PIECE_BYTES:
        return _varints(raw, ends)
    # The intermediate arrays take 30 times the memory of what they are made of.
    first = np.arange(0, ends.size, PIECE_BYTES // MAX_VARINT_BYTES)
    values: Any = np.empty(ends.size, dtype=np.uint64)
    for low, high in zip(first, [*first[1:], ends.size], strict=True):
        start = ends[low - 1] if low else 0
        values[low:high] = _varints(raw[start : ends[high - 1]], ends[low:high] - start)
    return values


def _varints(raw: Any, ends: Any) -> Any:
    """The numbers that end before the offsets `ends`."""
    starts = np.concatenate(([0], ends[:-1]))
    lengths = ends - starts
    if int(lengths.max()) > MAX_VARINT_BYTES:
        raise malformed("a number is longer than 10 bytes")
    place = np.arange(raw.size) - np.repeat(starts, lengths)
    parts = (raw & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts)


def pack_varints(values: Any) -> bytes:
    """The packed varints of a uint64 array (signed values as their two's complement)."""
    values = np.ascontiguousarray(values).astype(np.uint64)
    if values.size == 0 or int(values.max()) < 0x80:
        return bytes(values.astype(np.uint8).tobytes())
    shifts = np.arange(MAX_VARINT_BYTES, dtype=np.uint64) * np.uint64(7)
    groups = (values[:, None] >> shifts) & np.uint64(0x7F)
    lengths = np.maximum(MAX_VARINT_BYTES - np.argmax(groups[:, ::-1] != 0, axis=1), 1)
    lengths[values == 0] = 1
    column = np.arange(MAX_VARINT_BYTES)
    groups[column[None, :] < lengths[:, None] - 1] |= np.uint64(0x80)
    return bytes(groups[column[None, :] < lengths[:, None]].astype(np.uint8).tobytes())

"""The protobuf wire format, as much of it as the inference messages need.

Own code because importing a generated module costs more than everything else a predictor imports, and because a
second copy of these messages in one process clashes with kserve's in protobuf's global pool.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.wire.binary import Buffer

VARINT, FIXED64, BYTES, START_GROUP, END_GROUP, FIXED32 = 0, 1, 2, 3, 4, 5
MAX_VARINT_BYTES = 10
MAX_GROUP_DEPTH = 64
MASK_64 = (1 << 64) - 1


def malformed(why: str) -> InferenceError:
    """What every unreadable message is answered with."""
    return InferenceError(f"the protobuf message is malformed: {why}")


def read_varint(data: Buffer, offset: int, end: int) -> tuple[int, int]:
    """An unsigned 64-bit varint and the offset after it. Raises InferenceError (400)."""
    value = 0
    for index in range(MAX_VARINT_BYTES):
        if offset >= end:
            raise malformed("it ends inside a number")
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & MASK_64, offset
    raise malformed("a number is longer than 10 bytes")


def fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Every field as (number, wire type, value): an int, or a view of the bytes; groups are skipped, as unknown.

    Raises InferenceError (400) where the bytes are no message.
    """
    offset, end = 0, len(data)
    while offset < end:
        key = data[offset]
        if key < 0x80:
            offset += 1
        else:
            key, offset = read_varint(data, offset, end)
        number, wire = key >> 3, key & 7
        if number == 0 or key > 0xFFFFFFFF:
            raise malformed("a field has no valid number")
        if wire == BYTES:
            length, offset = read_varint(data, offset, end)
            if length > end - offset:
                raise malformed(f"field {number} says {length} bytes, {end - offset} are left")
            yield number, wire, data[offset : offset + length]
            offset += length
        elif wire == VARINT:
            value, offset = read_varint(data, offset, end)
            yield number, wire, value
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            if size > end - offset:
                raise malformed(f"field {number} is cut off")
            yield number, wire, data[offset : offset + size]
            offset += size
        elif wire == START_GROUP:
            offset = _skip_group(data, offset, end, number)
        else:
            raise malformed(f"field {number} has wire type {wire}")


def _skip_group(data: memoryview, offset: int, end: int, number: int) -> int:
    open_groups = [number]
    while open_groups:
        key, offset = read_varint(data, offset, end)
        number, wire = key >> 3, key & 7
        if number == 0 or key > 0xFFFFFFFF:
            raise malformed("a field has no valid number")
        if wire == VARINT:
            _, offset = read_varint(data, offset, end)
        elif wire == START_GROUP:
            open_groups.append(number)
            if len(open_groups) > MAX_GROUP_DEPTH:
                raise malformed("groups are nested too deep")
        elif wire == END_GROUP:
            if open_groups.pop() != number:
                raise malformed("a group ends that did not start")
        elif wire == BYTES:
            length, offset = read_varint(data, offset, end)
            offset += length
        elif wire in (FIXED32, FIXED64):
            offset += 4 if wire == FIXED32 else 8
        else:
            raise malformed(f"field {number} has wire type {wire}")
        if offset > end:
            raise malformed("it ends inside a group")
    return offset


def to_text(value: memoryview) -> str:
    """A string field. Raises InferenceError (400) for what is not UTF-8."""
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise malformed("a string is not UTF-8") from None


def to_signed(value: int) -> int:
    """An int64 from its varint."""
    return value - (1 << 64) if value >= 1 << 63 else value


def packed_varints(data: memoryview) -> Any:
    """A uint64 array of a packed run of varints. Raises InferenceError (400)."""
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size == 0:
        return np.empty(0, dtype=np.uint64)
    is_last = raw < 0x80
    if is_last.all():
        return raw.astype(np.uint64)
    if not is_last[-1]:
        raise malformed("a packed field ends inside a number")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
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


def varint(value: int) -> bytes:
    """The varint of an int (negative: as int64, ten bytes)."""
    value &= MASK_64
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_bytes(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def field_text(number: int, value: str) -> bytes:
    """A string field; nothing where it is empty, as proto3 has it."""
    return field_bytes(number, value.encode("utf-8", "replace")) if value else b""


def field_varint(number: int, value: int) -> bytes:
    """A number or boolean; nothing where it is zero, as proto3 has it."""
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def fixed(value: Buffer, code: str) -> Any:
    """One fixed-width number."""
    return struct.unpack(code, value)[0]

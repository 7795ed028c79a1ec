"""The protobuf wire format, as much of it as the inference messages need.

Own code because importing a generated module costs more than everything else a predictor imports, and because a
second copy of these messages in one process clashes with kserve's in protobuf's global pool.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from glowplug.errors import InferenceError

Buffer = bytes | bytearray | memoryview
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
        number, wire, start, stop, offset = next_field(data, offset, end)
        if wire == VARINT:
            yield number, wire, start
        elif wire != START_GROUP:
            yield number, wire, data[start:stop]


def next_field(data: Buffer, offset: int, end: int) -> tuple[int, int, int, int, int]:
    """The field at `offset`: number, wire type, where its value starts and stops, and where the next field is.

    A varint's value stands in the place of its start. Raises InferenceError (400).
    """
    key = data[offset]
    if key < 0x80:
        offset += 1
    else:
        key, offset = read_varint(data, offset, end)
    number, wire = key >> 3, key & 7
    if number == 0 or key > 0xFFFFFFFF:
        raise malformed("a field has no valid number")
    if wire == BYTES:
        if offset < end and data[offset] < 0x80:
            size = data[offset]
            offset += 1
        else:
            size, offset = read_varint(data, offset, end)
        if size > end - offset:
            raise malformed(f"field {number} says {size} bytes, {end - offset} are left")
    elif wire == VARINT:
        value, offset = read_varint(data, offset, end)
        return number, wire, value, 0, offset
    elif wire in (FIXED32, FIXED64):
        size = 4 if wire == FIXED32 else 8
        if size > end - offset:
            raise malformed(f"field {number} is cut off")
    elif wire == START_GROUP:
        return number, wire, offset, offset, _skip_group(data, offset, end, number)
    else:
        raise malformed(f"field {number} has wire type {wire}")
    return number, wire, offset, offset + size, offset + size


def _skip_group(data: Buffer, offset: int, end: int, number: int) -> int:
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


_SHORT = [bytes((value,)) for value in range(0x80)]


def small_numbers(data: Buffer) -> list[int]:
    """The signed numbers of a short packed run, as a shape is. Raises InferenceError (400)."""
    numbers = []
    offset, end = 0, len(data)
    while offset < end:
        value, offset = read_varint(data, offset, end)
        numbers.append(to_signed(value))
    return numbers


def varint(value: int) -> bytes:
    """The varint of an int (negative: as int64, ten bytes)."""
    if 0 <= value < 0x80:
        return _SHORT[value]
    value &= MASK_64
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

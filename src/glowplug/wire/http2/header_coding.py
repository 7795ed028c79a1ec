"""HPACK (RFC 7541): header blocks <-> names and values.

The hpack package needs 5 µs a field, so the way of a request is our own; its Huffman table is used. Decoding
remembers whole blocks: a client that asks for the same again sends the same bytes, and they mean the same while the
dynamic table has not changed. Encoding is without a dynamic table, so that a block depends on nothing, can be made
once, and can be sent in any order.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache

from glowplug.wire.http2.frames import COMPRESSION_ERROR, ConnectionFailed
from glowplug.wire.http2.huffman import decode_huffman
from glowplug.wire.http2.static_table import STATIC_TABLE

Field = tuple[str, str]
Headers = dict[str, str]

TABLE_BYTES = 4096
# RFC 7541, 4.1: what an entry counts for beside its two strings.
ENTRY_BYTES = 32
# A block that is not met again costs its bytes once.
MAX_BLOCKS = 64
MAX_BLOCK_BYTES = 2048
# Huffman strings up to so many bytes are looked up among those seen last.
MAX_KNOWN_BYTES = 128
# Long enough for every number that can mean anything here.
MAX_INTEGER_BYTES = 5

_STATIC = len(STATIC_TABLE)
_FULL_INDEX = {field: index for index, field in reversed(list(enumerate(STATIC_TABLE, start=1)))}
_NAME_INDEX = {field[0]: index for index, field in reversed(list(enumerate(STATIC_TABLE, start=1)))}
# Not to be remembered by us, nor indexed by a proxy on the way.
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})


class TooManyHeaders(Exception):
    """The list is larger than was announced; the dynamic table is in step all the same."""


class HeaderDecoder:
    """The decoding end of one connection. `max_list_bytes`: as SETTINGS_MAX_HEADER_LIST_SIZE counts them."""

    def __init__(self, max_list_bytes: int) -> None:
        self._max_list_bytes = max_list_bytes
        self._entries: deque[Field] = deque()
        self._size = 0
        self._max_size = TABLE_BYTES
        self._blocks: dict[bytes, Headers] = {}

    def headers(self, block: bytes, check: Callable[[list[Field]], Headers]) -> Headers:
        """What `check` makes of the fields; a block met before gives the same object again.

        Raises ConnectionFailed (COMPRESSION_ERROR), TooManyHeaders, and what `check` raises.
        """
        known = self._blocks.get(block)
        if known is not None:
            return known
        fields, is_changed = self.decode(block)
        headers = check(fields)
        if not is_changed and len(block) <= MAX_BLOCK_BYTES:
            if len(self._blocks) >= MAX_BLOCKS:
                self._blocks.clear()
            self._blocks[block] = headers
        return headers

    def decode(self, block: bytes) -> tuple[list[Field], bool]:
        """The fields, and whether the dynamic table has changed. Raises ConnectionFailed, TooManyHeaders."""
        fields: list[Field] = []
        offset, end, size, is_changed = 0, len(block), 0, False
        while offset < end:
            byte = block[offset]
            if byte >= 0x80:
                index, offset = (byte & 0x7F, offset + 1) if byte != 0xFF else _integer(block, offset, 0x7F)
                field = self._at(index)
            elif byte >= 0x40:
                field, offset = self._literal(block, offset, byte, 0x3F)
                self._add(field)
                is_changed = True
            elif byte >= 0x20:
                offset = self._resize(block, offset, bool(fields))
                is_changed = True
                continue
            else:
                field, offset = self._literal(block, offset, byte, 0x0F)
            size += len(field[0]) + len(field[1]) + ENTRY_BYTES
            if size <= self._max_list_bytes:
                fields.append(field)
        if is_changed:
            self._blocks.clear()
        if size > self._max_list_bytes:
            raise TooManyHeaders
        return fields, is_changed

    def skip(self, block: bytes) -> None:
        """Reads a block for the dynamic table's sake alone. Raises ConnectionFailed (COMPRESSION_ERROR)."""
        with contextlib.suppress(TooManyHeaders):
            self.decode(block)

    def _at(self, index: int) -> Field:
        if 0 < index <= _STATIC:
            return STATIC_TABLE[index - 1]
        try:
            if index > _STATIC:
                return self._entries[index - _STATIC - 1]
        except IndexError:
            pass
        raise ConnectionFailed(COMPRESSION_ERROR, f"there is no header field {index}")

    def _literal(self, block: bytes, offset: int, byte: int, mask: int) -> tuple[Field, int]:
        index = byte & mask
        if index == mask:
            index, offset = _integer(block, offset, mask)
        else:
            offset += 1
        if index:
            name = self._at(index)[0]
        else:
            name, offset = _string(block, offset)
        value, offset = _string(block, offset)
        return (name, value), offset

    def _add(self, field: Field) -> None:
        self._entries.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + ENTRY_BYTES
        self._evict()

    def _resize(self, block: bytes, offset: int, is_late: bool) -> int:
        size, offset = _integer(block, offset, 0x1F)
        if is_late or size > TABLE_BYTES:
            raise ConnectionFailed(
                COMPRESSION_ERROR, "a change of the table's size is misplaced or too large"
            )
        self._max_size = size
        self._evict()
        return offset

    def _evict(self) -> None:
        while self._size > self._max_size:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + ENTRY_BYTES


def _integer(block: bytes, offset: int, mask: int) -> tuple[int, int]:
    try:
        value = block[offset] & mask
        offset += 1
        if value < mask:
            return value, offset
        for place in range(MAX_INTEGER_BYTES):
            byte = block[offset]
            offset += 1
            value += (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value, offset
    except IndexError:
        pass
    raise ConnectionFailed(COMPRESSION_ERROR, "a number in a header block is cut off or too long")


def _string(block: bytes, offset: int) -> tuple[str, int]:
    if offset >= len(block):
        raise ConnectionFailed(COMPRESSION_ERROR, "a header block is cut off")
    first = block[offset]
    length = first & 0x7F
    if length == 0x7F:
        length, offset = _integer(block, offset, 0x7F)
    else:
        offset += 1
    end = offset + length
    if end > len(block):
        raise ConnectionFailed(COMPRESSION_ERROR, "a header block is cut off")
    if first & 0x80:
        text = block[offset:end]
        return _known_string(text) if length <= MAX_KNOWN_BYTES else decode_huffman(text), end
    return str(block[offset:end], "latin-1"), end


# Envoy, for one, sends the path of each request in full.
_known_string = lru_cache(1024)(decode_huffman)


def encode(fields: Iterable[Field]) -> bytes:
    """A header block that needs no dynamic table. Names must be lower-case; values are sent as latin-1."""
    return b"".join(
        [
            _encode_field(name, value, 0x10) if name in _SECRET else _remembered(name, value)
            for name, value in fields
        ]
    )


def _encode_field(name: str, value: str, form: int) -> bytes:
    """`form` 0x00: a literal that is not indexed; 0x10: that no proxy may index either."""
    index = _FULL_INDEX.get((name, value))
    if index is not None:
        return bytes((0x80 | index,))
    index = _NAME_INDEX.get(name)
    if index is None:
        head = bytes((form,)) + _encode_string(name)
    else:
        head = _encode_integer(index, 0x0F, form)
    return head + _encode_string(value)


@lru_cache(1024)
def _remembered(name: str, value: str) -> bytes:
    return _encode_field(name, value, 0x00)


def _encode_string(text: str) -> bytes:
    data = text.encode("latin-1", "replace")
    return _encode_integer(len(data), 0x7F, 0x00) + data


def _encode_integer(value: int, mask: int, form: int) -> bytes:
    if value < mask:
        return bytes((form | value,))
    out = bytearray((form | mask,))
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

"""Huffman strings of HPACK, decoded a byte at a time.

hpack's table has a step for each half byte; this joins two of them when they are first met and remembers the pair:
8 -> 3 µs for a request id. The table is imported at the first such string, since reading it in costs milliseconds
and many peers (every gRPC client on C-core) send none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glowplug.wire.http2.frames import COMPRESSION_ERROR, ConnectionFailed

_Step = tuple[list[Any], str]
# A state is its 256 steps by byte, each the next state and the text that is complete with it, or None until it is met.
# They depend on nothing but RFC 7541: there are at most 256 states.
_states: dict[int, list[Any]] = {0: [None] * 256}
# States in which a string may end, by id: whole, or with padding of the code of EOS.
_ends: set[int] = {id(_states[0])}
_numbers: dict[int, int] = {id(_states[0]): 0}
_table: Sequence[tuple[int, int, int]] = ()
_COMPLETE, _EMIT, _FAIL = 1, 2, 4


def decode_huffman(data: bytes) -> str:
    """The string, as latin-1. Raises ConnectionFailed (COMPRESSION_ERROR) for what is no such string."""
    state = _states[0]
    out = []
    for byte in data:
        step = state[byte]
        if step is None:
            step = _learn(state, byte)
        state, text = step
        out.append(text)
    if id(state) not in _ends:
        raise _broken()
    return "".join(out)


def _learn(state: list[Any], byte: int) -> _Step:
    global _table
    if not _table:
        from hpack.huffman_table import HUFFMAN_TABLE

        _table = HUFFMAN_TABLE
    text = ""
    flags = 0
    now = _numbers[id(state)]
    for nibble in (byte >> 4, byte & 15):
        now, flags, code = _table[now * 16 + nibble]
        if flags & _FAIL:
            raise _broken()
        if flags & _EMIT:
            text += chr(code)
    after = _states.get(now)
    if after is None:
        after = _states[now] = [None] * 256
        _numbers[id(after)] = now
    if flags & _COMPLETE:
        _ends.add(id(after))
    step = state[byte] = (after, text)
    return step


def _broken() -> ConnectionFailed:
    return ConnectionFailed(COMPRESSION_ERROR, "a Huffman string is not valid")

"""What is said of a request that was copied: frames, bytes -> values, pure. `copy.lua` and `encoding` write them.

A frame is two lengths, of eight hexadecimal digits each, then so many bytes of texts, then so many of a body. Between
the texts is NUL: the request's number, its side, what follows, what the route says of it (JSON, with a request's first
frame only), then names and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

import orjson

_LENGTH_DIGITS = 8
_LENGTHS_BYTES = 2 * _LENGTH_DIGITS
# More than Envoy takes of headers (60 KiB) and a route says, and the body's piece.
MAX_FRAME_BYTES = 256 * 1024
_FIXED_TEXTS = 4


class State(Enum):
    """What follows this part on its side."""

    MORE = "+"
    LAST = "."
    TOO_LARGE = "!"  # nothing: the body is larger than what is copied


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the request with that number, or of the answer to it."""

    id: str
    is_answer: bool
    state: State
    about: Mapping[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def take_frames(buffer: bytearray) -> Iterator[Part]:
    """The parts that are whole in the buffer; what it held of them is gone from it at the end.

    Raises ValueError for what is no frame.
    """
    at = 0
    view = bytes(buffer)
    while len(view) - at >= _LENGTHS_BYTES:
        texts = at + _LENGTHS_BYTES
        body = texts + int(view[at : at + _LENGTH_DIGITS], 16)
        end = body + int(view[at + _LENGTH_DIGITS : texts], 16)
        if not texts <= body <= end <= texts + MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {end - texts} bytes, must be at most {MAX_FRAME_BYTES}")
        if end > len(view):
            break
        yield _part(view[texts:body].decode("utf-8", "replace").split("\0"), view[body:end])
        at = end
    del buffer[:at]


def _part(texts: list[str], body: bytes) -> Part:
    if len(texts) < _FIXED_TEXTS:
        raise ValueError(f"a frame of {len(texts)} texts, must be at least {_FIXED_TEXTS}")
    id_, side, state, about = texts[:_FIXED_TEXTS]
    headers: dict[str, str] = {}
    for name, value in zip(texts[_FIXED_TEXTS::2], texts[_FIXED_TEXTS + 1 :: 2], strict=False):
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return Part(id_, side == "a", State(state), _about(about) if about else {}, headers, body)


@lru_cache(1024)
def _about(text: str) -> Mapping[str, str]:
    about = orjson.loads(text)
    if not isinstance(about, dict):
        raise ValueError("what a route says of its requests is an object")
    return about

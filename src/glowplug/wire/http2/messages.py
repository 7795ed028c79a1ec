"""gRPC on HTTP/2 as values: messages in DATA frames, deadlines, status texts, compression.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from urllib.parse import quote_from_bytes, unquote_to_bytes

from glowplug.wire.http2 import status

# Whether it is compressed, and its length.
PREFIX = struct.Struct(">BL")
PREFIX_BYTES = 5

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# Printable ASCII but the percent sign stays as it is.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if code != 0x25)


class MessageRefused(Exception):
    """The stream is answered with this status: the messages on it cannot be read."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class PartialMessage:
    """A message of which not all has come."""

    __slots__ = ("_need", "_parts", "have", "is_compressed")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._need = PREFIX_BYTES
        self.have = 0
        self.is_compressed = -1

    def add(self, data: bytes, start: int, stop: int, limit: int) -> int:
        """Takes what it needs, and returns the offset after it. Raises MessageRefused past `limit` bytes."""
        while True:
            taken = min(self._need - self.have, stop - start)
            self._parts.append(data[start : start + taken])
            self.have += taken
            start += taken
            if self.have < self._need or self.is_compressed >= 0:
                return start
            self.is_compressed, size = PREFIX.unpack(b"".join(self._parts))
            check_size(size, limit)
            self._parts.clear()
            self.have, self._need = 0, size

    def take(self) -> bytes | None:
        """The message, if it is whole."""
        if self.is_compressed < 0 or self.have < self._need:
            return None
        return b"".join(self._parts)


def check_size(size: int, limit: int) -> None:
    """Raises MessageRefused (RESOURCE_EXHAUSTED) for more than `limit` bytes."""
    if size > limit:
        raise MessageRefused(
            status.RESOURCE_EXHAUSTED, f"the message has {size} bytes, at most {limit} are allowed"
        )


def is_known_encoding(name: str) -> bool:
    """Whether messages compressed that way can be read."""
    return name in ("identity", "gzip", "deflate")


def inflate(data: bytes, encoding: str, limit: int) -> bytes:
    """A compressed message, inflated. Raises MessageRefused: not such data, or more than `limit` bytes."""
    if encoding == "identity":
        raise MessageRefused(status.INTERNAL, "a message is compressed, but no grpc-encoding was sent")
    inflater = zlib.decompressobj(wbits=31 if encoding == "gzip" else 15)
    try:
        plain = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise MessageRefused(status.INTERNAL, f"a message is not {encoding}: {error}") from error
    if len(plain) > limit:
        raise MessageRefused(
            status.RESOURCE_EXHAUSTED, f"the message has more than {limit} bytes when inflated"
        )
    if not inflater.eof:
        raise MessageRefused(status.INTERNAL, f"a {encoding} message is cut off")
    return plain


def grpc_timeout_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the client waits, from `grpc-timeout`; None where it does not say, or not in gRPC's form."""
    text = headers.get("grpc-timeout")
    found = _TIMEOUT.fullmatch(text) if text is not None else None
    return int(found[1]) * _UNITS[found[2]] if found else None


def timeout_text(seconds: float) -> str:
    """The `grpc-timeout` for at least so many seconds, rounded up, in at most 8 digits."""
    if seconds >= 1000 or seconds == int(seconds):
        return f"{min(int(seconds) + (seconds > int(seconds)), 99_999_999)}S"
    if seconds >= 10:
        return f"{int(seconds * 1e3) + 1}m"
    return f"{max(int(seconds * 1e6), 0) + 1}u"


def encode_text(text: str) -> str:
    """A `grpc-message`: percent-encoded UTF-8."""
    if text.isascii() and text.isprintable() and "%" not in text:
        return text
    return quote_from_bytes(text.encode("utf-8", "replace"), safe=_PLAIN)


def decode_text(text: str) -> str:
    """What a `grpc-message` says; what cannot be decoded is left as it is."""
    if "%" not in text:
        return text
    return unquote_to_bytes(text).decode("utf-8", "replace")

"""HTTP/2's frames, as much of RFC 9113 as bytes: the 9-byte head, the types, and what is written back."""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

(
    NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
    REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM,
) = range(12)  # fmt: skip

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)  # fmt: skip

DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
DEFAULT_FRAME_SIZE = 2**14
MAX_STREAM_ID = 2**31 - 1
HEAD_BYTES = 9

# The length is 24 bits: its upper 16 and its lower 8.
HEAD = struct.Struct(">HBBBL")
_SETTING = struct.Struct(">HL")
_U32 = struct.Struct(">L")
_WINDOW_UPDATE = struct.Struct(">HBBBLL")
_GOAWAY = struct.Struct(">LL")


class ConnectionFailed(Exception):
    """The peer broke the protocol, and the connection ends with a GOAWAY that says `code`."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class StreamFailed(Exception):
    """One stream ends with RST_STREAM `code`; the connection goes on."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def headers_frames(stream_id: int, block: bytes, flags: int, max_frame: int) -> bytes:
    """A header block as one HEADERS frame, and CONTINUATION frames where it is longer than the peer takes."""
    if len(block) <= max_frame:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [frame(HEADERS, flags, stream_id, block[:max_frame])]
    for start in range(max_frame, len(block), max_frame):
        is_last = start + max_frame >= len(block)
        parts.append(
            frame(CONTINUATION, END_HEADERS if is_last else 0, stream_id, block[start : start + max_frame])
        )
    return b"".join(parts)


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(*item) for item in values.items()]))


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a payload whose length is a multiple of 6, in order."""
    return list(_SETTING.iter_unpack(payload))


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return _WINDOW_UPDATE.pack(0, 4, WINDOW_UPDATE, 0, stream_id, increment)


def reset(stream_id: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return _WINDOW_UPDATE.pack(0, 4, RST_STREAM, 0, stream_id, code)


def goaway(last_stream_id: int, code: int, why: str = "") -> bytes:
    """A GOAWAY frame; `why` is for whoever debugs the peer."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_stream_id, code) + why.encode("ascii", "replace")[:200])


def parse_u32(payload: bytes) -> int:
    """The number at the start of a payload of at least 4 bytes."""
    return int(_U32.unpack_from(payload)[0])

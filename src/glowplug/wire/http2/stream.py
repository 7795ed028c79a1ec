"""One stream: a call. Thousands of them are held at a time, so it has what it needs and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glowplug.wire.http2.connection import Connection
    from glowplug.wire.http2.messages import PartialMessage


class Stream:
    """A call on a connection. `state` is the handler's own; `is_open`: the answer is still to be given (or to come)."""

    __slots__ = (
        "connection", "content_left", "credit", "encoding", "id", "is_open", "is_remote_open", "partial", "pending",
        "received", "state",
    )  # fmt: skip

    def __init__(self, connection: Connection, stream_id: int, is_remote_open: bool) -> None:
        self.connection = connection
        self.id = stream_id
        self.is_remote_open = is_remote_open
        self.is_open = True
        # What the peer's WINDOW_UPDATEs gave less what was sent: its initial window, which may change, comes on top.
        self.credit = 0
        # Received since our last WINDOW_UPDATE.
        self.received = 0
        # Of the content-length, where one was sent.
        self.content_left: int | None = None
        # How its messages are compressed; empty for a stream that the handler has not got.
        self.encoding = ""
        self.partial: PartialMessage | None = None
        # The rest of the body, and the frames after it.
        self.pending: tuple[memoryview, bytes] | None = None
        self.state: Any = None

    def reply(self, message: bytes) -> None:
        """Answers with one message and status OK. Does nothing where nobody waits any more."""
        if self.is_open:
            self.connection.reply(self, message)

    def reply_error(self, code: int, text: str, trailers: Sequence[tuple[str, str]] = ()) -> None:
        """Answers with another status. Does nothing where nobody waits any more."""
        if self.is_open:
            self.connection.reply_error(self, code, text, trailers)

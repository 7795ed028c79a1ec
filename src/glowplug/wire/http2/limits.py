"""What a peer may ask of a connection, and the allowance of what costs us work and the peer nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one connection; sizes are bytes."""

    # A gRPC message, before and after inflating; refused from its 5-byte prefix.
    max_message_bytes: int = 4 * 2**20
    # Streams that the peer may have open at a time; more are refused (REFUSED_STREAM: safe to send again).
    max_streams: int = 1024
    # All that is held for streams whose messages are not whole yet. A peer that goes beyond it is refused.
    max_buffered_bytes: int = 256 * 2**20
    max_header_list_bytes: int = 64 * 2**10
    max_frame_bytes: int = 64 * 2**10
    # What a peer may send ahead. It is given back as it comes, so these bound what is on the way, not a message.
    stream_window: int = 2**20
    connection_window: int = 16 * 2**20
    # Frames without use (see Allowance): so many at once (never below max_streams), a tenth of it a second for ever.
    useless_burst: int = 2000

    def __post_init__(self) -> None:
        if self.max_frame_bytes < 2**14 or self.connection_window < 65_535:
            raise ValueError(
                "HTTP/2 has no smaller frames than 16 KiB and no smaller windows than 65,535 bytes"
            )


class Allowance:
    """A token bucket for frames without use: PING, SETTINGS, PRIORITY, empty DATA, and RST_STREAM.

    Each of them costs us more than its sender (CVE-2019-9512, -9515, -9518, CVE-2023-44487). What a connection did
    usefully pays for more of them: an ingress whose clients come and go resets many streams, among many more.
    """

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = float(burst)
        self._per_s = per_s
        self._left = float(burst)
        self._at = 0.0

    def earn(self) -> None:
        """A stream was answered."""
        if self._left < self._burst:
            self._left += 1.0

    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Whether one more is allowed; `now` in seconds on any steady clock."""
        if self._left < cost:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
            self._at = now
            if self._left < cost:
                return False
        elif self._left >= self._burst:
            self._at = now
        self._left -= cost
        return True

"""Lines of container output as container runtimes keep them: `<time> stdout F <text>`. Pure.

A line longer than MAX_LINE is kept in pieces, all but the last tagged `P`, so that no line can exhaust memory.
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

MAX_LINE = 16 * 1024


@dataclass(frozen=True)
class Line:
    """One kept line (or piece). `time` is RFC 3339 with nanoseconds, UTC."""

    time: str
    is_partial: bool
    text: bytes


class LineSplitter:
    """Chunks of output → complete lines and pieces; holds at most MAX_LINE bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """(text without newline, is it a piece of a longer line) for all that is complete now."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        result: list[tuple[bytes, bool]] = []
        for line in complete:
            result.extend(_pieces(line))
        while len(self._rest) >= MAX_LINE:
            result.append((self._rest[:MAX_LINE], True))
            self._rest = self._rest[MAX_LINE:]
        return result

    def flush(self) -> list[tuple[bytes, bool]]:
        """What is left when the output ends without a newline."""
        rest, self._rest = self._rest, b""
        return [(rest, False)] if rest else []


def _pieces(line: bytes) -> list[tuple[bytes, bool]]:
    starts = range(0, max(len(line), 1), MAX_LINE)
    return [(line[start : start + MAX_LINE], start + MAX_LINE < len(line)) for start in starts]


def stamp(now_ns: int) -> str:
    """RFC 3339 with nanoseconds, UTC; such stamps sort as text."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def encode(time: str, text: bytes, is_partial: bool) -> bytes:
    """One line of the file."""
    return b"%s stdout %s %s\n" % (time.encode(), b"P" if is_partial else b"F", text)


def decode(raw: bytes) -> Line | None:
    """The line behind `encode`'s output (without its newline), or None if it is not one."""
    parts = raw.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"P", b"F"):
        return None
    return Line(parts[0].decode("ascii", "replace"), parts[2] == b"P", parts[3])


def render(line: Line, has_timestamp: bool, is_continued: bool) -> bytes:
    """As `kubectl logs` shows it: pieces of one line joined, a timestamp once a line."""
    head = line.time.encode() + b" " if has_timestamp and not is_continued else b""
    return head + line.text + (b"" if line.is_partial else b"\n")

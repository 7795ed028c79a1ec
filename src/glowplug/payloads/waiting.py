"""The events that wait for their sink, bounded in number and bytes. Pure.

What does not find room is not taken: the newest are lost, so that those that are told of are without gaps up to then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from glowplug.payloads.config import PayloadsConfig
from glowplug.spec.logger import Logger
from glowplug.wire.events import CloudEvent

# What an event takes beside its data: attributes, objects.
_OVERHEAD_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event, and whose it is."""

    logger: Logger
    event: CloudEvent

    @property
    def size(self) -> int:
        return len(self.event.data or b"") + _OVERHEAD_BYTES


@dataclass
class Line:
    """The events for one sink, and how many are at work on them."""

    events: deque[Waiting] = field(default_factory=deque)
    workers: int = 0


class Lines:
    """A line for each sink's URL."""

    def __init__(self, config: PayloadsConfig) -> None:
        self._config = config
        self._lines: dict[str, Line] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return sum(len(line.events) for line in self._lines.values())

    def has_room(self, url: str) -> bool:
        """Whether that sink's line takes another event."""
        line = self._lines.get(url)
        is_short = line is None or len(line.events) < self._config.max_waiting
        return is_short and self.bytes < self._config.max_waiting_bytes

    def add(self, url: str, waiting: Waiting) -> Line | None:
        """The line that the event waits in now; None if there is no room."""
        if not self.has_room(url):
            return None
        line = self._lines.setdefault(url, Line())
        line.events.append(waiting)
        self.bytes += waiting.size
        return line

    def take(self, line: Line, *, is_batched: bool) -> list[Waiting]:
        """The next of a line to be sent at once: one, or as many as a batch holds."""
        config = self._config
        most, left = (config.max_batch, config.max_batch_bytes) if is_batched else (1, 0)
        taken: list[Waiting] = []
        while line.events and len(taken) < most and (not taken or line.events[0].size <= left):
            waiting = line.events.popleft()
            left -= waiting.size
            self.bytes -= waiting.size
            taken.append(waiting)
        return taken

    def forget(self, url: str) -> None:
        """A line that is empty and that nobody works on."""
        line = self._lines.get(url)
        if line is not None and not line.events and not line.workers:
            del self._lines[url]

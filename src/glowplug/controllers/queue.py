"""The queue of one work loop: each key once, in order, with back-off after failures and timers for what is due later.

Pure but for its own state: time comes in as a parameter, and nothing waits in here.
"""

from __future__ import annotations

import heapq
from collections import deque

from .keys import Key


class WorkQueue:
    """Keys to reconcile. A key that is added again while it waits is not doubled."""

    def __init__(self, retry_base_s: float, retry_max_s: float) -> None:
        self._ready: deque[Key] = deque()
        self._waiting: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._sequence = 0
        self._failures: dict[Key, int] = {}
        self._retry_base_s = retry_base_s
        self._retry_max_s = retry_max_s

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: Key) -> None:
        """To be done as soon as possible."""
        if key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)

    def add_at(self, key: Key, due: float) -> None:
        """To be done at `due` (seconds since the epoch), unless something wakes it before."""
        if self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))

    def retry(self, key: Key, now: float) -> float:
        """Puts a failed key back after its back-off; returns the seconds until then."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._retry_base_s * 2.0 ** min(failures, 40), self._retry_max_s)
        self.add_at(key, now + delay)
        return delay

    def succeed(self, key: Key) -> None:
        """Ends the back-off of a key."""
        self._failures.pop(key, None)

    def next(self, now: float) -> Key | None:
        """Takes the next key whose time has come."""
        self._promote(now)
        if not self._ready:
            return None
        key = self._ready.popleft()
        self._waiting.discard(key)
        return key

    def next_due(self) -> float | None:
        """When the earliest timer ends; None without one."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _promote(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            self.add(key)

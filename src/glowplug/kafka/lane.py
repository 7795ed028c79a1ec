"""Hands the events of one partition on, in the event loop: its own pace, its own retries, nobody else's.

Ordered, one event is under way at a time, its waits included. Unordered, an event that waits for its next attempt
holds up no other; it only keeps the committed offset where it is, see `progress`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from glowplug.kafka.progress import Progress
from glowplug.kafka.records import Record
from glowplug.wire.events import CloudEvent

_LOG = logging.getLogger(__name__)
# After an error of our own; what a sink does is a verdict, and no error.
_RESTART_S = 1.0


class Later(Protocol):
    """An event is to be tried again at `at`; `attempts` have been made."""

    @property
    def at(self) -> float: ...
    @property
    def attempts(self) -> int: ...


class Handler(Protocol):
    """Who takes events."""

    async def handle(self, event: CloudEvent, attempts: int, last: Any) -> Later | None:
        """One attempt, `attempts` having been made. None: the event is over, taken or a dead letter.

        `last` is what the attempt before answered, None where that was in another process.
        """


class Lane:
    """Of one partition. `add` records in order; `run` it in a task."""

    def __init__(
        self,
        name: str,
        progress: Progress,
        handler: Handler,
        convert: Callable[[Record], CloudEvent],
        *,
        concurrency: int,
        most_open: int,
        on_change: Callable[[], None],
    ) -> None:
        """At most `concurrency` attempts go on at once, beside retries, and `most_open` events are not over."""
        self.name = name
        self.progress = progress
        self.held = 0
        self.held_bytes = 0
        self.is_dirty = False
        self.is_paused = False
        self.committed_at = 0.0
        self._handler = handler
        self._convert = convert
        self._concurrency = concurrency
        self._most_open = most_open
        self._on_change = on_change
        self._queue: deque[Record] = deque()
        self._active = self._starting = 0
        self._is_stopping = False
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._scope = anyio.CancelScope()

    def add(self, records: Sequence[Record]) -> None:
        """Records that were read, later ones than all before."""
        self._queue.extend(records)
        self.held += len(records)
        self.held_bytes += sum(record.size for record in records)
        self._woken.set()

    async def run(self) -> None:
        """Until stopped or cancelled."""
        with self._scope:
            async with anyio.create_task_group() as tasks:
                while True:
                    self._woken.clear()
                    while self._queue and self._has_place():
                        self._start(tasks, self._queue.popleft())
                    await self._woken.wait()

    async def drain(self, for_s: float) -> None:
        """Takes nothing more, waits so long for attempts under way, and ends."""
        self._is_stopping = True
        with anyio.move_on_after(for_s):
            await self._idle.wait()
        self._scope.cancel()

    def stop(self) -> None:
        """Ends at once."""
        self._is_stopping = True
        self._scope.cancel()

    def _has_place(self) -> bool:
        has_place = self._active + self._starting < self._concurrency
        return has_place and self.progress.open < self._most_open and not self._is_stopping

    def _start(self, tasks: TaskGroup, record: Record) -> None:
        if self.progress.is_over(record.offset):
            self.progress.pass_over(record.offset)
            self._let_go(record)
            return
        attempts = self.progress.take(record.offset)
        # Before its task runs: the next one is looked at at once.
        self._starting += 1
        tasks.start_soon(self._deliver, record, attempts, name=f"offset {record.offset} of {self.name}")

    async def _deliver(self, record: Record, attempts: int) -> None:
        event = self._convert(record)
        self._starting -= 1
        try:
            last = await self._attempt(event, attempts, None)
            while last is not None:
                self.progress.note(record.offset, last.attempts)
                self._changed()
                await anyio.sleep(max(0.0, last.at - time.time()))
                last = await self._attempt(event, last.attempts, last)
            self.progress.settle(record.offset)
        finally:
            self._let_go(record)

    async def _attempt(self, event: CloudEvent, attempts: int, last: Later | None) -> Later | None:
        self._begin()
        try:
            while True:
                try:
                    return await self._handler.handle(event, attempts, last)
                except Exception:
                    _LOG.exception("an event of %s failed here, again in %g s", self.name, _RESTART_S)
                    await anyio.sleep(_RESTART_S)
        finally:
            self._end()

    def _begin(self) -> None:
        self._active += 1
        self._idle.clear()

    def _end(self) -> None:
        self._active -= 1
        if not self._active:
            self._idle.set()

    def _let_go(self, record: Record) -> None:
        self.held -= 1
        self.held_bytes -= record.size
        self._changed()
        self._woken.set()

    def _changed(self) -> None:
        self.is_dirty = True
        self._on_change()

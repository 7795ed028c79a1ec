"""The hub: what happened lately, by kind, for those who watch.

Each kind has one log of recent changes. A watcher is a position in that log, not a queue of its own, so a slow one
costs nothing: it falls out of the window and is told 410 Gone. Code in this process subscribes instead: its queue
is unbounded, because it must never miss a change. The logs also answer "what did the list look like at revision
N", which is how a paged list stays consistent.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakSet

from glowplug.apiserver.changes import Change, Ref
from glowplug.errors import Gone
from glowplug.spec.kinds import KINDS, Kind

# A change costs its bytes plus about this much bookkeeping.
_OVERHEAD_BYTES = 300


@dataclass(frozen=True)
class Window:
    """How much history a kind keeps, whichever bound comes first."""

    events: int = 1024
    size_bytes: int = 4 * 2**20


class Log:
    """The recent changes of one kind, oldest first; `base` is the position of the oldest one kept."""

    def __init__(self, window: Window, floor: int) -> None:
        self._window = window
        self._events: list[Change] = []
        self._size = 0
        self._mark = floor
        self.base = 0
        self.floor = floor  # changes up to this revision can no longer be told
        self.wakers: set[asyncio.Event] = set()

    @property
    def end(self) -> int:
        return self.base + len(self._events)

    def append(self, change: Change) -> None:
        self._events.append(change)
        self._size += len(change.raw) + _OVERHEAD_BYTES
        # Half is dropped at a time, so that trimming costs nothing per change.
        if len(self._events) > 2 * self._window.events or self._size > 2 * self._window.size_bytes:
            self._drop(len(self._events) // 2)
        for waker in self.wakers:
            waker.set()

    def since(self, position: int) -> Sequence[Change]:
        """Changes from `position` on. Raises Gone if some of them were dropped."""
        if position < self.base:
            raise Gone("too old resource version: the watcher was slower than the changes it watches")
        return self._events[position - self.base :]

    def position_after(self, revision: int, newest: int) -> int:
        """Where a watch from `revision` starts. Raises Gone if that is compacted away, or was never given out."""
        if not self.floor <= revision <= newest:
            raise Gone(f"too old resource version: {revision} ({newest})", hint="list again, then watch")
        return self.base + bisect_right(self._events, revision, key=lambda change: change.revision)

    def undo(self, revision: int, newest: int) -> dict[Ref, bytes | None]:
        """What the objects changed after `revision` were at it (None: absent). Raises Gone like `position_after`."""
        start = self.position_after(revision, newest) - self.base
        earlier: dict[Ref, bytes | None] = {}
        for change in self._events[start:]:
            earlier.setdefault(change.ref, change.previous)
        return earlier

    def compact(self, revision: int) -> None:
        """Forget the changes up to `revision`."""
        self._drop(bisect_right(self._events, revision, key=lambda change: change.revision))
        self.floor = max(self.floor, revision)

    def forget_read(self, newest: int) -> None:
        """Forget what was already here at the last call: history then lives for one to two periods."""
        self._drop(bisect_right(self._events, self._mark, key=lambda change: change.revision))
        self._mark = newest

    def _drop(self, count: int) -> None:
        if not count:
            return
        self.floor = max(self.floor, self._events[count - 1].revision)
        self._size -= sum(len(change.raw) + _OVERHEAD_BYTES for change in self._events[:count])
        del self._events[:count]
        self.base += count


class Watcher:
    """A position in one kind's log; close it when the client has gone."""

    def __init__(self, log: Log, position: int) -> None:
        self._log = log
        self._position = position
        self._waker = asyncio.Event()
        self.is_closed = False
        log.wakers.add(self._waker)
        if position < log.end:
            self._waker.set()

    async def wait(self) -> None:
        """Until there is something to `take`, or the hub closes."""
        await self._waker.wait()

    def take(self) -> Sequence[Change]:
        """What happened since the last call. Raises Gone when the window has passed this watcher."""
        self._waker.clear()
        changes = self._log.since(self._position)
        self._position += len(changes)
        return changes

    def close(self) -> None:
        self._log.wakers.discard(self._waker)

    def end(self) -> None:
        """The hub closes: `wait` returns at once from now on."""
        self.is_closed = True
        self._waker.set()


class Subscription(AsyncIterator[Change]):
    """Changes for code in this process: everything that existed, then everything that happens, in order."""

    def __init__(self, kinds: Iterable[Kind], existing: Iterable[Change]) -> None:
        self._kinds = frozenset(kind.resource for kind in kinds)
        self._queue: deque[Change] = deque(existing)
        self._waker = asyncio.Event()
        self._is_closed = False

    def offer(self, change: Change) -> None:
        if change.kind.resource in self._kinds:
            self._queue.append(change)
            self._waker.set()

    def pending(self) -> tuple[Change, ...]:
        """What is queued now, without taking it."""
        return tuple(self._queue)

    def close(self) -> None:
        """End the iteration once the queue is empty."""
        self._is_closed = True
        self._waker.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Change:
        while not self._queue:
            if self._is_closed:
                raise StopAsyncIteration
            self._waker.clear()
            await self._waker.wait()
        return self._queue.popleft()


class Hub:
    """Tells every change to those who watch, and remembers the latest."""

    def __init__(self, revision: int, window: Window = Window()) -> None:
        self.revision = revision
        self._logs = {kind.resource: Log(window, revision) for kind in KINDS}
        self._watchers: set[Watcher] = set()
        # Weak: a subscriber whose task died must not fill memory.
        self._subscriptions: WeakSet[Subscription] = WeakSet()

    @property
    def watcher_count(self) -> int:
        return len(self._watchers)

    def publish(self, changes: Iterable[Change]) -> None:
        """Tell what the store has just made durable."""
        for change in changes:
            self.revision = change.revision
            self._logs[change.kind.resource].append(change)
            for subscription in tuple(self._subscriptions):
                subscription.offer(change)

    def watch(self, kind: Kind, revision: int | None = None) -> Watcher:
        """Follow a kind from `revision` (None: from now). Raises Gone if that cannot be told any more."""
        log = self._logs[kind.resource]
        position = log.end if revision is None else log.position_after(revision, self.revision)
        watcher = Watcher(log, position)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """The watcher's client has gone."""
        watcher.close()
        self._watchers.discard(watcher)

    def subscribe(self, kinds: Iterable[Kind], existing: Iterable[Change]) -> Subscription:
        """Follow kinds without ever missing a change; `existing` comes first."""
        subscription = Subscription(kinds, existing)
        self._subscriptions.add(subscription)
        return subscription

    def undo(self, kind: Kind, revision: int) -> dict[Ref, bytes | None]:
        """How a kind's objects differed at `revision`. Raises Gone if that is compacted away."""
        return self._logs[kind.resource].undo(revision, self.revision)

    def compact(self, revision: int) -> None:
        """Forget every change up to `revision`, of all kinds."""
        for log in self._logs.values():
            log.compact(revision)

    def forget_read(self) -> None:
        """Forget what is older than the last call of this."""
        for log in self._logs.values():
            log.forget_read(self.revision)

    def close(self) -> None:
        """End every watch, so that the server can stop."""
        for watcher in tuple(self._watchers):
            watcher.end()
        for subscription in tuple(self._subscriptions):
            subscription.close()

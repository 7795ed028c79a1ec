"""What a trigger may take next: retries that are due, then events that it has not seen, read in pages.

Memory holds one page of each at most, however long the backlog is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol

from glowplug.broker.config import BrokerConfig
from glowplug.broker.filters import Predicate
from glowplug.broker.log_thread import LogThread
from glowplug.broker.recent import Recent
from glowplug.broker.records import CursorState, Page, Pending, Record, TriggerKey
from glowplug.broker.window import Window


class Taker(Protocol):
    """The trigger that takes, as it is now."""

    passes: Predicate
    is_ordered: bool


class Shelf:
    """Of one trigger. `window` is its events under way; `pending` counts what is written down beside them."""

    def __init__(
        self,
        config: BrokerConfig,
        key: TriggerKey,
        log: LogThread,
        recent: Recent,
        taker: Taker,
        state: CursorState,
    ) -> None:
        self._config = config
        self._key = key
        self._log = log
        self._recent = recent
        self._taker = taker
        self.window = Window(state.position, config.window_events)
        self.pending = state.pending
        self.due_at = _or_never(state.due_at)
        # When the oldest pending event was accepted, as of the last look.
        self.oldest_pending_at = _or_never(state.oldest_at)
        # Written down by themselves before the last position was: not to be taken twice.
        self._ahead = state.ahead
        self._due: deque[Pending] = deque()
        self._page: deque[Record] = deque()

    @property
    def next_page_at(self) -> float:
        """When the first event of the page that is being looked at came."""
        return self._page[0].at if self._page else math.inf

    def note_pending(self, item: Pending) -> None:
        """Something was written down, to be looked at when it is due."""
        self.due_at = min(self.due_at, item.next_at)
        self.oldest_pending_at = min(self.oldest_pending_at, item.record.at)

    async def take(self, now: float, under_way: Collection[int]) -> tuple[Pending, bool] | None:
        """The next to deliver, and whether it is written down by itself; None where there is nothing now."""
        if not self._due and self.due_at <= now:
            await self._look_up(now, under_way)
        if self._due:
            return self._due.popleft(), True
        if self._taker.is_ordered and self.pending:
            # Nothing may overtake what is to be tried again.
            return None
        record = await self._next_event()
        return None if record is None else (Pending(record, 0, record.at), False)

    async def _look_up(self, now: float, under_way: Collection[int]) -> None:
        in_order = self._taker.is_ordered
        page = Page(1 if in_order else self._config.page_events, self._config.window_bytes)
        # What is written down while this reads must not be forgotten.
        self.due_at = math.inf
        due = await self._log.read(lambda log: log.due(self._key, now, under_way, page, in_order=in_order))
        found = due.items
        self.oldest_pending_at = _or_never(due.oldest_at)
        if in_order and found and found[0].next_at > now:
            self.due_at = min(self.due_at, found[0].next_at)
            return
        self._due.extend(found)
        is_more = bool(found) and (in_order or len(found) >= page.events or _size(found) >= page.bytes)
        self.due_at = min(self.due_at, now if is_more else _or_never(due.next_at))

    async def _next_event(self) -> Record | None:
        passes = self._taker.passes
        while True:
            while self._page:
                record = self._page.popleft()
                if record.seq not in self._ahead and passes(record.event.attributes):
                    self.window.take(record.seq)
                    return record
                self.window.pass_over(record.seq)
            if self.window.head >= self._recent.last:
                return None
            await self._read_page()

    async def _read_page(self) -> None:
        config, head = self._config, self.window.head
        found = self._recent.after(head, config.page_events)
        if found is None:
            found = await self._log.read(
                lambda log: log.page(self._key[:2], head, Page(config.page_events, config.window_bytes))
            )
            if not found:
                # They were there when the trigger was not: nothing of theirs is left to read.
                self.window.pass_over(self._recent.last)
        self._page.extend(found)


def _size(items: Sequence[Pending]) -> int:
    return sum(item.record.size for item in items)


def _or_never(at: float | None) -> float:
    return math.inf if at is None else at

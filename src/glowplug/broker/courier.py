"""Delivers a Broker's events to one trigger's subscriber: its own position, its own pace, its own retries.

An event is settled when its subscriber has it, or a dead-letter sink, or the log's list of dead letters; or when it is
written down by itself with the time of its next attempt, of which there is one at any time. Where anything ends in
between, the event is delivered again after the next start: at least once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from glowplug.broker.config import BrokerConfig
from glowplug.broker.counts import TriggerCounts, TriggerGauges
from glowplug.broker.filters import Predicate, compiled
from glowplug.broker.log import Log
from glowplug.broker.log_thread import LogThread
from glowplug.broker.recent import Recent
from glowplug.broker.records import CursorState, Pending, TriggerKey
from glowplug.broker.shelf import Shelf
from glowplug.broker.verdict import (
    Again,
    Answer,
    Failure,
    GivenUp,
    Taken,
    Verdict,
    error_attributes,
    judge,
)
from glowplug.errors import StoreFull
from glowplug.spec.eventing import Delivery, Destination, TriggerSpec
from glowplug.wire.events import CloudEvent, encode_binary, encode_structured

_LOG = logging.getLogger(__name__)
_RESTART_S = 1.0
T = TypeVar("T")


class Post(Protocol):
    """Sends a request; never raises for what the other side does."""

    async def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Answer: ...


class Home(Protocol):
    """The Broker that the events come from."""

    delivery: Delivery

    def address(self, destination: Destination) -> str | None:
        """Its URL now, if it has one."""

    async def take_reply(self, event: CloudEvent, ttl: int) -> bool:
        """Writes an event down that a subscriber answered with; False where it has come back too often."""


class Courier:
    """Of one trigger. `spec` may be changed while it runs; `wake` it when anything is new."""

    def __init__(
        self,
        spec: TriggerSpec,
        config: BrokerConfig,
        log: LogThread,
        recent: Recent,
        home: Home,
        client: Post,
    ) -> None:
        self.key: TriggerKey = (spec.namespace, spec.broker, spec.name)
        self.counts = TriggerCounts()
        self._config = config
        self._log = log
        self._recent = recent
        self._home = home
        self._client = client
        self._state: asyncio.Future[CursorState] | None = None
        self._shelf: Shelf | None = None
        self._flying: dict[int, Pending] = {}
        self._flying_bytes = 0
        # Of those under way, the ones that are written down by themselves; and those whose note is to be deleted.
        self._noted: set[int] = set()
        self._over: set[int] = set()
        self._is_dirty = self._is_marking = False
        self._is_stopping = False
        self._woken = asyncio.Event()
        self._scope = anyio.CancelScope()
        self.passes: Predicate = compiled(spec.filter)
        self.is_ordered = spec.is_ordered
        self.spec = spec

    def change(self, spec: TriggerSpec) -> None:
        """From now on another filter, subscriber or delivery. Raises SqlProblem."""
        self.passes = compiled(spec.filter)
        self.is_ordered = spec.is_ordered
        self.spec = spec
        self.wake()

    def wake(self) -> None:
        self._woken.set()

    def register(self) -> None:
        """Fixes where a new trigger begins: behind what is in the log when this is called."""
        if self._state is None:
            self._state = self._log.write(lambda log: log.cursor(self.key))

    def stop(self) -> None:
        """Ends without waiting for what is under way."""
        self._scope.cancel()

    def begin_drain(self) -> None:
        """Takes nothing more."""
        self._is_stopping = True
        self.wake()

    @property
    def is_drained(self) -> bool:
        return not (self._flying or self._is_marking)

    def gauges(self, now: float) -> TriggerGauges:
        """What is to do now, for the metrics."""
        if self._shelf is None:
            return TriggerGauges(0, 0.0, 0)
        backlog = max(0, self._recent.last - self._shelf.window.head) + len(self._flying)
        backlog += max(0, self._shelf.pending - len(self._noted))
        oldest = min((item.record.at for item in self._flying.values()), default=math.inf)
        oldest = min(oldest, self._shelf.next_page_at)
        if self._shelf.pending:
            oldest = min(oldest, self._shelf.oldest_pending_at)
        return TriggerGauges(backlog, max(0.0, now - oldest) if oldest < math.inf else 0.0, len(self._flying))

    async def run(self) -> None:
        """Delivers until cancelled or stopped; what goes wrong in itself is logged, and it begins again."""
        with self._scope:
            while True:
                try:
                    await self._run()
                except Exception:
                    _LOG.exception(
                        "delivering for Trigger %s/%s failed, beginning again", self.key[0], self.key[2]
                    )
                self._state = None
                await anyio.sleep(_RESTART_S)

    async def _run(self) -> None:
        self.register()
        assert self._state is not None
        try:
            state = await self._state
        except StoreFull:
            state = await self._surely(lambda log: log.cursor(self.key))
        self._flying, self._flying_bytes, self._is_marking = {}, 0, False
        self._noted, self._over = set(), set()
        self._shelf = shelf = Shelf(self._config, self.key, self._log, self._recent, self, state)
        async with anyio.create_task_group() as tasks:
            while True:
                self._woken.clear()
                found = None
                if self._has_place():
                    position = shelf.window.position
                    found = await shelf.take(time.time(), self._flying.keys() | self._over)
                    if shelf.window.position != position:
                        # Events that are not for this trigger have been passed over.
                        self._mark(tasks)
                if found is None:
                    await self._until_woken(shelf.due_at if self._has_place() else math.inf)
                else:
                    self._start(tasks, *found)

    def _has_place(self) -> bool:
        most = 1 if self.is_ordered else self._config.concurrency
        has_place = len(self._flying) < most and self._flying_bytes < self._config.window_bytes
        return has_place and not self._is_stopping

    async def _until_woken(self, at: float) -> None:
        left_s = at - time.time()
        with anyio.move_on_after(None if left_s == math.inf else max(0.0, left_s)):
            await self._woken.wait()

    def _start(self, tasks: TaskGroup, item: Pending, is_noted: bool) -> None:
        seq = item.record.seq
        self._flying[seq] = item
        self._flying_bytes += item.record.size
        if is_noted:
            self._noted.add(seq)
        tasks.start_soon(self._deliver, tasks, item, name=f"delivery {seq} to {self.key}")

    async def _deliver(self, tasks: TaskGroup, item: Pending) -> None:
        seq = item.record.seq
        try:
            verdict, url = await self._attempt(item)
            await self._conclude(item, verdict, url)
            await self._note_lagging()
        finally:
            self._flying.pop(seq, None)
            self._flying_bytes -= item.record.size
            self._noted.discard(seq)
            self._mark(tasks)
            self.wake()

    async def _attempt(self, item: Pending) -> tuple[Verdict, str]:
        delivery = self._delivery
        destination = self._dead_letter if item.is_dead else self.spec.subscriber
        url = None if destination is None else self._home.address(destination)
        if url is None:
            answer = Answer(0, {}, b"the destination has no address")
        else:
            answer = await self._send(item, url, delivery)
        verdict = judge(delivery, item.attempts + 1, answer, time.time())
        # What a dead-letter sink answers with goes nowhere.
        if isinstance(verdict, Taken) and verdict.reply is not None and not item.is_dead:
            self.counts.replies += 1
            is_taken = await self._surely_replied(verdict.reply, item.record.ttl)
            if not is_taken:
                why = b"the answer is an event that has come back too often: its hop limit is reached"
                return GivenUp(Failure(400, why)), url or ""
        return verdict, url or ""

    async def _send(self, item: Pending, url: str, delivery: Delivery) -> Answer:
        event = item.record.event
        if item.is_dead:
            event = event.with_attributes(**error_attributes(item.failure, item.destination))
        # Knative sends the binary form where the Trigger says nothing, whatever came.
        headers, body = encode_structured(event) if delivery.format == "json" else encode_binary(event)
        headers["kn-namespace"] = self.key[0]
        if not item.is_dead:
            headers["prefer"] = "reply"
        return await self._client.post(url, headers, body, delivery.timeout_s or self._config.timeout_s)

    async def _conclude(self, item: Pending, verdict: Verdict, url: str) -> None:
        if isinstance(verdict, Taken):
            self.counts.delivered += not item.is_dead
            self._settle(item)
        elif isinstance(verdict, Again):
            later = replace(item, attempts=verdict.attempts, next_at=verdict.at)
            # Of a dead letter, what the subscriber said stays.
            await self._note(
                later if item.is_dead else replace(later, failure=verdict.failure, destination=url)
            )
            self.counts.retried += 1
        elif not item.is_dead:
            self.counts.dead_lettered += 1
            dead = replace(item, attempts=0, next_at=time.time(), failure=verdict.failure, destination=url)
            if self._dead_letter is None:
                await self._bury(dead)
            else:
                await self._note(replace(dead, is_dead=True))
        else:
            await self._bury(item)

    @property
    def _delivery(self) -> Delivery:
        return self.spec.delivery or self._home.delivery

    @property
    def _dead_letter(self) -> Destination | None:
        return self._delivery.dead_letter or self._home.delivery.dead_letter

    def _settle(self, item: Pending) -> None:
        assert self._shelf is not None
        seq = item.record.seq
        self._shelf.window.settle(seq)
        if seq in self._noted:
            self._shelf.pending -= 1
            self._over.add(seq)

    async def _note(self, item: Pending) -> None:
        """Writes down by itself what is still to be done for an event, so that the position may pass it."""
        assert self._shelf is not None
        seq = item.record.seq
        if seq not in self._noted:
            # Before it is written: whatever comes after is written after.
            self._noted.add(seq)
            self._shelf.pending += 1
        await self._surely(lambda log: log.put_pending(self.key, item))
        self._shelf.window.settle(seq)
        self._shelf.note_pending(item)

    async def _note_lagging(self) -> None:
        assert self._shelf is not None
        seq = self._shelf.window.lagging()
        item = None if seq is None else self._flying.get(seq)
        if item is not None and item.record.seq not in self._noted:
            await self._note(replace(item, next_at=time.time()))

    async def _bury(self, item: Pending) -> None:
        assert self._shelf is not None
        self.counts.undeliverable += 1
        kept = self._config.dead_letters_kept
        now = time.time()
        await self._surely(lambda log: log.bury(self.key, item, now, kept))
        self._shelf.window.settle(item.record.seq)
        self._shelf.pending -= item.record.seq in self._noted

    async def _surely_replied(self, event: CloudEvent, ttl: int) -> bool:
        while True:
            try:
                return await self._home.take_reply(event, ttl)
            except StoreFull:
                await anyio.sleep(self._config.full_retry_s)

    async def _surely(self, work: Callable[[Log], T]) -> T:
        """Until there is room on the disk; the event keeps its place, so that little waits in memory."""
        while True:
            try:
                return await self._log.write(work)
            except StoreFull as error:
                _LOG.warning("Trigger %s/%s waits: %s", self.key[0], self.key[2], error.message)
                await anyio.sleep(self._config.full_retry_s)

    def _mark(self, tasks: TaskGroup) -> None:
        """The position is to be written, and what is over to be deleted: soon, with whatever else is by then."""
        self._is_dirty = True
        if not self._is_marking:
            self._is_marking = True
            tasks.start_soon(self._write_marks, name=f"marks of {self.key}")

    async def _write_marks(self) -> None:
        assert self._shelf is not None
        while self._is_dirty:
            if not self._is_stopping:
                await anyio.sleep(self._config.mark_delay_s)
            self._is_dirty = False
            position, over = self._shelf.window.position, tuple(self._over)
            await self._surely(lambda log, at=position, done=over: log.settle(self.key, at, done))  # type: ignore[misc]
            self._over.difference_update(over)
        self._is_marking = False
        self.wake()

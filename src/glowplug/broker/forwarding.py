"""Hands events on that somebody else keeps: one attempt at a time, by the same verdicts as a courier's.

First the subscriber, by its delivery's schedule; then the dead letter sink, by the same schedule; then `bury`. So an
event has at most twice `retry + 1` attempts, and then it is over. The keeper counts: up to `retry` attempts belong to
the subscriber, and those from `retry + 1` on to the dead letter sink.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from glowplug.broker.counts import TriggerCounts
from glowplug.broker.verdict import (
    NO_ANSWER,
    Again,
    Answer,
    Failure,
    GivenUp,
    Taken,
    Verdict,
    error_attributes,
    judge,
)
from glowplug.errors import TooLarge
from glowplug.spec.eventing import Delivery
from glowplug.wire.events import CloudEvent, encode_binary, encode_structured

_LOOP = Failure(400, b"the answer is an event that has come back too often: its hop limit is reached")
_FORGOTTEN = Failure(NO_ANSWER, b"the attempts were made by a process that is gone")


class Post(Protocol):
    """Sends a request; never raises for what the other side does."""

    async def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Answer: ...


class Way(Protocol):
    """Where events go now; it may change between attempts."""

    @property
    def delivery(self) -> Delivery: ...
    def subscriber(self) -> str | None:
        """Its URL, if it has one."""

    def has_dead_letter(self) -> bool: ...
    def dead_letter(self) -> str | None:
        """The dead letter sink's URL, if it has one."""


async def _drop(event: CloudEvent) -> None:
    del event


async def _ignore(reply: CloudEvent, to: CloudEvent) -> bool:
    del reply, to
    return True


class Forwarder:
    """`reply` takes what a subscriber answers to an event, `bury` what nobody took.

    `reply` says False of what came back too often, and raises TooLarge of what it can never take.
    """

    def __init__(
        self,
        way: Way,
        client: Post,
        *,
        timeout_s: float,
        reply: Callable[[CloudEvent, CloudEvent], Awaitable[bool]] = _ignore,
        bury: Callable[[CloudEvent], Awaitable[None]] = _drop,
        without: tuple[str, ...] = (),
        namespace: str = "",
    ) -> None:
        """`without`: attributes that a subscriber is not to see. `namespace`: the sender's, told as Knative does."""
        self.counts = TriggerCounts()
        self._way = way
        self._client = client
        self._timeout_s = timeout_s
        self._reply = reply
        self._bury = bury
        self._without = frozenset(without)
        self._namespace = namespace

    async def handle(self, event: CloudEvent, attempts: int, last: Again | None) -> Again | None:
        """One attempt, `attempts` having been made; None: the event is over."""
        most = self._way.delivery.retry + 1
        if attempts >= most:
            return await self._to_dead_letter(event, attempts - most, last.failure if last else _FORGOTTEN)
        url = self._way.subscriber()
        verdict = await self._try(event, url, attempts, prefer_reply=True)
        if isinstance(verdict, Taken) and verdict.reply is not None:
            self.counts.replies += 1
            verdict = await self._answered(verdict, verdict.reply, event)
        if isinstance(verdict, Taken):
            self.counts.delivered += 1
            return None
        if isinstance(verdict, Again):
            self.counts.retried += 1
            return verdict
        self.counts.dead_lettered += 1
        return await self._to_dead_letter(event, 0, verdict.failure)

    async def _answered(self, taken: Taken, reply: CloudEvent, event: CloudEvent) -> Verdict:
        try:
            return taken if await self._reply(reply, event) else GivenUp(_LOOP)
        except TooLarge as error:
            return GivenUp(Failure(error.code, error.message.encode()))

    async def _to_dead_letter(self, event: CloudEvent, attempts: int, failure: Failure) -> Again | None:
        dead = event.with_attributes(**error_attributes(failure, self._way.subscriber() or ""))
        if self._way.has_dead_letter():
            verdict = await self._try(dead, self._way.dead_letter(), attempts, prefer_reply=False)
            if isinstance(verdict, Taken):
                return None
            if isinstance(verdict, Again):
                self.counts.retried += 1
                return Again(verdict.at, verdict.attempts + self._way.delivery.retry + 1, failure)
        self.counts.undeliverable += 1
        await self._bury(dead)
        return None

    async def _try(self, event: CloudEvent, url: str | None, attempts: int, *, prefer_reply: bool) -> Verdict:
        delivery = self._way.delivery
        if url is None:
            answer = Answer(0, {}, b"the destination has no address")
        else:
            shown = {name: value for name, value in event.attributes.items() if name not in self._without}
            encode = encode_structured if delivery.format == "json" else encode_binary
            headers, body = encode(CloudEvent(shown, event.data))
            if self._namespace:
                headers["kn-namespace"] = self._namespace
            if prefer_reply:
                headers["prefer"] = "reply"
            answer = await self._client.post(url, headers, body, delivery.timeout_s or self._timeout_s)
        return judge(delivery, attempts + 1, answer, time.time())

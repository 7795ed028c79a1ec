"""Requests and their answers, put together of the parts that Envoy copies; for whoever wants them, who is asked first.

Nobody waits for this. Envoy says nothing of a request that ends before its answer: its client has gone. Such a copy is
given up when no request can be so old; and whatever is held is bounded: beyond that, the oldest copies are given up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from glowplug.copies.exchange import Exchange, Message
from glowplug.copies.frames import Part, State
from glowplug.spec import names

# What a copy takes beside its bodies: headers, objects.
_OVERHEAD_BYTES = 2048


class GivenUp(Enum):
    """Why a copy was not finished."""

    TOO_LARGE = "too large"  # a body is larger than what is copied
    NO_ROOM = "no room"  # too much is held already
    CUT = "cut"  # the request ended before its answer did: a client went away, or Envoy


class Consumer(Protocol):
    """Who wants copies. None of these may raise."""

    def wants(self, about: Mapping[str, str], request: Mapping[str, str]) -> bool:
        """Whether to copy the request with these headers."""

    def copied(self, exchange: Exchange) -> None:
        """A whole one."""

    def given_up(self, about: Mapping[str, str], why: GivenUp) -> None:
        """One that was wanted will not come."""


@dataclass(slots=True)
class _Side:
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, part: Part) -> int:
        """So many bytes more are held."""
        self.headers.update(part.headers)
        if part.body:
            self.chunks.append(part.body)
            self.size += len(part.body)
        return len(part.body)

    def message(self) -> Message:
        return Message(self.headers, self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks))


@dataclass(slots=True)
class _Copy:
    about: Mapping[str, str]
    began_at: float
    # On this clock copies grow old.
    held_since: float
    request: _Side = field(default_factory=_Side)
    answer: _Side = field(default_factory=_Side)

    @property
    def size(self) -> int:
        return _OVERHEAD_BYTES + self.request.size + self.answer.size


class Copies:
    """Takes the parts, in their order. `now` is monotonic; `held_bytes` is what unfinished copies take now."""

    def __init__(
        self, consumer: Consumer, *, max_body_bytes: int, max_held_bytes: int, max_age_s: float = 600.0
    ) -> None:
        self._clock = time.time
        self._consumer = consumer
        self._max_body_bytes = max_body_bytes
        self._max_held_bytes = max_held_bytes
        self._max_age_s = max_age_s
        # By number, the oldest first.
        self._copies: dict[str, _Copy] = {}
        self.held_bytes = 0

    def take(self, part: Part, now: float) -> None:
        """The next part of a request, or of its answer. What is not wanted, or was given up, is left alone."""
        copy = self._copies.get(part.id)
        if copy is None:
            copy = self._begun(part, now)
        if copy is None:
            return
        side = copy.answer if part.is_answer else copy.request
        self.held_bytes += side.add(part)
        if part.state is State.TOO_LARGE or side.size > self._max_body_bytes:
            self._give_up(part.id, GivenUp.TOO_LARGE)
        elif part.state is State.LAST and (part.is_answer or names.COPY_REQUEST_ONLY in copy.about):
            self._drop(part.id)
            messages = copy.request.message(), copy.answer.message()
            self._consumer.copied(Exchange(copy.about, *messages, copy.began_at, self._clock()))
        while self.held_bytes > self._max_held_bytes:
            self._give_up(next(iter(self._copies)), GivenUp.NO_ROOM)

    def expire(self, now: float) -> None:
        """Gives up what is too old to be finished."""
        while self._copies:
            id_, copy = next(iter(self._copies.items()))
            if now - copy.held_since <= self._max_age_s:
                return
            self._give_up(id_, GivenUp.CUT)

    def _begun(self, part: Part, now: float) -> _Copy | None:
        """A new copy, if the part begins one that is wanted."""
        if part.is_answer or not part.about or not self._consumer.wants(part.about, part.headers):
            return None
        copy = self._copies[part.id] = _Copy(part.about, self._clock(), now)
        self.held_bytes += copy.size
        return copy

    def _give_up(self, id_: str, why: GivenUp) -> None:
        self._consumer.given_up(self._drop(id_).about, why)

    def _drop(self, id_: str) -> _Copy:
        copy = self._copies.pop(id_)
        self.held_bytes -= copy.size
        return copy

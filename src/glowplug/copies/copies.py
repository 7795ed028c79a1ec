"""Copies of requests and their answers, as Envoy streams them; for whoever wants them, which is asked of each first.

Envoy never waits for what is said here: it sends what it has and goes on. A stream is ended as soon as nothing more of
it is wanted, so that Envoy stops copying. What is held is bounded; beyond that, copies are given up and counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from glowplug.copies import parts
from glowplug.copies.exchange import Exchange, Message
from glowplug.errors import InferenceError
from glowplug.spec import names
from glowplug.wire.http2 import Stream, status

_LOG = logging.getLogger(__name__)
# What a route says of its requests: the names of this metadata start so.
ABOUT_PREFIX = "x-glowplug-copy-"


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

    def message(self) -> Message:
        return Message(self.headers, self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks))


@dataclass(slots=True)
class _Copy:
    about: dict[str, str]
    began_at: float
    is_wanted: bool = False
    request: _Side = field(default_factory=_Side)
    answer: _Side = field(default_factory=_Side)

    @property
    def size(self) -> int:
        return self.request.size + self.answer.size


class Copies:
    """The handler of Envoy's streams, one for each request; `wire.http2.GrpcService` calls it.

    `held_bytes` is what unfinished copies take now.
    """

    def __init__(self, consumer: Consumer, *, max_body_bytes: int, max_held_bytes: int) -> None:
        self._clock = time.time
        self._consumer = consumer
        self._max_body_bytes = max_body_bytes
        self._max_held_bytes = max_held_bytes
        self.held_bytes = 0

    def request(self, stream: Stream, headers: Mapping[str, str]) -> None:
        """Another request has come to Envoy."""
        path = headers.get(":path", "")
        if path != parts.PROCESS:
            stream.reply_error(status.UNIMPLEMENTED, f"no method {path[:200]}")
            return
        about = {k: v for k, v in headers.items() if k.startswith(ABOUT_PREFIX)}
        stream.state = _Copy(about, self._clock())

    def message(self, stream: Stream, data: bytes) -> None:
        """A part of it, or of its answer."""
        copy = stream.state
        if not isinstance(copy, _Copy):
            return
        try:
            part = parts.parse_part(data)
        except InferenceError as error:
            _LOG.exception("Envoy's message cannot be read")
            self._drop(stream)
            stream.reply_error(status.INVALID_ARGUMENT, error.message)
            return
        if part is not None:
            self._take(stream, copy, part)

    def ended(self, stream: Stream) -> None:
        """Envoy has nothing more to say of this one."""
        self._cut(stream)
        stream.reply_error(status.OK, "")

    def reset(self, stream: Stream) -> None:
        """Envoy has gone, or what it copied has."""
        self._cut(stream)

    def _take(self, stream: Stream, copy: _Copy, part: parts.Part) -> None:
        side = copy.answer if part.is_answer else copy.request
        if part.headers:
            side.headers.update(part.headers)
        if not copy.is_wanted:
            copy.is_wanted = self._consumer.wants(copy.about, copy.request.headers)
            if not copy.is_wanted:
                self._finish(stream)
                return
        if part.body:
            side.chunks.append(part.body)
            side.size += len(part.body)
            self.held_bytes += len(part.body)
        if max(side.size, _announced(part)) > self._max_body_bytes:
            self._give_up(stream, copy, GivenUp.TOO_LARGE)
        elif self.held_bytes > self._max_held_bytes:
            self._give_up(stream, copy, GivenUp.NO_ROOM)
        elif part.is_last and (part.is_answer or names.COPY_REQUEST_ONLY in copy.about):
            self._finish(stream)
            messages = copy.request.message(), copy.answer.message()
            self._consumer.copied(Exchange(copy.about, *messages, copy.began_at, self._clock()))

    def _give_up(self, stream: Stream, copy: _Copy, why: GivenUp) -> None:
        self._finish(stream)
        self._consumer.given_up(copy.about, why)

    def _finish(self, stream: Stream) -> None:
        self._drop(stream)
        stream.reply_error(status.OK, "")

    def _cut(self, stream: Stream) -> None:
        copy = stream.state
        self._drop(stream)
        if isinstance(copy, _Copy) and copy.is_wanted:
            self._consumer.given_up(copy.about, GivenUp.CUT)

    def _drop(self, stream: Stream) -> None:
        if isinstance(stream.state, _Copy):
            self.held_bytes -= stream.state.size
        stream.state = None


def _announced(part: parts.Part) -> int:
    length = part.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else 0

"""Takes copies, makes events of them, sends them to their sinks; nobody waits for this.

What finds no room is dropped and counted. A sink that hangs holds up its own events only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from uuid import uuid4

import anyio
from anyio.abc import TaskGroup

from glowplug.copies.copies import GivenUp
from glowplug.copies.exchange import Exchange
from glowplug.copies.inference import is_inference
from glowplug.payloads.config import PayloadsConfig
from glowplug.payloads.events import events_of
from glowplug.payloads.tally import Outcome, Tally
from glowplug.payloads.waiting import Line, Lines, Waiting
from glowplug.spec import names
from glowplug.spec.logger import Logger
from glowplug.wire.events import BATCH_JSON_TYPE, encode_binary, structured_json

_OF_GIVEN_UP = {
    GivenUp.TOO_LARGE: (Outcome.TOO_LARGE, "a body is larger than what is logged"),
    GivenUp.NO_ROOM: (Outcome.DROPPED, "too much is being copied"),
    GivenUp.CUT: (Outcome.CUT, ""),
}
_TOO_MANY_REQUESTS = 429


class Answer(Protocol):
    """A sink's answer. `status` 0: there was none, and `body` says why."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class Client(Protocol):
    """Posts; it raises nothing for what the other side does."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer: ...


@dataclass(frozen=True)
class Sink:
    """Where events are sent to: in batches where `is_batched`."""

    url: str
    is_batched: bool = False


class Teller:
    """The consumer of the copies. `run` owns the tasks; `sink_of` finds the sink of a namespace's URL."""

    def __init__(
        self,
        config: PayloadsConfig,
        client: Client,
        tally: Tally,
        lines: Lines,
        sink_of: Callable[[str, str], Sink],
    ) -> None:
        self._config = config
        self._client = client
        self._tally = tally
        self._lines = lines
        self._sink_of = sink_of
        self._tasks: TaskGroup | None = None
        self._workers = 0
        self._idle = anyio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await anyio.sleep_forever()

    async def drain(self) -> None:
        """Waits until everything is sent, but not for long."""
        with anyio.move_on_after(self._config.drain_s):
            while self._workers:
                self._idle = anyio.Event()
                await self._idle.wait()

    def wants(self, about: Mapping[str, str], request: Mapping[str, str]) -> bool:
        """Inference only, and while there is room for it."""
        if names.COPY_LOGGER not in about or not is_inference(about, request):
            return False
        logger = _logger(about[names.COPY_LOGGER])
        sink = self._sink_of(logger.namespace, logger.url)
        if self._tasks is None or not self._lines.has_room(sink.url):
            self._drop(logger, sink)
            return False
        return True

    def copied(self, exchange: Exchange) -> None:
        """Another one to be told of."""
        logger = _logger(exchange.about[names.COPY_LOGGER])
        sink = self._sink_of(logger.namespace, logger.url)
        for event in events_of(logger, exchange, str(uuid4()), time.time()):
            line = self._lines.add(sink.url, Waiting(logger, event))
            if line is None or self._tasks is None:
                self._tally.add(logger, Outcome.DROPPED, 1, _behind(sink))
                continue
            self._tally.begin(logger)
            if line.workers < (1 if sink.is_batched else self._config.concurrency):
                line.workers += 1
                self._workers += 1
                self._tasks.start_soon(self._work, line, sink, name=f"payloads to {sink.url}")

    def given_up(self, about: Mapping[str, str], why: GivenUp) -> None:
        """One that will not come."""
        logger = _logger(about[names.COPY_LOGGER])
        outcome, text = _OF_GIVEN_UP[why]
        self._tally.add(logger, outcome, _count(logger), text)

    async def _work(self, line: Line, sink: Sink) -> None:
        try:
            while line.events:
                if sink.is_batched and len(line.events) < self._config.max_batch:
                    await anyio.sleep(self._config.linger_s)
                await self._send(sink, self._lines.take(line, is_batched=sink.is_batched))
        finally:
            line.workers -= 1
            self._workers -= 1
            self._lines.forget(sink.url)
            if not self._workers:
                self._idle.set()

    async def _send(self, sink: Sink, batch: Sequence[Waiting]) -> None:
        config = self._config
        headers, body = _encoded(batch, sink)
        for attempt in range(config.attempts):
            answer = await self._client.post(sink.url, headers, body, config.timeout_s)
            outcome = outcome_of(answer.status)
            if outcome is not Outcome.FAILED:
                break
            if attempt + 1 < config.attempts:
                await anyio.sleep(config.backoff_s * 2.0**attempt)
        why = "" if outcome is Outcome.DELIVERED else _said(sink, answer)
        for waiting in batch:
            self._tally.settle(waiting.logger, outcome, why)

    def _drop(self, logger: Logger, sink: Sink) -> None:
        self._tally.add(logger, Outcome.DROPPED, _count(logger), _behind(sink))


def outcome_of(status: int) -> Outcome:
    """What a sink's status says of the event."""
    if 200 <= status < 300:
        return Outcome.DELIVERED
    if 300 <= status < 500 and status != _TOO_MANY_REQUESTS:
        return Outcome.REFUSED
    return Outcome.FAILED


def _encoded(batch: Sequence[Waiting], sink: Sink) -> tuple[dict[str, str], bytes]:
    if not sink.is_batched:
        return encode_binary(batch[0].event)
    body = b"[" + b",".join(structured_json(waiting.event) for waiting in batch) + b"]"
    return {"content-type": BATCH_JSON_TYPE}, body


def _said(sink: Sink, answer: Answer) -> str:
    text = answer.body[:200].decode("utf-8", "replace").strip()
    return f"{sink.url} answers {answer.status}: {text}" if answer.status else text


def _behind(sink: Sink) -> str:
    return f"too many wait for {sink.url}"


def _count(logger: Logger) -> int:
    return int(logger.tells_requests) + int(logger.tells_responses)


@lru_cache(1024)
def _logger(text: str) -> Logger:
    return Logger.from_text(text)

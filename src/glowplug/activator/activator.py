"""The activator: holds the requests of a revision while none of its pods is free, and lets them go in order.

It never sees a request. Envoy asks it for admission, on a unix socket, and waits; see `router.activation`. What it owns
is who waits and who goes (`WaitingRoom`), nothing of what pods there are: it is told.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from glowplug.activator import questions
from glowplug.activator.config import ActivatorConfig
from glowplug.activator.throttler import Admission, Ticket
from glowplug.activator.waiting import Outcome, WaitingRoom
from glowplug.errors import InferenceError
from glowplug.spec import names
from glowplug.spec.load import Report
from glowplug.spec.routes import RouteTable
from glowplug.wire.http2 import GrpcService, Limits, Stream, grpc_timeout_s, status

_log = logging.getLogger(__name__)


class Activator:
    """`run` it in a task; all methods are for the event loop's thread.

    `on_wait` is told the revision (`namespace/name`) when somebody begins to wait for it.
    """

    def __init__(
        self, config: ActivatorConfig, *, on_wait: Callable[[str], None] = lambda revision: None
    ) -> None:
        self._room = WaitingRoom(config)
        self._config = config
        self._on_wait = on_wait
        self._timeouts: Mapping[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        limits = Limits(max_message_bytes=config.max_message_bytes, max_streams=4 * config.max_held)
        self._service = GrpcService(self, limits)
        self.refused = 0

    def publish(self, table: RouteTable) -> None:
        """The revisions and their pods as they are now; who waits for what is there goes at once."""
        self._timeouts = {backend.revision: backend.timeout_s for backend in table.backends}
        self._answer(self._room.take({backend.revision: backend for backend in table.backends}, _now()))

    def ingress_started(self) -> None:
        """A new Envoy runs: what the last one had let go is over."""
        self._answer(self._room.forget_in_flight(_now()))

    def loads(self) -> dict[str, Report]:
        """By revision, the load since the last call: what waited, and what was let go and is not over yet."""
        return self._room.loads(_now())

    def in_progress(self, revision: str) -> int:
        """How many requests of the revision wait or were let go and are not over."""
        return self._room.in_progress(revision)

    def held(self) -> dict[str, int]:
        """By revision, how many requests wait now; revisions without any are left out."""
        return self._room.held_by_revision()

    async def run(self, socket: Path, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answers Envoy on the unix socket `socket` until cancelled; started when it listens."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(self._service.protocol, str(socket))
        os.chmod(socket, 0o600)
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            server.close()
            if self._timer is not None:
                self._timer.cancel()
            self._service.abort()

    # What Envoy says, as `wire.http2` calls it.

    def request(self, stream: Stream, headers: Mapping[str, str]) -> None:
        """Another question, or the stream of what has ended."""
        path = headers.get(":path", "")
        if path not in (questions.CHECK, questions.LOGS):
            stream.reply_error(status.UNIMPLEMENTED, f"no method {path[:200]}")
        stream.state = None if path == questions.CHECK else questions.LOGS

    def message(self, stream: Stream, data: bytes) -> None:
        """A question, or what has ended."""
        try:
            if stream.state is None:
                self._asked(stream, questions.asked_headers(data))
            elif stream.state is questions.LOGS:
                self._ended(questions.ended_holds(data))
        except InferenceError as error:
            _log.exception("Envoy's message cannot be read")
            stream.reply_error(status.INVALID_ARGUMENT, error.message)

    def ended(self, stream: Stream) -> None:
        """Envoy has nothing more to say on this stream."""
        if stream.state is questions.LOGS:
            stream.reply(b"")

    def reset(self, stream: Stream) -> None:
        """A client has gone away while its request waited, or Envoy has gone."""
        if isinstance(stream.state, Ticket):
            self._room.leave(stream.state, _now())
        elif stream.state is questions.LOGS:
            # Endings may have been lost with it.
            self.ingress_started()

    def _asked(self, stream: Stream, headers: Mapping[str, str]) -> None:
        now = _now()
        revision = f"{headers.get(names.NAMESPACE_HEADER, '')}/{headers.get(names.REVISION_HEADER, '')}"
        timeout_s = self._timeouts.get(revision, 0.0) * self._config.part_of_timeout
        sender_s = grpc_timeout_s(headers)
        attempt = headers.get(names.ATTEMPT_HEADER, "")
        ticket = Ticket(
            id=headers.get(names.HOLD_HEADER, ""),
            revision=revision,
            is_grpc=headers.get("content-type", "").startswith("application/grpc"),
            attempt=int(attempt) if attempt.isdecimal() else 1,
            expires_at=now + (timeout_s if sender_s is None else min(sender_s, timeout_s)),
            caller=stream,
            arrived_at=now,
        )
        stream.state = ticket
        outcomes = self._room.arrive(ticket, now)
        self._answer(outcomes)
        if stream.is_open:
            self._wait_until_next_deadline()
            self._on_wait(revision)

    def _ended(self, holds: Iterable[str]) -> None:
        now = _now()
        for hold in holds:
            self._answer(self._room.finished(hold, now))

    def _answer(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            stream: Stream = outcome.ticket.caller
            if isinstance(outcome, Admission):
                stream.reply(questions.admitted(outcome.address))
            else:
                self.refused += 1
                stream.reply(questions.refused(outcome.reason))

    def _wait_until_next_deadline(self) -> None:
        deadline = self._room.next_deadline()
        if deadline is None or (self._timer is not None and self._timer.when() <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._answer(self._room.expire(_now()))
        self._wait_until_next_deadline()


def _now() -> float:
    return asyncio.get_running_loop().time()

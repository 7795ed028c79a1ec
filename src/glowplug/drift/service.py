"""The detector as a service: takes CloudEvents, writes them down, sends what was detected, follows the profile.

202 is said when what an event counts for is on the disk. All that wait are written together, in one thread beside the
event loop. What could not be sent is tried again for as long as it takes: it is one event an episode, and the only
thing that this service is for. It does not speak HTTP itself; `take` and `Post` are what HTTP is put around.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio
import anyio.to_thread

from glowplug.drift import payloads
from glowplug.drift.detector import Detector
from glowplug.drift.exposition import exposition
from glowplug.drift.profile import Profile
from glowplug.drift.store import Store
from glowplug.errors import GlowplugError
from glowplug.wire.events import CloudEvent, EventProblem, decode, encode_binary

log = logging.getLogger("glowplug.drift")

Post = Callable[[Mapping[str, str], bytes], Awaitable[int]]
"""Sends one event to the sink; HTTP's status. Raises OSError, or asyncio.TimeoutError."""


@dataclass(frozen=True)
class ServiceConfig:
    """`reload_s`: how often to look whether there is another profile; 0 never."""

    max_waiting: int = 2000
    max_waiting_bytes: int = 64 * 2**20
    first_pause_s: float = 0.5
    longest_pause_s: float = 60.0
    reload_s: float = 60.0


@dataclass(frozen=True)
class Reply:
    """An answer: HTTP's status, and why."""

    status: int
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Message:
    events: Sequence[CloudEvent]
    received_at: float
    size: int
    done: asyncio.Future[Reply]


class Service:
    """`run` it beside whatever calls `take`. `post` None: what is detected is logged only."""

    def __init__(
        self,
        detector: Detector,
        store: Store,
        post: Post | None,
        read_profile: Callable[[], Profile],
        config: ServiceConfig | None = None,
    ) -> None:
        self._detector, self._store, self._post = detector, store, post
        self._read_profile, self._config = read_profile, config or ServiceConfig()
        self._waiting: list[_Message] = []
        self._waiting_bytes = 0
        self._has_messages, self._has_unsent = asyncio.Event(), asyncio.Event()
        # The store and the detector are for one thread at a time.
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled; what was taken is written first."""
        self._has_unsent.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, name="drift writer")
            tasks.start_soon(self._send, name="drift sender")
            if self._config.reload_s:
                tasks.start_soon(self._follow, name="drift profile")

    async def take(self, headers: Mapping[str, str], body: bytes) -> Reply:
        """A request with one event or a batch; header names in lower case. Done when it is written."""
        try:
            events = decode(headers, body)
            for event in events:
                if event.text("type") == payloads.LABEL:
                    payloads.labels_of(event)
        except EventProblem as error:
            log.info("refused: %s", error.message)
            return Reply(error.status, error.message)
        if len(self._waiting) >= self._config.max_waiting or (
            self._waiting and self._waiting_bytes + len(body) > self._config.max_waiting_bytes
        ):
            return Reply(503, "too many events wait to be written", {"retry-after": "1"})
        message = _Message(events, time.time(), len(body), asyncio.get_running_loop().create_future())
        self._waiting.append(message)
        self._waiting_bytes += message.size
        self._has_messages.set()
        return await message.done

    async def metrics(self) -> str:
        """For Prometheus."""
        async with self._turn:
            return await anyio.to_thread.run_sync(
                lambda: exposition(self._detector, self._store.count_waiting(), len(self._store.posted()))
            )

    async def _write(self) -> None:
        while True:
            await self._has_messages.wait()
            self._has_messages.clear()
            messages, self._waiting, self._waiting_bytes = self._waiting, [], 0
            async with self._turn:
                replies = await anyio.to_thread.run_sync(self._written, messages)
            for message, reply in zip(messages, replies, strict=True):
                if not message.done.done():
                    message.done.set_result(reply)
            self._has_unsent.set()

    def _written(self, messages: Sequence[_Message]) -> list[Reply]:
        """What each of them is answered. Where all together fail, each is tried by itself."""
        try:
            with self._store.transaction():
                for message in messages:
                    for event in message.events:
                        self._detector.take(event, message.received_at)
                self._detector.save()
            return [Reply(202)] * len(messages)
        except sqlite3.OperationalError as error:
            # A full disk, above all: of no single message, so none is tried by itself.
            self._detector.load()
            log.error("%d requests were not written: %s", len(messages), error)
            return [Reply(503, f"nothing was written: {error}", {"retry-after": "10"})] * len(messages)
        except Exception as error:
            # The top of the writer: nothing of it is on the disk, so nothing of it may be in memory.
            self._detector.load()
            if len(messages) > 1:
                return [reply for message in messages for reply in self._written([message])]
            log.exception("nothing was written of a request with %d events", len(messages[0].events))
            return [Reply(500, f"nothing was written: {error}", {"retry-after": "10"})]

    async def _send(self) -> None:
        pause_s = self._config.first_pause_s
        # Those that were taken and whose note of it was not: a full disk must not send them again and again.
        told: set[str] = set()
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            async with self._turn:
                unsent = await anyio.to_thread.run_sync(self._store.posted)
            is_done = True
            for id, structured in unsent:
                if id in told or await self._sent(structured):
                    told.add(id)
                    async with self._turn:
                        is_forgotten = await anyio.to_thread.run_sync(self._forget, id)
                    if is_forgotten:
                        told.discard(id)
                else:
                    is_forgotten = False
                is_done = is_done and is_forgotten
            if is_done:
                pause_s = self._config.first_pause_s
            else:
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, self._config.longest_pause_s)
                self._has_unsent.set()

    async def _sent(self, structured: bytes) -> bool:
        (event,) = decode({"content-type": "application/cloudevents+json"}, structured)
        if self._post is None:
            log.warning("detected, and no sink to tell: %s", structured.decode())
            return True
        headers, body = encode_binary(event)
        try:
            status = await self._post(headers, body)
        except (OSError, asyncio.TimeoutError) as error:
            log.warning("%s was not sent: %s", event.text("id"), error or type(error).__name__)
            return False
        if 200 <= status < 300:
            log.info("%s was sent: %s", event.text("id"), (event.data or b"").decode())
            return True
        log.warning("the sink answered %s to %s", status, event.text("id"))
        return False

    def _forget(self, id: str) -> bool:
        try:
            with self._store.transaction():
                self._store.sent(id)
        except sqlite3.OperationalError as error:
            log.error("that %s was sent is not written: %s", id, error)
            return False
        return True

    async def _follow(self) -> None:
        """A model that was trained anew brings another profile to the same place."""
        while True:
            await anyio.sleep(self._config.reload_s)
            try:
                profile = await anyio.to_thread.run_sync(self._read_profile)
                if profile.digest == self._detector.profile.digest:
                    continue
                async with self._turn:
                    await anyio.to_thread.run_sync(self._use, profile)
                log.info("the profile is now %s, of %d rows", profile.digest, profile.rows)
            except GlowplugError as error:
                log.warning("the profile stays what it was: %s", error.message)
            except sqlite3.OperationalError as error:
                log.error("another profile is there, and cannot be taken up: %s", error)

    def _use(self, profile: Profile) -> None:
        before = self._detector.profile
        try:
            with self._store.transaction():
                self._detector.use(profile)
                self._detector.save()
        except sqlite3.OperationalError:
            self._detector.use(before)
            raise

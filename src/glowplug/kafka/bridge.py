"""A topic's way out: a group that has its offsets, its members, and beginning again where anything fails.

What a bridge does not do is decide where events go; see `lane.Handler`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio
import anyio.to_thread

from glowplug.errors import GlowplugError
from glowplug.kafka.consumer import ConsumerConfig, GroupConsumer
from glowplug.kafka.lane import Handler
from glowplug.kafka.records import Origin, event_of
from glowplug.kafka.topics import pin
from glowplug.spec.kafka import LATEST

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BridgeConfig:
    """`members` read as one group; where it has no offsets, it begins at `initial_offset`."""

    consuming: ConsumerConfig
    origin: Origin
    members: int = 1
    initial_offset: str = LATEST
    kafka_timeout_s: float = 10.0
    first_retry_s: float = 0.5
    last_retry_s: float = 15.0


@dataclass(frozen=True)
class Link:
    """Where a bridge stands. None: not known yet. `problem` says what is wrong, empty where nothing is."""

    is_connected: bool | None = None
    has_offsets: bool | None = None
    problem: str = ""

    @property
    def is_up(self) -> bool:
        return bool(self.is_connected and self.has_offsets)


class Bridge:
    """`run` it in a task; `on_link` is told whenever `link` changes."""

    def __init__(
        self, config: BridgeConfig, handler: Handler, on_link: Callable[[Link], None] = lambda link: None
    ) -> None:
        self.config = config
        self.link = Link()
        self._handler = handler
        self._on_link = on_link

    async def run(self) -> None:
        """Until cancelled; what fails is told and tried again."""
        wait_s = self.config.first_retry_s
        while True:
            began_at = time.monotonic()
            try:
                await self._pin()
                await self._consume()
            except Exception as error:
                failed = self.link.is_up
                said = (
                    error.message if isinstance(error, GlowplugError) else f"{type(error).__name__}: {error}"
                )
                if not isinstance(error, GlowplugError):
                    _LOG.exception("group %s failed, beginning again", self.config.consuming.group)
                self._tell(Link(False, True if failed else None, said))
            if time.monotonic() - began_at > self.config.last_retry_s:
                wait_s = self.config.first_retry_s
            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, self.config.last_retry_s)

    async def _pin(self) -> None:
        config, consuming = self.config, self.config.consuming
        arguments = (consuming.cluster, consuming.group, consuming.topics, config.initial_offset)
        await anyio.to_thread.run_sync(pin, *arguments, config.kafka_timeout_s, abandon_on_cancel=True)
        self._tell(Link(True, True))

    async def _consume(self) -> None:
        first: list[Exception] = []

        async def member() -> None:
            consumer = GroupConsumer(
                self.config.consuming,
                self._handler,
                lambda record: event_of(record, self.config.origin),
                self._heard,
            )
            try:
                await consumer.run()
            except Exception as error:
                first.append(_innermost(error))
            tasks.cancel_scope.cancel()

        if not self.config.members:
            await anyio.sleep_forever()
        async with anyio.create_task_group() as tasks:
            for number in range(self.config.members):
                tasks.start_soon(member, name=f"member {number} of {self.config.consuming.group}")
        if first:
            raise first[0]

    def _heard(self, problem: str) -> None:
        self._tell(replace(self.link, is_connected=not problem, problem=problem))

    def _tell(self, link: Link) -> None:
        if link != self.link:
            self.link = link
            if link.problem:
                _LOG.warning("group %s: %s", self.config.consuming.group, link.problem)
            self._on_link(link)


def _innermost(error: Exception) -> Exception:
    inner = getattr(error, "exceptions", None)
    while inner:
        error = inner[0]
        inner = getattr(error, "exceptions", None)
    return error

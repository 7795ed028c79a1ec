"""The broker's pages beside the Kubernetes API: what is in the log, for `glowplug events`. A line of JSON each.

`events/<namespace>/<broker>[/after/<number>[/wait]]`: events that are still in the log, `wait`ing for the next one
where there is none; without `after`, the number of the last event.
`dead-letters/<namespace>/<broker>[/after/<number>]`: those that no sink took.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Protocol

import anyio
import orjson

from glowplug.broker.log_thread import LogThread
from glowplug.broker.records import BrokerKey, DeadLetter, Page, Record
from glowplug.wire.events import structured_json

_PAGE = Page(256, 2**20)
# Below what proxies and clients give a request that says nothing.
_WAIT_S = 20.0


class Newsroom(Protocol):
    """Who knows when something is new."""

    def news(self, key: BrokerKey) -> asyncio.Event | None: ...


class Pages:
    """Each method answers the rest of a path: text, or None where there is nothing."""

    def __init__(self, newsroom: Newsroom, log: LogThread) -> None:
        self._newsroom = newsroom
        self._log = log

    async def events(self, rest: tuple[str, ...]) -> str | None:
        """`<namespace>/<broker>`, and `after/<number>`, and `wait`."""
        key, after = _asked(rest)
        news = None if key is None else self._newsroom.news(key)
        if key is None or news is None or rest[4:] not in ((), ("wait",)):
            return None
        if after is None:
            last = await self._log.read(lambda log: log.last(key))
            return f'{{"last":{last}}}\n'
        found = await self._log.read(lambda log: log.page(key, after, _PAGE))
        if not found and rest[4:]:
            with anyio.move_on_after(_WAIT_S):
                await news.wait()
            found = await self._log.read(lambda log: log.page(key, after, _PAGE))
        return "".join(map(_event_line, found))

    async def dead_letters(self, rest: tuple[str, ...]) -> str | None:
        """`<namespace>/<broker>`, and `after/<number>`."""
        key, after = _asked(rest)
        if key is None or self._newsroom.news(key) is None or rest[4:]:
            return None
        found = await self._log.read(lambda log: log.dead_letters(key, after or 0, _PAGE))
        return "".join(map(_dead_line, found))


def _asked(rest: tuple[str, ...]) -> tuple[BrokerKey | None, int | None]:
    if len(rest) == 2:
        return (rest[0], rest[1]), None
    is_whole = (
        len(rest) >= 4
        and rest[2] == "after"
        and rest[3].isascii()
        and rest[3].isdigit()
        and len(rest[3]) < 19
    )
    return ((rest[0], rest[1]), int(rest[3])) if is_whole else (None, None)


def _event_line(record: Record) -> str:
    head = orjson.dumps({"number": record.seq, "acceptedAt": record.at})
    return _line(head, structured_json(record.event))


def _dead_line(letter: DeadLetter) -> str:
    head = orjson.dumps(
        {
            "number": letter.id,
            "trigger": letter.trigger,
            "at": letter.at,
            "destination": letter.destination,
            "code": letter.failure.code,
            "reason": _readable(letter.failure.data),
        }
    )
    return _line(head, structured_json(letter.event))


def _line(head: bytes, event: bytes) -> str:
    # Data may be JSON over several lines; a line break within it is none of its text's.
    return (head[:-1] + b',"event":' + event.replace(b"\r", b" ").replace(b"\n", b" ") + b"}\n").decode()


def _readable(data: bytes) -> str:
    try:
        return data[:2048].decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(data[:2048]).decode()

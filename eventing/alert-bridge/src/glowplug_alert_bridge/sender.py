"""Brings events to the sink, a few at a time, and says of each whether it was taken."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from enum import Enum
from urllib.parse import SplitResult

from glowplug.serving.http_client import HttpClient
from glowplug.wire.events import CloudEvent, encode_binary


class Outcome(Enum):
    """`REFUSED` will be refused again, `FAILED` may be taken next time."""

    TAKEN = "taken"
    REFUSED = "refused"
    FAILED = "failed"


# Of the 4xx, those that say nothing of the event itself.
_AGAIN = frozenset({404, 408, 409, 425, 429})


class Sender:
    """Used by one event loop; `close` when done."""

    def __init__(self, sink: SplitResult, timeout_s: float, concurrency: int) -> None:
        is_tls = sink.scheme == "https"
        port = sink.port or (443 if is_tls else 80)
        tls = ssl.create_default_context() if is_tls else None
        self._client = HttpClient(sink.hostname or "", port, tls=tls)
        self._path = (sink.path or "/") + (f"?{sink.query}" if sink.query else "")
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(concurrency)

    async def send(self, events: Sequence[CloudEvent]) -> list[tuple[Outcome, str]]:
        """What became of each, and why."""
        return list(await asyncio.gather(*(self._one(event) for event in events)))

    async def close(self) -> None:
        await self._client.aclose()

    async def _one(self, event: CloudEvent) -> tuple[Outcome, str]:
        headers, body = encode_binary(event)
        async with self._slots:
            try:
                answer = await self._client.request(
                    "POST", self._path, headers, body, timeout_s=self._timeout_s
                )
            except asyncio.TimeoutError:
                return Outcome.FAILED, f"no answer within {self._timeout_s:g} s"
            except OSError as error:
                return Outcome.FAILED, str(error) or type(error).__name__
        if 200 <= answer.status < 300:
            return Outcome.TAKEN, ""
        said = f"{answer.status} {answer.body[:200].decode('utf-8', 'replace')}".strip()
        is_final = 400 <= answer.status < 500 and answer.status not in _AGAIN
        return (Outcome.REFUSED if is_final else Outcome.FAILED), said

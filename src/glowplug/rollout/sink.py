"""CloudEvents to whoever wants to know: POSTed one after the other, tried again for a while, never waited for.

Binary form, with an id that stays the same however often an event is sent, so that a receiver can tell repetitions.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import orjson

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 30.0
# Below 500, what a receiver may answer otherwise another time (Knative's delivery rules).
_RETRIED = frozenset({404, 408, 409, 429})
_PRINTABLE = " !#$&'()*+,/:;=?@[]~"


@dataclass(frozen=True)
class CloudEvent:
    """`id` and `source` together name it; `time` is RFC 3339."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: Mapping[str, Any]

    def attributes(self) -> dict[str, str]:
        """All but the data."""
        return {
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time,
        }


def shown(url: str) -> str:
    """An address as it may be told to everybody: without a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def moment(now: float) -> str:
    """`now`, in seconds since the epoch, as CloudEvents write it."""
    return datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Sink:
    """Sends to `url`, in order; what cannot be delivered in `patience_s` is given up, and logged.

    The first pause between two attempts is `pause_s`, each following one twice as long.
    """

    def __init__(
        self, url: str, http: httpx2.AsyncClient, patience_s: float = 600.0, pause_s: float = 0.5
    ) -> None:
        self._url, self._http, self._patience_s, self._pause_s = url, http, patience_s, pause_s
        self._queue: asyncio.Queue[CloudEvent] = asyncio.Queue()
        self._is_settled: dict[str, bool] = {}

    def offer(self, event: CloudEvent) -> None:
        """Takes an event to be sent; one that has been offered already is not sent twice."""
        if event.id not in self._is_settled:
            self._is_settled[event.id] = False
            self._queue.put_nowait(event)

    def is_settled(self, id: str) -> bool:
        """Whether an event was delivered or given up."""
        return self._is_settled.get(id, False)

    def forget(self, id: str) -> None:
        """Nobody will offer or ask for it again."""
        self._is_settled.pop(id, None)

    async def run(self) -> None:
        """Sends until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._deliver(event)
            except Exception:
                _log.exception("%s %s cannot be sent", event.type, event.id)
            self._is_settled[event.id] = True

    async def _deliver(self, event: CloudEvent) -> None:
        pause_s, left_s = self._pause_s, self._patience_s
        while (trouble := await self._trouble(event)) and left_s > 0:
            await asyncio.sleep(pause_s)
            left_s -= pause_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        if trouble:
            _log.warning("%s %s is given up: %s", event.type, event.id, trouble)

    async def _trouble(self, event: CloudEvent) -> str:
        """Sends once; what went wrong, if it may go better another time."""
        headers = {
            "content-type": "application/json",
            "ce-specversion": "1.0",
            **{f"ce-{name}": quote(value, safe=_PRINTABLE) for name, value in event.attributes().items()},
        }
        try:
            response = await self._http.post(self._url, content=orjson.dumps(event.data), headers=headers)
        except (httpx2.HTTPError, OSError) as error:
            return f"{shown(self._url)}: {error or type(error).__name__}"
        if response.status_code in _RETRIED or response.status_code >= 500:
            return f"{shown(self._url)} answers {response.status_code}"
        if response.status_code >= 400:
            _log.warning("%s refuses %s %s: %d", shown(self._url), event.type, event.id, response.status_code)
        return ""

"""The sink's HTTP side.

POST /              an event, or a batch of them: 202 once it is on the disk
GET  /              the newest letters as JSON: ?limit=100&before=NUMBER&type=TYPE
GET  /letters/N     letter N as it came, a CloudEvent in the structured form, to be sent again
GET  /metrics, GET /healthz
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from urllib.parse import parse_qs

import orjson

from glowplug.errors import StoreFull
from glowplug.serving.http import HttpRequest, HttpResponse
from glowplug.wire.events import EventProblem, decode

from .letter import Letter, letter_of
from .shelf import Shelf

log = logging.getLogger("glowplug.dead_letters")

_JSON = {"content-type": "application/json"}
_EVENT = {"content-type": "application/cloudevents+json; charset=utf-8"}
_TEXT = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
_MOST_SHOWN = 1000
# A type is the sender's to choose; what comes after so many of them is counted as one.
_MOST_TYPES = 100
_OTHER = "other"


class Endpoints:
    """One event loop, and the shelf's only user."""

    def __init__(self, shelf: Shelf, clock: Callable[[], float] = time.time) -> None:
        self._shelf, self._clock = shelf, clock
        self._received: Counter[str] = Counter()
        self._dropped = self._refused = 0

    def begin(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> None:
        """Every request is for `answer`."""

    async def answer(self, request: HttpRequest) -> HttpResponse:
        if request.method == "POST" and request.path == "/":
            return self._keep(request)
        if request.method not in ("GET", "HEAD"):
            return _said(405, f"{request.method} {request.path[:200]}, expected POST / or a GET")
        if request.path == "/":
            return self._list(request.query)
        if request.path == "/healthz":
            return HttpResponse(200, b"ok", dict(_TEXT))
        if request.path == "/metrics":
            return HttpResponse(200, self._metrics().encode(), dict(_TEXT))
        return self._show(request.path)

    def _keep(self, request: HttpRequest) -> HttpResponse:
        try:
            letters = [letter_of(event) for event in decode(request.headers, request.body)]
        except EventProblem as error:
            self._refused += 1
            return _said(error.status, error.message)
        try:
            self._dropped += self._shelf.keep(letters, self._clock())
        except StoreFull as error:
            log.error("%s", error.message)
            return _said(507, error.message)
        for letter in letters:
            self._note(letter)
        return HttpResponse(202, b"")

    def _note(self, letter: Letter) -> None:
        is_known = letter.type in self._received or len(self._received) < _MOST_TYPES
        self._received[letter.type if is_known else _OTHER] += 1
        # One line each, for where logs are collected: the attributes, never the data.
        log.warning(
            "dead letter: %s",
            orjson.dumps(
                {
                    "type": letter.type, "source": letter.source, "id": letter.id,
                    "destination": letter.destination, "code": letter.code, "answer": letter.answer[:500],
                }
            ).decode(),
        )  # fmt: skip

    def _list(self, query: str) -> HttpResponse:
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        numbers: dict[str, int] = {}
        for name in ("limit", "before"):
            text = asked.get(name)
            if text is not None:
                if not (text.isascii() and text.isdigit() and len(text) < 16):
                    return _said(400, f"{name}={text[:50]}, expected a whole number")
                numbers[name] = int(text)
        limit = min(numbers.get("limit", 100), _MOST_SHOWN)
        found = self._shelf.newest(limit, numbers.get("before"), asked.get("type", ""))
        body = {"kept": self._shelf.count, "letters": [asdict(each) for each in found]}
        return HttpResponse(200, orjson.dumps(body), dict(_JSON))

    def _show(self, path: str) -> HttpResponse:
        number = path.removeprefix("/letters/")
        if path == number or not (number.isascii() and number.isdigit() and len(number) < 16):
            return _said(404, f"{path[:200]} is not here, expected /, /letters/N or /metrics")
        body = self._shelf.body(int(number))
        if body is None:
            return _said(404, f"there is no letter {number}; it may have made room for newer ones")
        return HttpResponse(200, body, dict(_EVENT))

    def _metrics(self) -> str:
        lines = ["# TYPE glowplug_dead_letters_total counter"]
        lines += [
            f'glowplug_dead_letters_total{{type="{_escaped(type)}"}} {count}'
            for type, count in sorted(self._received.items())
        ]
        for name, kind, value in (
            ("kept", "gauge", self._shelf.count),
            ("kept_bytes", "gauge", self._shelf.bytes),
            ("dropped_total", "counter", self._dropped),
            ("refused_total", "counter", self._refused),
        ):
            lines += [f"# TYPE glowplug_dead_letters_{name} {kind}", f"glowplug_dead_letters_{name} {value}"]
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _said(status: int, message: str) -> HttpResponse:
    return HttpResponse(status, orjson.dumps({"error": message}), dict(_JSON))

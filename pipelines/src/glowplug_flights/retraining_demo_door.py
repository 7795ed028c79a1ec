"""The door between the replay's time and ours, before the Broker: every event of the demo comes through it.

A replay of a year within minutes has two clocks. What tells of flights (copies of requests and answers) is given the
replay's time, as if the logger had lived in 2013; so the detector's windows are days of flights and a drift event names
days of 2013. What tells that something was found or done (drift, runs, rollouts) is given ours: the retraining's
cool-down and leases are in it. Nothing else is changed. It also notes what went by and when, which is what the demo
waits for, measures and draws.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from glowplug.drift.payloads import LABEL, REQUEST, RESPONSE, revision_of
from glowplug.spec.times import parse_time
from glowplug.wire.events import CloudEvent, EventProblem, decode, encode_binary

DRIFT = "dev.glowplug.drift.detected"
FINISHED = "dev.glowplug.retraining.finished"
FAILED = "dev.glowplug.retraining.failed"
SKIPPED = "dev.glowplug.retraining.skipped"
ADVANCED = "dev.glowplug.rollout.advanced"
PROMOTED = "dev.glowplug.rollout.promoted"
ROLLED_BACK = "dev.glowplug.rollout.rolledback"
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Passed:
    """An event that went by: at `wall` seconds since the epoch, `replayed_ms` of the replay."""

    type: str
    id: str
    data: dict[str, Any]
    wall: float
    replayed_ms: int


class Door:
    """A server in threads of its own; `close` it. `now_ms` is the replay's time, which the replay moves on."""

    def __init__(self, broker: str) -> None:
        self.now_ms = 0
        self.payloads: dict[str, int] = {REQUEST: 0, RESPONSE: 0}
        self.first_request: dict[str, float] = {}
        self._broker = urlsplit(broker)
        self._passed: list[Passed] = []
        self._news = threading.Condition()
        self._connections = threading.local()
        self._opened: list[http.client.HTTPConnection] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="door")
        self._thread.start()

    @property
    def url(self) -> str:
        """Instead of the Broker's."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{self._broker.path}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in self._opened:
            connection.close()

    def passed(self, *types: str, after: float = 0.0) -> list[Passed]:
        """The events of these types that went by later than `after`, by our clock; all types where none is named."""
        with self._news:
            return [each for each in self._passed if each.wall > after and (not types or each.type in types)]

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it came true in time; looked at whenever an event goes by."""
        with self._news:
            return self._news.wait_for(condition, timeout_s)

    def send(self, event: CloudEvent) -> int:
        """Hand an event to the Broker, in the right time; its answer's status. Raises OSError."""
        event, was = self._in_time(event), event
        status = self._post(event)
        if status < 300:
            self._note(event, was)
        return status

    def _in_time(self, event: CloudEvent) -> CloudEvent:
        kind = event.text("type")
        if kind in (REQUEST, RESPONSE):
            return replace(event, attributes={**event.attributes, "time": moment(self.now_ms / 1000)})
        if kind == DRIFT:
            return replace(event, attributes={**event.attributes, "time": moment(time.time())})
        return event

    def _note(self, event: CloudEvent, was: CloudEvent) -> None:
        kind, now = event.text("type"), time.time()
        with self._news:
            if kind in self.payloads:
                self.payloads[kind] += 1
                said = parse_time(was.text("time"))
                began = said.timestamp() if said is not None else now
                self.first_request.setdefault(revision_of(event), began)
            elif kind != LABEL:
                self._passed.append(Passed(kind, event.text("id"), _json(event.data), now, self.now_ms))
            self._news.notify_all()

    def _post(self, event: CloudEvent) -> int:
        headers, body = encode_binary(event)
        for is_last in (False, True):
            connection = getattr(self._connections, "own", None)
            if connection is None:
                place = self._broker
                connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_TIMEOUT_S)
                self._connections.own = connection
                self._opened.append(connection)
            try:
                connection.request("POST", self._broker.path, body, headers)
                answer = connection.getresponse()
                answer.read()
                return answer.status
            except (OSError, http.client.HTTPException):
                # Once more where the Broker has closed a connection that nothing came over for a while.
                connection.close()
                self._connections.own = None
                if is_last:
                    raise
        raise AssertionError("the loop ends by itself")


def moment(at: float) -> str:
    """Seconds since the epoch as RFC 3339."""
    text = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _handler(door: Door) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One write an answer: two would wait for each other's acknowledgement.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                statuses = [door.send(event) for event in decode(headers, body)]
                status = max(statuses, default=202)
            except EventProblem as error:
                status = error.status
            except (OSError, http.client.HTTPException):
                status = 503
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler

"""A real server that events are sent to, in threads of its own: for tests that drive whole machines.

It records what comes and answers what it is told to; it may hang.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from glowplug.wire.events import CloudEvent, decode

# With this interval it ends when it is told to, and not half a second later.
_POLL_S = 0.02
Headers = dict[str, str]


class EventSink:
    """Answers with `status`, or with what `behaviour` returns for headers and body; only while `open` is set."""

    def __init__(self, status: int = 202, behaviour: Callable[[Headers, bytes], int] | None = None) -> None:
        self.status = status
        self.behaviour = behaviour
        self.open = threading.Event()
        self.open.set()
        # What came, whatever was answered: headers in small letters, and the body.
        self.events: list[tuple[Headers, bytes]] = []
        # What an event is answered with beside the status, by its body: headers and body.
        self.replies: dict[bytes, tuple[Mapping[str, str], bytes]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        # A client's connections may be open for ever.
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="sink")
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> EventSink:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body in list(self.events)]

    @property
    def ids(self) -> list[str]:
        """The ids of what came in binary form."""
        return [headers.get("ce-id", "") for headers, _ in list(self.events)]

    @property
    def cloud_events(self) -> list[CloudEvent]:
        """All events, in whatever form they came; a batch is several."""
        return [event for headers, body in list(self.events) for event in decode(headers, body)]

    def of_type(self, type: str) -> list[tuple[Headers, bytes]]:
        return [event for event in list(self.events) if event[0].get("ce-type") == type]

    def close(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                sink.open.wait()
                sink.events.append((headers, body))
                self.send_response(sink.behaviour(headers, body) if sink.behaviour else sink.status)
                more, answer = sink.replies.get(body, ({}, b""))
                for name, value in {**more, "content-length": str(len(answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler

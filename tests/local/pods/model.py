"""A version of a model as a pod's container: answers every POST, some of them with 500.

Environment: PORT; VERSION, which it answers with; FAIL_EVERY (each such request fails; 0: none); DELAY_S; EXIT (any
value: it ends at once and never becomes ready).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = os.environ.get("VERSION", "one")
FAIL_EVERY = int(os.environ.get("FAIL_EVERY", "0"))
DELAY_S = float(os.environ.get("DELAY_S", "0"))
requests = itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        time.sleep(DELAY_S)
        is_bad = FAIL_EVERY and next(requests) % FAIL_EVERY == 0
        self._answer(500 if is_bad else 200)

    def _answer(self, code: int) -> None:
        body = json.dumps({"version": VERSION}).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    if os.environ.get("EXIT"):
        sys.exit("this version cannot start")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""A small HTTP server as a pod's container: says on `/` what it was started with, on `/health` whether it is well.

Environment: PORT, HOST; START_DELAY_S; FILES (a folder whose files `/` shows); GREETING; IGNORE_TERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_healthy = not Path("sick").exists()
        if self.path == "/health":
            return self._answer(200 if is_healthy else 503, b"")
        if self.path == "/exit":
            os._exit(3)
        folder = os.environ.get("FILES")
        files = (
            {path.name: path.read_text() for path in Path(folder).iterdir() if path.is_file()}
            if folder
            else {}
        )
        body = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "files": files}
        return self._answer(200, json.dumps(body).encode())

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    if os.environ.get("IGNORE_TERM"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), os._exit(0)))
    time.sleep(float(os.environ.get("START_DELAY_S", "0")))
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])
    server = ThreadingHTTPServer((host, port), Handler)
    print(f"listening {os.environ.get('GREETING', '')}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

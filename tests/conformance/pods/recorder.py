"""A subscriber as a pod's container: keeps the events that it is sent, and asks others on behalf of a case.

What a broker, a JobSink or a cluster-local address is called is known inside a cluster only; from here a case reaches
it on either target. Everything that is no control path is an event.

    POST /…                the event is kept, with its path; answered as told, else 202
    GET  /-/events         [{"path", "headers", "body"}], oldest first
    PUT  /-/answers        {path: [{"status", "headers", "body"}]}: of the next events there, in this order
    PUT  /-/files/NAME     a file, which GET gives back as it was
    POST /-/ask            {"method", "url", "headers", "body"} → {"status", "headers", "body"} of what was asked

Environment: PORT. Bodies are text.
"""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ASK_TIMEOUT_S = 30.0
events = []
answers = {}
files = {}
# Nothing between a pod and its neighbours is a proxy's business.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path in files:
            return self._send(200, {"content-type": "application/octet-stream"}, files[self.path])
        if self.path.startswith("/-/files/"):
            return self._answer(404, {})
        return self._answer(200, events if self.path == "/-/events" else {})

    do_HEAD = do_GET

    def do_PUT(self):
        if self.path.startswith("/-/files/"):
            files[self.path] = self._body()
        else:
            answers.update(json.loads(self._body()))
        self._answer(200, {})

    def do_POST(self):
        body = self._body()
        if self.path == "/-/ask":
            return self._answer(200, ask(json.loads(body)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        events.append({"path": self.path, "headers": headers, "body": body.decode(errors="replace")})
        told = answers[self.path].pop(0) if answers.get(self.path) else {"status": 202}
        return self._send(told["status"], told.get("headers", {}), told.get("body", "").encode())

    def _body(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _answer(self, status, value):
        self._send(status, {"content-type": "application/json"}, json.dumps(value).encode())

    def _send(self, status, headers, body):
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def ask(told):
    """What the URL answers; a refusal is an answer, too."""
    body = told["body"].encode() if "body" in told else None
    request = urllib.request.Request(told["url"], body, told.get("headers", {}), method=told["method"])
    try:
        answer = opener.open(request, timeout=ASK_TIMEOUT_S)
    except urllib.error.HTTPError as refusal:
        answer = refusal
    except OSError as error:
        return {"status": 0, "headers": {}, "body": repr(error)}
    with answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return {"status": answer.status, "headers": headers, "body": answer.read().decode(errors="replace")}


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()

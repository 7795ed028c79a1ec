"""HTTP around the detector.

POST /     CloudEvents in any form: 202 once they are on the disk; 503 as long as there is no profile
GET  /metrics, GET /healthz
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import orjson

from glowplug.drift.exposition import CONTENT_TYPE
from glowplug.drift.service import Service
from glowplug.serving.http import HttpRequest, HttpResponse
from glowplug.serving.http_client import HttpClient

_NO_PROFILE = HttpResponse(
    503,
    orjson.dumps(
        {"error": "there is no profile yet: no model was trained, or --profile names another place"}
    ),
    {"content-type": "application/json", "retry-after": "10"},
)


class Endpoints:
    """Answers for a `Service` that runs; None as long as there is nothing to compare with."""

    def __init__(self, service: Service | None = None) -> None:
        self.service = service

    def begin(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> None:
        """Every request is for `answer`."""

    async def answer(self, request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return await self._told(request)
        if request.method != "POST" or request.path.strip("/"):
            message = f"{request.method} {request.path[:200]} is not here, expected POST /"
            return HttpResponse(404, orjson.dumps({"error": message}), {"content-type": "application/json"})
        if self.service is None:
            return _NO_PROFILE
        reply = await self.service.take(request.headers, request.body)
        body = orjson.dumps({"error": reply.message}) if reply.message else b""
        return HttpResponse(reply.status, body, {"content-type": "application/json", **reply.headers})

    async def _told(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/metrics":
            page = await self.service.metrics() if self.service else ""
            return HttpResponse(200, page.encode(), {"content-type": CONTENT_TYPE})
        if request.path == "/healthz":
            return HttpResponse(200, b"ok", {"content-type": "text/plain"})
        return HttpResponse(404, b"", {})


class Sink:
    """Where what was detected goes; `close` when done."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        tls = ssl.create_default_context() if is_tls else None
        self._client = HttpClient(parts.hostname or "", parts.port or (443 if is_tls else 80), tls=tls)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s

    async def post(self, headers: Mapping[str, str], body: bytes) -> int:
        """The status. Raises OSError or asyncio.TimeoutError."""
        answer = await self._client.request("POST", self._path, headers, body, timeout_s=self._timeout_s)
        return answer.status

    async def close(self) -> None:
        await self._client.aclose()

"""Handing a request on, as it came, to the transformer of another version: of a pair that is whole.

At the end of a rollout the old predictor loses its last way a moment before, or after, the old transformer does. What
reaches that transformer in between cannot be answered by it, but by the newest one; and where a predictor was ahead, by
the one before it. A header says that a request was handed on, and whoever gets such a one hands it on no further.

For as long as no version is whole (the routes of the two components move one after the other) it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from glowplug.errors import InferenceError
from glowplug.serving.addresses import host_and_port
from glowplug.serving.config import PredictorConfig
from glowplug.serving.grpc_client import CallRefused, DeadlineExceeded, GrpcClient, Unreachable
from glowplug.serving.http import HttpRequest, HttpResponse
from glowplug.serving.http_client import HttpClient
from glowplug.serving.pair import ANY, LATEST, PREVIOUS, REFUSED
from glowplug.serving.paired import Pair
from glowplug.spec import names
from glowplug.wire.http2 import status

log = logging.getLogger("glowplug.serving.pair")

# The routes of two Knative services follow each other within a few seconds; past this, something else is wrong.
PATIENCE_S = 15.0
FIRST_PAUSE_S = 0.05
MAX_PAUSE_S = 0.5
ASK_TIMEOUT_S = 2.0

# Of one connection, or set anew by the client or by the ingress.
_OF_ONE_HOP = frozenset(
    {
        "connection", "content-length", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect", "date", "server",
    }
)  # fmt: skip
_OF_THE_INGRESS = ("knative-serving-", "x-envoy-", "x-glowplug-", "k-")


class HandingOn:
    """Calls the transformer's own service. Used by one event loop; `aclose` when done."""

    def __init__(self, pair: Pair, predictor: PredictorConfig) -> None:
        self._pair = pair
        self._predictor = predictor
        self._host, self._port = host_and_port(pair.transformer_host, use_ssl=False)
        self._http = HttpClient(self._host, self._port)
        self._grpc: GrpcClient | None = None

    async def is_there_a_newer(self) -> bool:
        """Whether the newest transformer that is ready is a later one than this."""
        headers = {names.PAIR_HEADER: ANY, names.TAG_HEADER: LATEST}
        try:
            answer = await self._http.request("GET", "/", headers, timeout_s=ASK_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):
            return False
        return self._pair.is_older_than(answer.headers.get(names.PAIR_REVISION_HEADER, ""))

    async def http(self, request: HttpRequest, limit_s: float | None) -> HttpResponse | None:
        """The answer of a pair that is whole; None where none is to be found. Raises InferenceError (504)."""
        path = f"{request.path}?{request.query}" if request.query else request.path
        tries = _Tries(limit_s, self._predictor.timeout_s)
        for tag in tries:
            headers = self._headers(request.headers, tag)
            try:
                answer = await self._http.request(
                    request.method, path, headers, request.body, timeout_s=tries.left_s()
                )
            except asyncio.TimeoutError as error:
                raise self._too_slow() from error
            except OSError as error:
                log.debug("%s: %s", self._host, error)
            else:
                if not (answer.status == REFUSED and names.PAIR_HEADER in answer.headers):
                    return HttpResponse(answer.status, answer.body, _kept(answer.headers))
            await tries.pause(tag)
        return None

    async def grpc(
        self, path: str, data: bytes, metadata: Mapping[str, str], limit_s: float | None
    ) -> bytes | None:
        """The same for a gRPC call. Raises CallRefused too: what the whole pair answered."""
        if self._grpc is None:
            self._grpc = GrpcClient(
                self._host, self._port, max_message_bytes=self._predictor.max_message_bytes
            )
        tries = _Tries(limit_s, self._predictor.timeout_s)
        for tag in tries:
            headers = self._headers(metadata, tag)
            try:
                return await self._grpc.call(path, data, headers.items(), tries.left_s())
            except DeadlineExceeded as error:
                raise self._too_slow() from error
            except Unreachable as error:
                log.debug("%s: %s", self._host, error)
            except CallRefused as error:
                if not (error.code == status.FAILED_PRECONDITION and names.PAIR_HEADER in error.trailers):
                    raise
            await tries.pause(tag)
        return None

    def _headers(self, headers: Mapping[str, str], tag: str) -> dict[str, str]:
        return {
            **_kept(headers),
            names.TAG_HEADER: tag,
            names.PAIR_HANDED_ON_HEADER: self._pair.id,
        }

    def _too_slow(self) -> InferenceError:
        text = f"{self._pair.transformer_host}, which the request was handed on to, did not answer in time"
        return InferenceError(text, code=504)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()
        if self._grpc is not None:
            await self._grpc.aclose()


class _Tries:
    """The tags in turn, for as long as it is worth it."""

    def __init__(self, limit_s: float | None, timeout_s: float) -> None:
        began = time.monotonic()
        self._deadline = began + (timeout_s if limit_s is None else min(limit_s, timeout_s))
        self._gives_up_at = min(began + PATIENCE_S, self._deadline)
        self._pause_s = FIRST_PAUSE_S

    def __iter__(self) -> Iterator[str]:
        while True:
            yield from (LATEST, PREVIOUS)
            if time.monotonic() >= self._gives_up_at:
                return

    def left_s(self) -> float:
        return max(self._deadline - time.monotonic(), 0.001)

    async def pause(self, tag: str) -> None:
        """After the last of the tags."""
        if tag == PREVIOUS:
            left_s = self._gives_up_at - time.monotonic()
            await asyncio.sleep(max(min(self._pause_s, left_s), 0.0))
            self._pause_s = min(self._pause_s * 2, MAX_PAUSE_S)


def _kept(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in headers.items()
        if name not in _OF_ONE_HOP and not name.startswith(_OF_THE_INGRESS)
    }

"""How a transformer calls its predictor: V2 over gRPC (the default), V2 over HTTP, or V1.

One pooled client for the life of the process. It passes on who asks and which trace the call belongs to, keeps the
predictor's own words and codes in errors, and says 503 where there is no predictor and 504 where it is too slow. Under
a pair lock it calls none but the predictor of its own pair, see `partner`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from glowplug.errors import ConfigError, InferenceError
from glowplug.serving.addresses import host_and_port
from glowplug.serving.codes import http_code
from glowplug.serving.config import PredictorConfig
from glowplug.serving.context import passed_on, request_headers
from glowplug.serving.pair import REFUSED, OtherPair, PartnersError
from glowplug.serving.urgency import remaining_s
from glowplug.spec import names
from glowplug.wire import InferRequest, InferResponse, v1, v2_grpc, v2_json
from glowplug.wire.http2 import status

if TYPE_CHECKING:
    from glowplug.serving.http_client import Answer
    from glowplug.serving.partner import Partner

HEALTH_TIMEOUT_S = 2.0
RETRY_DELAY_S = 0.05
MAX_QUOTED = 1000
_NONE: Mapping[str, str] = MappingProxyType({})


class PredictorClient:
    """Calls one predictor; opens nothing before the first call."""

    def __init__(self, config: PredictorConfig) -> None:
        if not config.host:
            raise ConfigError("the transformer has no predictor", hint="--predictor_host names it")
        self._config = config
        self._transport: _Grpc | _Http = _Grpc(config) if config.protocol == "grpc-v2" else _Http(config)
        self._partner: Partner | None = None
        if config.pair:
            from glowplug.serving.partner import Partner

            self._partner = Partner(config.pair)

    async def infer(
        self, request: InferRequest, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> InferResponse:
        """The predictor's response. `headers` default to those of the request being served.

        Raises InferenceError: the predictor's own code and message, 503 where it is down, 504 past the time-out
        or the deadline of the request being served.
        """
        sent = passed_on(request_headers() if headers is None else headers)
        for attempt in range(self._config.retries + 1):
            limit_s = self._config.timeout_s if timeout_s is None else timeout_s
            left_s = remaining_s()
            if left_s is not None and left_s < limit_s:
                limit_s = left_s
            try:
                if self._partner is None:
                    return await self._transport.infer(request, sent, limit_s)
                return await self._infer_partner(self._partner, request, sent, limit_s)
            except _Unreachable:
                if attempt == self._config.retries:
                    raise
            await asyncio.sleep(RETRY_DELAY_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _infer_partner(
        self, partner: Partner, request: InferRequest, sent: Mapping[str, str], limit_s: float
    ) -> InferResponse:
        left_s = _countdown(limit_s)
        return await partner.reach(
            lambda more: self._transport.infer(request, {**sent, **more}, left_s()),
            lambda more: self._ask(more, left_s()),
        )

    async def is_ready(self) -> bool:
        """Whether the predictor answers that it is ready; False where it does not answer."""
        try:
            if self._partner is None:
                return await self._transport.is_ready(HEALTH_TIMEOUT_S)
            await self._partner.reach(self._ask, self._ask)
        except InferenceError:
            return False
        return True

    async def find_partner(self) -> None:
        """Finds the predictor of this transformer's pair, so that the first request need not.

        Raises NoPartner where every revision that traffic goes to is of another, or InferenceError where that cannot
        be told yet. Without a pair every predictor will do.
        """
        if self._partner is not None:
            await self._partner.find(self._ask)

    async def _ask(self, more: Mapping[str, str], timeout_s: float = HEALTH_TIMEOUT_S) -> None:
        if not await self._transport.is_ready(timeout_s, more):
            raise _Unreachable(f"the predictor at {self._config.host} is not ready")

    async def metadata(self, model_name: str) -> v2_grpc.ModelMetadata | None:
        """What the predictor's model takes and gives; None over V1, which does not say.

        Raises InferenceError (503, 504, or the predictor's own code) where it gives no answer.
        """
        if self._partner is None:
            return await self._transport.metadata(model_name, HEALTH_TIMEOUT_S)
        return await self._partner.reach(
            lambda more: self._transport.metadata(model_name, HEALTH_TIMEOUT_S, more), self._ask
        )

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._transport.aclose()


class _Unreachable(InferenceError):
    """Nobody took the request, or who did cannot serve it now: it may be sent again."""

    def __init__(self, text: str) -> None:
        super().__init__(text, code=503)


class _Grpc:
    def __init__(self, config: PredictorConfig) -> None:
        self._config = config
        self._client: Any = None

    def _open(self) -> Any:
        if self._client is None:
            from glowplug.serving.grpc_client import GrpcClient

            tls = None
            if self._config.use_ssl:
                import ssl

                tls = ssl.create_default_context()
                tls.set_alpn_protocols(["h2"])
            host, port = host_and_port(self._config.host, use_ssl=self._config.use_ssl)
            self._client = GrpcClient(host, port, tls=tls, max_message_bytes=self._config.max_message_bytes)
        return self._client

    async def infer(
        self, request: InferRequest, headers: Mapping[str, str], timeout_s: float
    ) -> InferResponse:
        data = v2_grpc.encode_infer_request(request)
        answer = await self._call("ModelInfer", data, headers, timeout_s)
        return v2_grpc.decode_infer_response(answer)

    async def is_ready(self, timeout_s: float, headers: Mapping[str, str] = _NONE) -> bool:
        return v2_grpc.decode_flag(await self._call("ServerReady", b"", headers, timeout_s))

    async def metadata(
        self, model_name: str, timeout_s: float, headers: Mapping[str, str] = _NONE
    ) -> v2_grpc.ModelMetadata:
        data = v2_grpc.encode_model_id(v2_grpc.ModelId(model_name))
        return v2_grpc.decode_model_metadata(await self._call("ModelMetadata", data, headers, timeout_s))

    async def _call(self, method: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> bytes:
        client = self._open()
        from glowplug.serving import grpc_client

        host = self._config.host
        try:
            answer: bytes = await client.call(
                f"/{v2_grpc.SERVICE}/{method}", data, headers.items(), timeout_s
            )
        except grpc_client.Unreachable as error:
            raise _Unreachable(f"the predictor at {host} cannot be reached: {error}") from error
        except grpc_client.DeadlineExceeded as error:
            raise _too_slow(host, timeout_s) from error
        except grpc_client.CallRefused as error:
            if error.code == status.DEADLINE_EXCEEDED:
                raise _too_slow(host, timeout_s) from error
            text = f"the predictor: {error.text[:MAX_QUOTED] or status.NAMES[error.code]}"
            if error.code == status.UNAVAILABLE:
                raise _Unreachable(text) from error
            if error.code == status.FAILED_PRECONDITION and names.PAIR_HEADER in error.trailers:
                raise OtherPair(text, error.trailers[names.PAIR_HEADER]) from error
            raise InferenceError(text, code=http_code(status.NAMES[error.code])) from error
        return answer

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class _Http:
    def __init__(self, config: PredictorConfig) -> None:
        self._config = config
        self._client: Any = None

    def _open(self) -> Any:
        if self._client is None:
            import ssl

            from glowplug.serving.http_client import HttpClient

            host, port = host_and_port(self._config.host, use_ssl=self._config.use_ssl)
            tls = ssl.create_default_context() if self._config.use_ssl else None
            self._client = HttpClient(host, port, tls=tls)
        return self._client

    async def infer(
        self, request: InferRequest, headers: Mapping[str, str], timeout_s: float
    ) -> InferResponse:
        name = quote(request.model_name, safe="")
        if self._config.protocol == "v1":
            body = v2_json.dump_json(v1.encode_request(request))
            sent = {**headers, "content-type": "application/json"}
            answer = await self._ask("POST", f"/v1/models/{name}:predict", sent, body, timeout_s)
            document = v2_json.parse_json(answer.body, "the predictor's answer")
            return v1.decode_response(document, model_name=request.model_name)
        body, length = v2_json.encode_request(request, binary=True)
        sent = {**headers, "content-type": "application/octet-stream"}
        if length is not None:
            sent[v2_json.HEADER_LENGTH] = str(length)
        answer = await self._ask("POST", f"/v2/models/{name}/infer", sent, body, timeout_s)
        return v2_json.decode_response(answer.body, header_length=answer.headers.get(v2_json.HEADER_LENGTH))

    async def metadata(
        self, model_name: str, timeout_s: float, headers: Mapping[str, str] = _NONE
    ) -> v2_grpc.ModelMetadata | None:
        if self._config.protocol == "v1":
            return None
        answer = await self._ask("GET", f"/v2/models/{quote(model_name, safe='')}", headers, b"", timeout_s)
        document = v2_json.parse_json(answer.body, "the predictor's metadata")
        try:
            return _metadata(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InferenceError(f"the predictor's metadata cannot be read: {error!r}", code=503) from error

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Any:
        answer = await self._request(method, path, headers, body, timeout_s)
        if answer.status >= 400:
            raise _refused(answer)
        return answer

    async def is_ready(self, timeout_s: float, headers: Mapping[str, str] = _NONE) -> bool:
        # V1 has no readiness of the server; `/` says that it is alive.
        path = "/" if self._config.protocol == "v1" else "/v2/health/ready"
        answer = await self._request("GET", path, headers, b"", timeout_s)
        if answer.status == REFUSED:
            raise _refused(answer)
        return bool(answer.status == 200)

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Any:
        try:
            return await self._open().request(method, path, headers, body, timeout_s=timeout_s)
        except asyncio.TimeoutError as error:
            raise _too_slow(self._config.host, timeout_s) from error
        except OSError as error:
            why = str(error) or type(error).__name__
            raise _Unreachable(f"the predictor at {self._config.host} cannot be reached: {why}") from error

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def _metadata(document: Any) -> v2_grpc.ModelMetadata:
    inputs, outputs = (
        tuple(
            v2_grpc.TensorMetadata(
                str(item["name"]), str(item["datatype"]), tuple(int(size) for size in item["shape"])
            )
            for item in document.get(key) or ()
        )
        for key in ("inputs", "outputs")
    )
    columns = tuple(str(column) for column in document.get("columns") or ())
    return v2_grpc.ModelMetadata(str(document["name"]), inputs=inputs, outputs=outputs, columns=columns)


def _too_slow(host: str, timeout_s: float) -> InferenceError:
    return InferenceError(f"the predictor at {host} did not answer within {timeout_s:g} s", code=504)


def _countdown(limit_s: float) -> Callable[[], float]:
    """What is left of a time limit that begins now, never quite nothing."""
    ends_at = time.monotonic() + limit_s
    return lambda: max(ends_at - time.monotonic(), 0.001)


def _refused(answer: Answer) -> InferenceError:
    text = f"the predictor: {_told(answer.body, answer.status)}"
    pair = answer.headers.get(names.PAIR_HEADER)
    if pair is None:
        return InferenceError(text, code=answer.status)
    if answer.status == REFUSED:
        return OtherPair(text, pair)
    return PartnersError(text, code=answer.status)


def _told(body: bytes, status: int) -> str:
    """The error text of a KServe or FastAPI answer, or only the status."""
    try:
        document = v2_json.parse_json(body)
    except InferenceError:
        return f"HTTP {status}"
    text = (document.get("error") or document.get("detail")) if type(document) is dict else None
    return text[:MAX_QUOTED] if type(text) is str else f"HTTP {status}"

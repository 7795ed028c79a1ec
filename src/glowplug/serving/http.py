"""The HTTP endpoints, as one function from request to response, whatever server carries them.

KServe's paths: `/`, `/metrics`, V1 under `/v1/models`, V2 under `/v2`, and the model repository's. Any content type
is taken: the body says what it is.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

from glowplug import __version__
from glowplug.errors import InferenceError
from glowplug.serving.batcher import Call
from glowplug.serving.context import set_request_headers
from glowplug.serving.dataplane import (
    EXTENSIONS,
    SERVER_NAME,
    DataPlane,
    Overloaded,
    as_inference_error,
    identified,
)
from glowplug.serving.light import Served
from glowplug.serving.metrics import CONTENT_TYPE
from glowplug.serving.pair import NoPartner
from glowplug.serving.urgency import header_limit_s, read_urgency, set_urgency
from glowplug.wire import InferRequest, InferResponse, cloudevents, v2_json
from glowplug.wire.v2_grpc import TensorMetadata

log = logging.getLogger("glowplug.serving.access")

JSON = "application/json"


@dataclass(slots=True)
class HttpRequest:
    """A request with its whole body; header names are lower-case."""

    method: str
    path: str  # percent-encoded
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class HttpResponse:
    """A response with its whole body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class HttpEndpoints:
    """Answers every request; never raises."""

    def __init__(self, plane: DataPlane, *, max_body_bytes: int, events: cloudevents.ResponsePolicy) -> None:
        self._plane = plane
        self._max_body_bytes = max_body_bytes
        self._events = events
        # As clients write it; other spellings of the same path take the longer way.
        self._direct_paths = {f"/v2/models/{quote(name)}/infer": name for name in plane.entries}

    def begin(self, request: HttpRequest, done: Callable[[HttpResponse], None]) -> DirectCall | None:
        """Starts an inference that needs no task; `done` gets its response, maybe before this returns.

        None for any other request: `answer` is for those. What is returned can be cancelled; `done` is not called then.
        """
        name = self._direct_paths.get(request.path)
        if name is None or request.method != "POST":
            return None
        entry = self._plane.entries[name]
        if not (entry.is_loaded and entry.served.is_direct):
            return None
        call = DirectCall(self, name, request, done)
        call.start(entry.served)
        return call

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """The response to a request, errors included."""
        try:
            response = await self._route(request)
        except Exception as error:
            failure = as_inference_error(error, f"{request.method} {request.path[:200]}")
            response = _error(failure)
        return self._labelled(request, response)

    def _labelled(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        request_id = request.headers.get("x-request-id")
        if request_id is not None:
            response.headers["x-request-id"] = request_id
        if log.isEnabledFor(logging.DEBUG):
            protocol = request.path[1:3] if request.path.startswith(("/v1/", "/v2/")) else "other"
            log.debug("%s %s %s %d", protocol, request.method, request.path, response.status)
        return response

    async def _route(self, request: HttpRequest) -> HttpResponse:
        path = request.path
        if path.startswith("/v2/models/"):
            return await self._v2_model(request, path[len("/v2/models/") :])
        if path.startswith("/v1/models/"):
            return await self._v1_model(request, path[len("/v1/models/") :])
        if path.startswith("/v2/repository/"):
            return await self._repository(request, path[len("/v2/repository/") :])
        page = self._pages().get(path.rstrip("/") or "/")
        if page is None:
            raise InferenceError(f"no page {path[:200]!r}", code=404)
        _allow(request, "GET", "HEAD")
        return await page()

    def _pages(self) -> dict[str, Callable[[], Awaitable[HttpResponse]]]:
        return {
            "/": self._alive,
            "/metrics": self._metrics,
            "/v1/models": self._models,
            "/v2": self._server,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            "/v2/models": self._models,
        }

    async def _alive(self) -> HttpResponse:
        return _json({"status": "alive"})

    async def _metrics(self) -> HttpResponse:
        return HttpResponse(200, self._plane.metrics.render(), {"content-type": CONTENT_TYPE})

    async def _models(self) -> HttpResponse:
        return _json({"models": list(self._plane.entries)})

    async def _server(self) -> HttpResponse:
        return _json({"name": SERVER_NAME, "version": __version__, "extensions": EXTENSIONS})

    async def _live(self) -> HttpResponse:
        return _json({"live": True})

    async def _ready(self) -> HttpResponse:
        is_ready = await self._plane.is_ready()
        return _json({"ready": is_ready}, 200 if is_ready else 503)

    async def _v2_model(self, request: HttpRequest, rest: str) -> HttpResponse:
        parts = [unquote(part) for part in rest.split("/")]
        name, version, verb = parts[0], "", parts[1:]
        if len(verb) >= 2 and verb[0] == "versions":
            version, verb = verb[1], verb[2:]
        if verb == ["infer"]:
            _allow(request, "POST")
            return await self._counted(name, "v2", self._infer(name, version, request))
        _allow(request, "GET", "HEAD")
        if verb == ["ready"]:
            is_ready = await self._plane.is_model_ready(name, version)
            return _json({"name": name, "ready": is_ready}, 200 if is_ready else 503)
        if verb in ([], [""]):
            return await self._model(name, version)
        raise InferenceError(f"no page {request.path[:200]!r}", code=404)

    async def _model(self, name: str, version: str) -> HttpResponse:
        served = await self._plane.loaded(name, version)
        metadata = await served.metadata()
        document: dict[str, Any] = {"name": metadata.name, "platform": metadata.platform}
        if metadata.versions:
            document["versions"] = metadata.versions
        document["inputs"] = [_tensor(item) for item in metadata.inputs]
        document["outputs"] = [_tensor(item) for item in metadata.outputs]
        if metadata.columns:
            document["columns"] = metadata.columns
        return _json(document)

    async def _v1_model(self, request: HttpRequest, rest: str) -> HttpResponse:
        name, _, verb = unquote(rest).rpartition(":")
        if name and verb in ("predict", "explain"):
            _allow(request, "POST")
            return await self._counted(name, "v1", self._predict(name, verb, request))
        _allow(request, "GET", "HEAD")
        name = unquote(rest)
        if not await self._plane.is_model_ready(name):
            raise InferenceError(f"model {name!r} is not ready", code=503)
        return _json({"name": name, "ready": True})

    async def _repository(self, request: HttpRequest, rest: str) -> HttpResponse:
        parts = [unquote(part) for part in rest.split("/")]
        if parts == ["index"]:
            _allow(request, "GET", "POST")
            asked = v2_json.parse_json(request.body) if request.body.strip() else {}
            only_ready = type(asked) is dict and asked.get("ready") is True
            return _json(await self._plane.index(only_ready))
        if len(parts) == 3 and parts[0] == "models" and parts[2] in ("load", "unload"):
            _allow(request, "POST")
            _, name, verb = parts
            await (self._plane.load(name) if verb == "load" else self._plane.unload(name))
            return _json({"name": name, verb: True})
        raise InferenceError(f"no page {request.path[:200]!r}", code=404)

    async def _counted(self, name: str, protocol: str, work: Awaitable[HttpResponse]) -> HttpResponse:
        try:
            response = await work
        except Exception as error:
            return self._failed(name, protocol, error)
        self._plane.count(name, protocol, str(response.status))
        return response

    def _failed(self, name: str, protocol: str, error: Exception) -> HttpResponse:
        failure = as_inference_error(error, f"model {name[:80]!r}")
        response = _error(failure)
        self._plane.count(name, protocol, str(response.status), failure)
        return response

    async def _infer(self, name: str, version: str, request: HttpRequest) -> HttpResponse:
        served = await self._plane.loaded(name, version)
        with self._plane.admitted():
            headers = request.headers
            set_request_headers(headers)
            asked, event = self._read_infer(name, version, served, request)
            set_urgency(asked.parameters, header_limit_s(headers))
            return self._write_infer(asked, event, await served.infer(asked, headers), headers)

    def _read_infer(
        self, name: str, version: str, served: Served, request: HttpRequest
    ) -> tuple[InferRequest, cloudevents.Event | None]:
        headers = request.headers
        body = self._body(request)
        event: cloudevents.Event | None = None
        if cloudevents.is_event(headers):
            event, body = cloudevents.decode(headers, body)
        if type(body) is bytes:
            asked = v2_json.decode_request(
                body,
                model_name=name,
                header_length=headers.get(v2_json.HEADER_LENGTH),
                model_version=version,
                accepts_missing=served.accepts_missing,
            )
        else:
            asked = v2_json.decode_request_document(
                body, model_name=name, model_version=version, accepts_missing=served.accepts_missing
            )
        return asked, event

    def _write_infer(
        self,
        asked: InferRequest,
        event: cloudevents.Event | None,
        answer: InferResponse,
        headers: Mapping[str, str],
    ) -> HttpResponse:
        payload, length = v2_json.encode_response(identified(answer, asked, headers), asked)
        if event is not None:
            return self._event(event, payload, asked.model_name)
        if length is None:
            return HttpResponse(200, payload, {"content-type": JSON})
        return HttpResponse(
            200, payload, {"content-type": "application/octet-stream", v2_json.HEADER_LENGTH: str(length)}
        )

    async def _predict(self, name: str, verb: str, request: HttpRequest) -> HttpResponse:
        served = await self._plane.loaded(name)
        with self._plane.admitted():
            headers = request.headers
            set_request_headers(headers)
            body = self._body(request)
            event: cloudevents.Event | None = None
            document: Any = body
            if cloudevents.is_event(headers):
                event, document = cloudevents.decode(headers, body)
            if type(document) is bytes:
                document = v2_json.parse_json(document)
            if event is None and cloudevents.looks_structured(document):
                event, document = cloudevents.decode_structured(document)
            set_urgency({}, header_limit_s(headers))
            work = served.predict_v1 if verb == "predict" else served.explain_v1
            answer = await work(document, headers)
            payload = answer if type(answer) is bytes else v2_json.dump_json(answer)
        if event is not None:
            return self._event(event, payload, name)
        return HttpResponse(200, payload, {"content-type": JSON})

    def _event(self, event: cloudevents.Event, payload: bytes, model: str) -> HttpResponse:
        headers, body = cloudevents.encode_answer(
            event,
            payload,
            model=model,
            policy=self._events,
            event_id=str(uuid4()),
            time=datetime.now(timezone.utc).isoformat(),
        )
        return HttpResponse(200, body, headers)

    def _body(self, request: HttpRequest) -> bytes:
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("identity", ""):
            return request.body
        if encoding not in ("gzip", "deflate"):
            raise InferenceError("Content-Encoding is neither gzip, deflate nor identity", code=415)
        return inflate(request.body, self._max_body_bytes)


class DirectCall:
    """A V2 inference on its way through a model's batches, without a task of its own."""

    __slots__ = ("_asked", "_call", "_done", "_endpoints", "_event", "_name", "_request")

    def __init__(
        self, endpoints: HttpEndpoints, name: str, request: HttpRequest, done: Callable[[HttpResponse], None]
    ) -> None:
        self._endpoints = endpoints
        self._name = name
        self._request = request
        self._done = done
        self._event: cloudevents.Event | None = None
        self._call: Call | None = None

    def start(self, served: Served) -> None:
        """Decodes and queues the request, or answers why not."""
        endpoints, request = self._endpoints, self._request
        plane = endpoints._plane
        try:
            plane.enter()
        except Overloaded as error:
            self._finish(endpoints._failed(self._name, "v2", error))
            return
        try:
            self._asked, self._event = endpoints._read_infer(self._name, "", served, request)
            limit_s = header_limit_s(request.headers)
            urgency = read_urgency(self._asked.parameters, limit_s, time.monotonic())
            self._call = served.submit(self._asked, urgency, self._told)
        except Exception as error:
            self._told(error)

    def _told(self, result: InferResponse | Exception) -> None:
        endpoints, name = self._endpoints, self._name
        # The two know each other; left so, every request would be garbage for the collector to find.
        self._call = None
        endpoints._plane.leave()
        try:
            if isinstance(result, Exception):
                raise result
            response = endpoints._write_infer(self._asked, self._event, result, self._request.headers)
        except Exception as error:
            response = endpoints._failed(name, "v2", error)
        else:
            endpoints._plane.count(name, "v2", "200")
        self._finish(response)

    def _finish(self, response: HttpResponse) -> None:
        self._done(self._endpoints._labelled(self._request, response))

    def cancel(self) -> None:
        """Nobody waits for the answer any more. Not after `done` was called."""
        if self._call is not None:
            self._call.cancel()
            self._endpoints._plane.leave()


def inflate(body: bytes, limit: int) -> bytes:
    """gzip or zlib, unpacked to at most `limit` bytes. Raises InferenceError: 400 broken, 413 past the limit."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        data = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise InferenceError("the body is not gzip or deflate data") from None
    if len(data) > limit:
        raise too_large(limit)
    if not unpacker.eof:
        raise InferenceError("the compressed body is cut off")
    return data


def too_large(limit: int) -> InferenceError:
    """A body past the limit."""
    return InferenceError(
        f"the body is larger than {limit} bytes", hint="--max_body_bytes sets the limit", code=413
    )


def error_response(error: InferenceError) -> HttpResponse:
    """An error as every endpoint answers it."""
    return _error(error)


def _error(error: InferenceError) -> HttpResponse:
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    response = _json({"error": text}, error.code if 400 <= error.code <= 599 else 500)
    if isinstance(error, (Overloaded, NoPartner)):
        response.headers["retry-after"] = "1"
    return response


def _json(value: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(status, v2_json.dump_json(value), {"content-type": JSON})


def _tensor(item: TensorMetadata) -> dict[str, Any]:
    return {"name": item.name, "datatype": item.datatype, "shape": item.shape}


def _allow(request: HttpRequest, *methods: str) -> None:
    if request.method not in methods:
        raise InferenceError(f"{request.method} is not allowed here, only {' and '.join(methods)}", code=405)

"""The ASGI application: authentication, the route to an endpoint, and every error as a Status.

A long answer (watch, log) ends when its source does, when the client leaves, or when the server stops; a client
that does not read is let go after a while, so that it cannot hold its place for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from glowplug.apiserver import auth, discovery, options, routes
from glowplug.apiserver.http import (
    Receive,
    Request,
    Response,
    Scope,
    Send,
    Stream,
    json_response,
    read_object,
    request_of,
    send_response,
    start_stream,
    status_response,
)
from glowplug.apiserver.negotiate import DISCOVERY, choose
from glowplug.apiserver.objects import Objects
from glowplug.apiserver.openapi import OpenAPI
from glowplug.apiserver.podlogs import LogSource, read_log
from glowplug.apiserver.reading import Reader
from glowplug.apiserver.routes import NO_RESOURCE, Target
from glowplug.apiserver.writing import Writer, read_only
from glowplug.errors import ApiError, BadRequest, Invalid, MethodNotAllowed, NotFound

log = logging.getLogger(__name__)

# Answers that clients reckon with: looking before creating, losing a race, watching from too long ago.
_EVERYDAY = (404, 409, 410)
# kubectl reads the v2 document as protobuf only, and only to learn that a kind is not in it (what is served is in
# v3): a document with a version and nothing else says just that.
_PROTOBUF_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_EMPTY_V2 = b"\n\x032.0\x12\x0e\n\x08glowplug\x12\x02v1"
_AGGREGATED = ";".join(("application/json", "g={2}", "v={1}", "as={0}")).format(*DISCOVERY)


@dataclass(frozen=True)
class AppConfig:
    """Limits of one request: the body that it may bring and how long its answer may stay unread."""

    token: str
    address: str = "127.0.0.1"
    max_body_bytes: int = 3 * 2**20
    unread_timeout_s: float = 30.0


# What the machine says beside the Kubernetes API, by the first segment of the path: text for the other segments, or
# None where there is nothing.
Pages = Mapping[str, Callable[[tuple[str, ...]], "str | Awaitable[str | None] | None"]]


class App:
    """The Kubernetes API as an ASGI application."""

    def __init__(
        self,
        config: AppConfig,
        objects: Objects,
        reader: Reader,
        writer: Writer,
        openapi: OpenAPI,
        logs: LogSource,
        pages: Pages,
    ) -> None:
        self._pages = pages
        self._config = config
        self._objects = objects
        self._reader = reader
        self._writer = writer
        self._openapi = openapi
        self._logs = logs
        self._stopping = asyncio.Event()

    def stop_streams(self) -> None:
        """End every watch and log that is open, so that the server can close its connections."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = request_of(scope, receive, self._config.max_body_bytes)
        answer = await self._answer(request)
        if isinstance(answer, Stream):
            await self._send_stream(answer, receive, send)
        else:
            await send_response(send, answer, is_head=request.method == "HEAD")

    async def _answer(self, request: Request) -> Response | Stream:
        target: Target | None = None
        try:
            if request.path not in auth.OPEN_PATHS:
                auth.authenticate(request.headers.get("authorization", ""), self._config.token)
            segments = routes.split(request.path)
            answer = await self._document(request, segments)
            if answer is not None:
                return answer
            if len(segments) == 4 and segments[3] in _review_plurals(segments[1]):
                return await _review(request, segments[3])
            target = routes.resource(segments)
            return await self._resource(target, request)
        except ApiError as error:
            _note(request, error)
            return status_response(error, _subject(error, target))
        except RecursionError:
            failure = BadRequest("the object is nested too deeply")
            return status_response(failure, _subject(failure, target))
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            unexpected = ApiError(f"{type(error).__name__}: {error}")
            return status_response(unexpected, _subject(unexpected, target))

    async def _resource(self, target: Target, request: Request) -> Response | Stream:
        method = "GET" if request.method == "HEAD" else request.method
        if target.subresource == "log":
            _only(method, ("GET",), "log")
            return read_log(self._objects, self._logs, target, request)
        if method == "GET":
            return self._read(target, request)
        if target.kind.is_read_only:
            raise read_only(target.kind)
        if target.name:
            _only(
                method,
                ("PUT", "PATCH") if target.subresource else ("PUT", "PATCH", "DELETE"),
                target.kind.plural,
            )
            verb = {"PUT": self._writer.update, "PATCH": self._writer.patch, "DELETE": self._writer.delete}[
                method
            ]
            return await verb(target, request)
        is_whole = bool(target.namespace) or not target.kind.is_namespaced
        _only(method, ("POST", "DELETE") if is_whole else (), target.kind.plural)
        return await (self._writer.create if method == "POST" else self._writer.delete_collection)(
            target, request
        )

    def _read(self, target: Target, request: Request) -> Response | Stream:
        if target.name:
            return self._reader.get(target, request)
        if options.flag(request.query, "watch"):
            return self._reader.watch(target, request)
        return self._reader.list(target, request)

    async def _document(self, request: Request, segments: tuple[str, ...]) -> Response | None:
        """The answer for everything that is not a stored object, or None."""
        if request.path in auth.OPEN_PATHS:
            return json_response(discovery.version()) if segments == ("version",) else _text("ok")
        if not segments:
            own = [f"/{name}" for name in self._pages]
            paths = ["/api", "/apis", "/healthz", "/openapi/v2", "/openapi/v3", "/version", *own]
            return json_response({"paths": sorted(paths)})
        if segments[0] == "openapi":
            return self._schema(request, segments[1:])
        if segments[0] not in ("api", "apis"):
            page = self._pages.get(segments[0])
            found = None if page is None else page(segments[1:])
            text = found if found is None or isinstance(found, str) else await found
            if text is None:
                raise NotFound(NO_RESOURCE)
            return _text(text)
        answer = self._discovery(request, segments)
        if answer is not None and request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{request.method} is not supported on {request.path}")
        return answer

    def _discovery(self, request: Request, segments: tuple[str, ...]) -> Response | None:
        if len(segments) == 1:
            form = choose(request.accept)
            if form.convert_to == DISCOVERY[0]:
                body = json_response(discovery.aggregated(is_core=segments[0] == "api")).body
                return Response(body, content_type=_AGGREGATED)
            is_core = segments[0] == "api"
            return json_response(
                discovery.api_versions(self._config.address) if is_core else discovery.api_groups()
            )
        if segments[0] == "api":
            return json_response(discovery.api_resources("", segments[1])) if len(segments) == 2 else None
        if len(segments) == 2:
            return json_response(discovery.api_group(segments[1]))
        return (
            json_response(discovery.api_resources(segments[1], segments[2])) if len(segments) == 3 else None
        )

    def _schema(self, request: Request, rest: tuple[str, ...]) -> Response:
        if rest == ("v2",) and "proto-openapi" in request.accept:
            return Response(_EMPTY_V2, content_type=_PROTOBUF_V2)
        if rest == ("v2",):
            return Response(self._openapi.v2())
        if rest == ("v3",):
            return Response(self._openapi.v3_index())
        body = self._openapi.v3("/".join(rest[1:])) if rest[:1] == ("v3",) else None
        if body is None:
            raise NotFound(NO_RESOURCE)
        return Response(body)

    async def _send_stream(self, stream: Stream, receive: Receive, send: Send) -> None:
        await start_stream(send, stream)
        has_left = False

        async def watch_client(group: TaskGroup) -> None:
            nonlocal has_left
            while (await receive())["type"] != "http.disconnect":
                pass
            has_left = True
            group.cancel_scope.cancel()

        async def watch_server(group: TaskGroup) -> None:
            await self._stopping.wait()
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch_client, group, name="apiserver: client of a stream")
            group.start_soon(watch_server, group, name="apiserver: end of a stream")
            has_left = not await self._copy(stream, send) or has_left
            group.cancel_scope.cancel()
        if not has_left:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _copy(self, stream: Stream, send: Send) -> bool:
        """Send every chunk; False if the client stopped reading."""
        try:
            async with aclosing(stream.chunks) as chunks:
                async for chunk in chunks:
                    with anyio.fail_after(self._config.unread_timeout_s):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            log.info("a client did not read for %.0f s: its stream ends", self._config.unread_timeout_s)
            return False
        except Exception:
            # The headers are out: all that is left is to end the stream, and to say so here.
            log.exception("a stream failed")
        return True


def _subject(error: ApiError, target: Target | None) -> dict[str, str]:
    """What a Status says of its subject: of an invalid object the kind, of everything else the resource."""
    if target is None:
        return {}
    return {**target.details, "kind": target.kind.name} if isinstance(error, Invalid) else target.details


def _review_plurals(group: str) -> list[str]:
    return [plural for _, plural in discovery.REVIEWS.get(group, ())]


async def _review(request: Request, plural: str) -> Response:
    _only(request.method, ("POST",), plural)
    body, _ = await read_object(request)
    return json_response(auth.review(plural, body), 201)


def _only(method: str, allowed: tuple[str, ...], what: str) -> None:
    if method not in allowed:
        raise MethodNotAllowed(f"the server does not allow {method} on {what} at this address")


def _text(body: str) -> Response:
    return Response(body.encode(), content_type="text/plain; charset=utf-8")


def _note(request: Request, error: ApiError) -> None:
    level = (
        logging.WARNING if error.code >= 500 else logging.DEBUG if error.code in _EVERYDAY else logging.INFO
    )
    log.log(level, "%s %s: %d %s", request.method, request.path, error.code, error.message)

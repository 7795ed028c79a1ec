"""V2 over gRPC: the methods of inference.GRPCInferenceService on our own HTTP/2.

With a model that does nothing, grpc.aio took 240 to 400 µs of CPU time a call, and this takes 35 to 60 (h2load, 8 calls
at a time). And it kept calls uncounted inside itself, which `stop` then cancelled: here a call is known from its first
frame.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

from glowplug import __version__
from glowplug.errors import ConfigError, InferenceError
from glowplug.serving.codes import grpc_status
from glowplug.serving.context import set_request_headers
from glowplug.serving.dataplane import (
    EXTENSIONS,
    SERVER_NAME,
    DataPlane,
    Overloaded,
    as_inference_error,
    identified,
)
from glowplug.serving.urgency import Expired, read_urgency, set_urgency
from glowplug.wire import InferRequest, InferResponse, v2_grpc
from glowplug.wire.http2 import GrpcService, Limits, Stream, grpc_timeout_s, status
from glowplug.wire.http2.server import Handler

MAX_MESSAGE = 1500
BACKLOG = 2048
# Of one client. Far more than are served at a time: those past that are refused with RESOURCE_EXHAUSTED, not kept.
MAX_STREAMS = 8192
# Of messages whose clients have not ended their stream; one such message is always taken.
MAX_HELD_BYTES = 256 * 2**20

# Headers that belong to gRPC and not to the call.
_OF_GRPC = frozenset({"te", "content-type", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"})


class _Work(Protocol):
    """A task, or a request that waits for its model's batch."""

    def cancel(self) -> object: ...


class GrpcCall:
    """A call, from its headers until it is answered."""

    __slots__ = ("data", "deadline", "has_place", "headers", "method", "request", "timer", "work")

    def __init__(self, method: Method | None, headers: Mapping[str, str], deadline: float | None) -> None:
        # None for ModelInfer, which has a way of its own.
        self.method = method
        self.headers = headers
        self.deadline = deadline
        self.data: bytes | None = None
        self.request: InferRequest | None = None
        self.work: _Work | None = None
        self.timer: asyncio.TimerHandle | None = None
        # Whether it is among the requests in flight.
        self.has_place = False

    @property
    def name(self) -> str:
        """The name of the method."""
        return self.headers[":path"].rpartition("/")[2]

    @property
    def model_name(self) -> str:
        """The model that is asked, once that has been read."""
        return self.request.model_name if self.request is not None else ""

    def metadata(self) -> dict[str, str]:
        """The call's own headers that are text."""
        return {
            name: value
            for name, value in self.headers.items()
            if name[0] != ":" and name not in _OF_GRPC and name[-4:] != "-bin"
        }

    def left_s(self) -> float | None:
        """How long the client still waits; None for ever."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)


Method = Callable[[bytes], Awaitable[bytes]]


class GrpcEndpoints:
    """The methods, and the tasks that run them: a `Handler` of wire.http2.

    An inference is decoded and queued for its model's next batch in the callback that brought its last byte, and
    answered in the one that ran the batch; only a model that does more than batch gets a task for each.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._loop = asyncio.get_running_loop()
        self._held_bytes = 0
        self.tasks: set[asyncio.Task[None]] = set()
        methods: dict[str, Method | None] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": None,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        self._methods = {f"/{v2_grpc.SERVICE}/{name}": method for name, method in methods.items()}

    # What the connection tells.

    def request(self, stream: Stream, headers: Mapping[str, str]) -> None:
        path = headers[":path"]
        if path not in self._methods:
            stream.reply_error(status.UNIMPLEMENTED, f"no method {path[:200]}")
            return
        limit_s = grpc_timeout_s(headers)
        deadline = None if limit_s is None else time.monotonic() + limit_s
        stream.state = GrpcCall(self._methods[path], headers, deadline)

    def message(self, stream: Stream, data: bytes) -> None:
        call: GrpcCall = stream.state
        if call.data is not None:
            self._held_bytes -= len(call.data)
            stream.reply_error(status.INTERNAL, f"{call.name} takes one message, and there are more")
        elif self._held_bytes and self._held_bytes + len(data) > MAX_HELD_BYTES:
            text = f"more than {MAX_HELD_BYTES} bytes are held of calls whose clients have not ended them"
            stream.reply_error(status.RESOURCE_EXHAUSTED, text)
        else:
            self._held_bytes += len(data)
            call.data = data

    def ended(self, stream: Stream) -> None:
        call: GrpcCall = stream.state
        data, call.data = call.data, None
        if data is None:
            stream.reply_error(status.INTERNAL, f"{call.name} takes a message, and there is none")
            return
        self._held_bytes -= len(data)
        if call.method is None:
            self._begin_infer(stream, call, data)
        else:
            self._begin_task(stream, call, self._answer(stream, call.method, data))

    def reset(self, stream: Stream) -> None:
        call: GrpcCall = stream.state
        if call.data is not None:
            self._held_bytes -= len(call.data)
        if call.request is not None:
            self._plane.count(call.model_name, "grpc", "CANCELLED")
        self._cancel(call)

    # The work of a call.

    def _begin_task(self, stream: Stream, call: GrpcCall, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, name="grpc call")
        call.work = task
        left_s = call.left_s()
        if left_s is not None:
            call.timer = self._loop.call_later(left_s, self._on_deadline, stream)
        self.tasks.add(task)
        task.add_done_callback(lambda task: self._end_task(stream, call, task))

    def _end_task(self, stream: Stream, call: GrpcCall, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task.cancelled():
            # By the model itself, where somebody still waits.
            stream.reply_error(status.CANCELLED, "the prediction was cancelled")
        if call.timer is not None:
            call.timer.cancel()
        self._leave(call)

    def _on_deadline(self, stream: Stream) -> None:
        call: GrpcCall = stream.state
        self._cancel(call)
        if call.request is not None:
            self._plane.count(call.model_name, "grpc", "DEADLINE_EXCEEDED", Expired())
        stream.reply_error(status.DEADLINE_EXCEEDED, "the call's deadline has passed")

    def _cancel(self, call: GrpcCall) -> None:
        if call.work is not None:
            call.work.cancel()
            if not isinstance(call.work, asyncio.Task):
                self._leave(call)

    def _leave(self, call: GrpcCall) -> None:
        if call.has_place:
            call.has_place = False
            self._plane.leave()

    async def _answer(self, stream: Stream, method: Method, data: bytes) -> None:
        try:
            stream.reply(await method(data))
        except Exception as error:
            call: GrpcCall = stream.state
            _refuse(stream, as_inference_error(error, call.name))

    # Inference.

    def _begin_infer(self, stream: Stream, call: GrpcCall, data: bytes) -> None:
        plane = self._plane
        try:
            plane.enter()
            call.has_place = True
            # Whether missing values are let through depends on the model, and its name is in the message.
            call.request = request = v2_grpc.decode_infer_request(data, accepts_missing=True)
            served = plane.served(request.model_name)
            if not served.accepts_missing:
                v2_grpc.refuse_missing(request)
            if request.model_version or not served.is_direct:
                self._begin_task(stream, call, self._infer(stream, call, request))
                return
            asked = read_urgency(request.parameters, call.left_s(), time.monotonic())
            call.work = served.submit(request, asked, lambda result: self._infer_ended(stream, result))
        except Exception as error:
            self._infer_ended(stream, error)

    async def _infer(self, stream: Stream, call: GrpcCall, request: InferRequest) -> None:
        result = await self._result(call, request)
        if stream.is_open:
            self._infer_ended(stream, result)

    async def _result(self, call: GrpcCall, request: InferRequest) -> InferResponse | Exception:
        try:
            headers = call.metadata()
            set_request_headers(headers)
            set_urgency(request.parameters, call.left_s())
            served = await self._plane.loaded(request.model_name, request.model_version)
            return await served.infer(request, headers)
        except Exception as error:
            return error

    def _infer_ended(self, stream: Stream, result: InferResponse | Exception) -> None:
        call: GrpcCall = stream.state
        self._leave(call)
        name, request = call.model_name, call.request
        try:
            if isinstance(result, Exception):
                raise result
            assert request is not None
            answer = v2_grpc.encode_infer_response(identified(result, request, call.headers), request)
        except Exception as error:
            failure = as_inference_error(error, f"model {name[:80]!r}")
            self._plane.count(name, "grpc", _status(failure), failure)
            _refuse(stream, failure)
        else:
            self._plane.count(name, "grpc", "OK")
            stream.reply(answer)

    # The other methods.

    async def _server_live(self, data: bytes) -> bytes:
        return v2_grpc.encode_flag(True)

    async def _server_ready(self, data: bytes) -> bytes:
        return v2_grpc.encode_flag(await self._plane.is_ready())

    async def _server_metadata(self, data: bytes) -> bytes:
        return v2_grpc.encode_server_metadata(SERVER_NAME, __version__, EXTENSIONS)

    async def _model_ready(self, data: bytes) -> bytes:
        model = v2_grpc.decode_model_id(data)
        return v2_grpc.encode_flag(await self._plane.is_model_ready(model.name, model.version))

    async def _model_metadata(self, data: bytes) -> bytes:
        model = v2_grpc.decode_model_id(data)
        served = await self._plane.loaded(model.name, model.version)
        return v2_grpc.encode_model_metadata(await served.metadata())

    async def _load(self, data: bytes) -> bytes:
        name = v2_grpc.decode_model_id(data).name
        await self._plane.load(name)
        return v2_grpc.encode_repository_response(name, True)

    async def _unload(self, data: bytes) -> bytes:
        name = v2_grpc.decode_model_id(data).name
        await self._plane.unload(name)
        return v2_grpc.encode_repository_response(name, True)


def _refuse(stream: Stream, failure: InferenceError) -> None:
    text = f"{failure.message} ({failure.hint})" if failure.hint else failure.message
    stream.reply_error(status.NUMBERS[_status(failure)], text[:MAX_MESSAGE])


def _status(error: InferenceError) -> str:
    return "RESOURCE_EXHAUSTED" if isinstance(error, Overloaded) else grpc_status(error.code)


class GrpcServer:
    """A bound server: `start`, then `drain`, and `abort` in any case."""

    def __init__(
        self, endpoints: GrpcEndpoints, handler: Handler, listener: socket.socket, limits: Limits
    ) -> None:
        self._endpoints = endpoints
        self._service = GrpcService(handler, limits)
        self._socket = listener
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """From here on calls are taken. Raises ConfigError where another process listens on the port."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._service.protocol, sock=self._socket, backlog=BACKLOG
            )
        except OSError as error:
            raise ConfigError(f"the gRPC port cannot be listened on: {error.strerror}") from error

    async def drain(self, timeout_s: float) -> None:
        """Takes no more calls, and finishes those that were sent; what is left after `timeout_s` is cancelled."""
        # Those who connected while a prediction held the event loop are let in: they were told nothing else.
        for _ in range(2):
            await asyncio.sleep(0)
        self._close()
        self._service.begin_drain()
        try:
            await asyncio.wait_for(self._service.drained(), timeout_s)
        except asyncio.TimeoutError:
            await self.abort()

    async def abort(self) -> None:
        """Cancels what is left."""
        self._close()
        self._service.abort()
        await asyncio.gather(*self._endpoints.tasks, return_exceptions=True)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._socket.close()


def bind(
    plane: DataPlane,
    *,
    host: str,
    port: int,
    max_message_bytes: int,
    endpoints: GrpcEndpoints | None = None,
    around: Callable[[Handler], Handler] | None = None,
) -> tuple[GrpcServer, int]:
    """A server that is bound but not started, and its port. Raises ConfigError where the port is taken.

    `around` makes the handler that gets the calls, from the one that answers them.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # A client whose computer is gone is noticed in the end; connections inherit it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"gRPC port {port} on {host} cannot be opened",
            hint="--grpc_port or $GRPC_PORT sets another, 0 any free",
        ) from error
    limits = Limits(max_message_bytes=max_message_bytes, max_streams=MAX_STREAMS)
    endpoints = endpoints or GrpcEndpoints(plane)
    handler = around(endpoints) if around else endpoints
    return GrpcServer(endpoints, handler, listener, limits), listener.getsockname()[1]

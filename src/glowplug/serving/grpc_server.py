"""V2 over gRPC: grpc.aio with generic handlers that get and give bytes; the messages are our own codec's."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

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
from glowplug.serving.urgency import set_urgency
from glowplug.wire import v2_grpc

# gRPC refuses a response whose headers are above 8 KiB, and the message is one, percent-encoded.
MAX_MESSAGE = 1500

Handler = Callable[[bytes, Any], Awaitable[bytes]]

_QUIET_S = 0.05
# After so many looks in which the event loop was never held up, all that had come before them has begun.
_LOOKS = 10


class GrpcEndpoints:
    """The methods of inference.GRPCInferenceService."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._begun = 0
        self._active = 0

    def handlers(self) -> Any:
        """The generic handler to add to a server."""
        methods: dict[str, Handler] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        return grpc.method_handlers_generic_handler(
            v2_grpc.SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(self._counted(_guarded(name, work)))
                for name, work in methods.items()
            },
        )

    async def begun(self) -> None:
        """Returns when every call that has been received has also begun.

        grpc.aio's `stop` cancels those that have not, whatever its grace: they wait inside it, uncounted, while a
        prediction holds the event loop. So look until a while passes with no call, or with a loop that is free.
        """
        free_looks = 0
        while free_looks < _LOOKS:
            before, looked_at = self._begun, time.monotonic()
            await asyncio.sleep(_QUIET_S)
            if time.monotonic() - looked_at > 2 * _QUIET_S:
                free_looks = 0
                continue
            if not self._active and self._begun == before:
                return
            free_looks += 1

    def _counted(self, work: Handler) -> Handler:
        async def call(data: bytes, context: Any) -> bytes:
            self._begun += 1
            self._active += 1
            try:
                return await work(data, context)
            finally:
                self._active -= 1

        return call

    async def _server_live(self, data: bytes, context: Any) -> bytes:
        return v2_grpc.encode_flag(True)

    async def _server_ready(self, data: bytes, context: Any) -> bytes:
        return v2_grpc.encode_flag(await self._plane.is_ready())

    async def _server_metadata(self, data: bytes, context: Any) -> bytes:
        return v2_grpc.encode_server_metadata(SERVER_NAME, __version__, EXTENSIONS)

    async def _model_ready(self, data: bytes, context: Any) -> bytes:
        model = v2_grpc.decode_model_id(data)
        return v2_grpc.encode_flag(await self._plane.is_model_ready(model.name, model.version))

    async def _model_metadata(self, data: bytes, context: Any) -> bytes:
        model = v2_grpc.decode_model_id(data)
        served = await self._plane.loaded(model.name, model.version)
        return v2_grpc.encode_model_metadata(await served.metadata())

    async def _load(self, data: bytes, context: Any) -> bytes:
        name = v2_grpc.decode_model_id(data).name
        await self._plane.load(name)
        return v2_grpc.encode_repository_response(name, True)

    async def _unload(self, data: bytes, context: Any) -> bytes:
        name = v2_grpc.decode_model_id(data).name
        await self._plane.unload(name)
        return v2_grpc.encode_repository_response(name, True)

    async def _model_infer(self, data: bytes, context: Any) -> bytes:
        plane = self._plane
        name = ""
        code, failure = "OK", None
        try:
            with plane.admitted():
                headers = {
                    key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
                }
                set_request_headers(headers)
                # Whether missing values are let through depends on the model, and its name is in the message.
                request = v2_grpc.decode_infer_request(data, accepts_missing=True)
                name = request.model_name
                served = await plane.loaded(name, request.model_version)
                if not served.accepts_missing:
                    v2_grpc.refuse_missing(request)
                set_urgency(request.parameters, context.time_remaining())
                response = identified(await served.infer(request, headers), request, headers)
                return v2_grpc.encode_infer_response(response, request)
        except Exception as error:
            failure = as_inference_error(error, f"model {name[:80]!r}")
            code = _status(failure)
            raise failure from error
        finally:
            plane.count(name, "grpc", code, failure)


def _guarded(method: str, work: Handler) -> Handler:
    async def call(data: bytes, context: Any) -> bytes:
        try:
            return await work(data, context)
        except Exception as error:
            failure = as_inference_error(error, method)
        text = f"{failure.message} ({failure.hint})" if failure.hint else failure.message
        await context.abort(grpc.StatusCode[_status(failure)], text[:MAX_MESSAGE])
        raise AssertionError("abort raises")

    return call


def _status(error: InferenceError) -> str:
    return "RESOURCE_EXHAUSTED" if isinstance(error, Overloaded) else grpc_status(error.code)


class GrpcServer:
    """A bound server: `start`, then `drain`, and `abort` in any case."""

    def __init__(self, server: grpc.aio.Server, endpoints: GrpcEndpoints) -> None:
        self._server = server
        self._endpoints = endpoints

    async def start(self) -> None:
        """From here on calls are taken."""
        await self._server.start()

    async def drain(self, timeout_s: float) -> None:
        """Takes no more calls, and finishes those that were received; what is left after `timeout_s` is cancelled."""
        ends_at = time.monotonic() + timeout_s
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._endpoints.begun(), timeout_s)
        await self._server.stop(max(ends_at - time.monotonic(), 0.0))

    async def abort(self) -> None:
        """Cancels what is left."""
        await self._server.stop(0)


def bind(plane: DataPlane, *, host: str, port: int, max_message_bytes: int) -> tuple[GrpcServer, int]:
    """A server that is bound but not started, and its port. Raises ConfigError where the port is taken."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # With it, two servers would share a port silently and each get half of the calls.
            ("grpc.so_reuseport", 0),
        ]
    )
    endpoints = GrpcEndpoints(plane)
    server.add_generic_rpc_handlers((endpoints.handlers(),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(
            f"gRPC port {port} on {host} cannot be opened",
            hint="--grpc_port or $GRPC_PORT sets another, 0 any free",
        ) from error
    return GrpcServer(server, endpoints), bound

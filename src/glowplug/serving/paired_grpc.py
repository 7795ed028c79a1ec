"""The gRPC methods of a server under a pair lock."""

from __future__ import annotations

from glowplug.errors import InferenceError
from glowplug.serving.dataplane import DataPlane
from glowplug.serving.grpc_client import CallRefused
from glowplug.serving.grpc_server import GrpcCall, GrpcEndpoints
from glowplug.serving.handing_on import HandingOn
from glowplug.serving.pair import NoPartner
from glowplug.serving.paired import Pair
from glowplug.spec import names
from glowplug.wire import InferRequest, v2_grpc
from glowplug.wire.http2 import Stream, status


class LockedGrpcEndpoints(GrpcEndpoints):
    """Refuses what is meant for another pair, and hands on what has lost its predictor."""

    def __init__(self, plane: DataPlane, pair: Pair, on: HandingOn | None) -> None:
        super().__init__(plane)
        self._pair = pair
        self._on = on

    def ended(self, stream: Stream) -> None:
        call: GrpcCall = stream.state
        asked = call.headers.get(names.PAIR_HEADER)
        if asked is None or asked == self._pair.id:
            super().ended(stream)
            return
        if call.data is not None:
            self._held_bytes -= len(call.data)
            call.data = None
        self._refuse(stream, self._pair.refusal(asked))

    def _refuse(self, stream: Stream, text: str) -> None:
        stream.reply_error(status.FAILED_PRECONDITION, text, [*self._pair.signature().items()])

    async def _infer(self, stream: Stream, call: GrpcCall, request: InferRequest) -> None:
        result = await self._result(call, request)
        if not stream.is_open:
            return
        if not isinstance(result, NoPartner):
            self._infer_ended(stream, result)
        elif names.PAIR_HANDED_ON_HEADER in call.headers:
            self._plane.count(request.model_name, "grpc", "FAILED_PRECONDITION")
            self._refuse(stream, "no predictor of this pair can be reached")
        else:
            await self._elsewhere(stream, call, request, result)

    async def _elsewhere(
        self, stream: Stream, call: GrpcCall, request: InferRequest, stranded: NoPartner
    ) -> None:
        name, answer = request.model_name, None
        if self._on is not None:
            try:
                data = v2_grpc.encode_infer_request(request)
                path = call.headers[":path"]
                answer = await self._on.grpc(path, data, call.metadata(), call.left_s())
            except CallRefused as error:
                self._plane.count(name, "grpc", status.NAMES[error.code])
                stream.reply_error(error.code, error.text)
                return
            except InferenceError as error:
                self._infer_ended(stream, error)
                return
        if answer is None:
            self._infer_ended(stream, stranded)
        elif stream.is_open:
            self._plane.count(name, "grpc", "OK")
            stream.reply(answer)

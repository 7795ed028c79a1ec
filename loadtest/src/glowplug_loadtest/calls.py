"""One prediction, sent and its answer looked at: V2 over REST and over gRPC. Runs under gevent."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import gevent

from glowplug.errors import GlowplugError, InferenceError
from glowplug.wire import v2_grpc, v2_json
from glowplug_loadtest.answers import Outputs, difference, outputs_of
from glowplug_loadtest.bodies import Body
from glowplug_loadtest.grpc import CallFailed, GrpcClient
from glowplug_loadtest.plan import GRPC, Plan
from glowplug_loadtest.rest import BadAnswer, RestClient

_LONGEST_ERROR = 120


class Caller:
    """Sends the bodies in turn. With `references` an answer must equal that of the same body."""

    def __init__(self, plan: Plan, bodies: Sequence[Body]) -> None:
        prefix = urlsplit(plan.url).path.rstrip("/")
        self._timeout_s = plan.timeout_s
        self._references: list[Outputs] = []
        raw = [json.dumps(body).encode() for body in bodies]
        self._ask: Callable[[bytes], Outputs]
        if plan.protocol == GRPC:
            self._messages = [
                v2_grpc.encode_infer_request(v2_json.decode_request(body, model_name=plan.model))
                for body in raw
            ]
            self._grpc = GrpcClient(
                plan.url, plan.authority, f"{prefix}/{v2_grpc.SERVICE}/ModelInfer", plan.timeout_s
            )
            self._ask, self.close = self._ask_grpc, self._grpc.close
        else:
            self._messages = raw
            path = f"{prefix}/v2/models/{plan.model}/infer"
            self._rest = RestClient(plan.url, plan.authority, path, plan.timeout_s)
            self._ask, self.close = self._ask_rest, self._rest.close

    def take_references(self) -> None:
        """Sends every body once and keeps the answers. Raises InferenceError for one that fails."""
        found = []
        for number, message in enumerate(self._messages):
            try:
                with gevent.Timeout(self._timeout_s):
                    found.append(self._ask(message))
            except (gevent.Timeout, GlowplugError, OSError, BadAnswer, CallFailed) as error:
                raise InferenceError(f"request {number + 1} before the load: {_spoken(error)}") from error
        self._references = found

    def send(self, number: int) -> str:
        """Sends the body of that number, modulo their count; the error in a few words, "" for a right answer."""
        place = number % len(self._messages)
        try:
            with gevent.Timeout(self._timeout_s):
                found = self._ask(self._messages[place])
        except (gevent.Timeout, GlowplugError, OSError, BadAnswer, CallFailed) as error:
            return _spoken(error)
        return difference(self._references[place], found) if self._references else ""

    def _ask_rest(self, message: bytes) -> Outputs:
        status, body = self._rest.post(message)
        if status != 200:
            raise InferenceError(f"HTTP {status}: {_first_line(body)}")
        return outputs_of(v2_json.decode_response(body))

    def _ask_grpc(self, message: bytes) -> Outputs:
        return outputs_of(v2_grpc.decode_infer_response(self._grpc.call(message)))


def _spoken(error: BaseException) -> str:
    if isinstance(error, gevent.Timeout):
        return f"no answer within {error.seconds:g} s"
    if isinstance(error, GlowplugError):
        return error.message[:_LONGEST_ERROR]
    return (str(error) or type(error).__name__)[:_LONGEST_ERROR]


def _first_line(body: bytes) -> str:
    return (body.decode(errors="replace").strip().splitlines() or [""])[0]

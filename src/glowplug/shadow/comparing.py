"""What came of one request that was answered twice, pure.

First whether both answered at all and in the same class (success, the caller's mistake, the server's); of two successes
then the values: V2 tensors (JSON, with its binary form, and gRPC), else any JSON, else the bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from glowplug.copies.exchange import Message
from glowplug.errors import InferenceError
from glowplug.shadow import differences
from glowplug.shadow.differences import Apart, Tolerance
from glowplug.wire import v2_grpc, v2_json
from glowplug.wire.http2 import status
from glowplug.wire.tensors import InferResponse

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_BINARY_LENGTH = "inference-header-content-length"
# They say which model answered, or which answer it is, not what.
_NAMES = frozenset({"id", "model_name", "model_version", "created", "system_fingerprint"})
_GRPC_PREFIX_BYTES = 5
_CLIENTS_MISTAKES = frozenset(
    {
        status.CANCELLED, status.INVALID_ARGUMENT, status.NOT_FOUND, status.ALREADY_EXISTS, status.PERMISSION_DENIED,
        status.FAILED_PRECONDITION, status.OUT_OF_RANGE, status.UNAUTHENTICATED,
    }
)  # fmt: skip


class Outcome(Enum):
    """What came of it; the values are those of the metrics."""

    EQUAL = "equal"
    CLOSE = "close"  # the numbers are within the tolerance
    DIFFERENT = "different"
    ERROR = "error"  # an error of the shadow's where the revision in use succeeded
    FAILED = "failed"  # no answer from a pod of the shadow's, or not in time
    TOO_LARGE = "too_large"
    NOT_COMPARABLE = "not_comparable"
    DROPPED = "dropped"  # the shadow is behind
    CUT = "cut"  # the caller went away

    @property
    def is_compared(self) -> bool:
        return self in _COMPARED

    @property
    def is_worse(self) -> bool:
        """Whether somebody should look at it."""
        return self in (Outcome.DIFFERENT, Outcome.ERROR, Outcome.FAILED)


_COMPARED = frozenset({Outcome.EQUAL, Outcome.CLOSE, Outcome.DIFFERENT, Outcome.ERROR, Outcome.FAILED})


@dataclass(frozen=True)
class Comparison:
    """`distance` as in `differences`, where numbers were compared; `what` says what differs."""

    outcome: Outcome
    what: str = ""
    distance: float | None = None


class _Opaque(Exception):
    """Nothing that this module reads."""


def compare(path: str, ours: Message, theirs: Message, tolerance: Tolerance) -> Comparison:
    """`ours` is the answer that the caller got, `theirs` the shadow's, of the request to `path`."""
    a, b = _status(ours), _status(theirs)
    if a[0] != b[0]:
        outcome = Outcome.ERROR if a[0] == _SUCCESS else Outcome.DIFFERENT
        return Comparison(outcome, f"{a[1]} and {b[1]}")
    if a[0] != _SUCCESS or ours.body == theirs.body:
        return Comparison(Outcome.EQUAL, distance=0.0 if a[0] == _SUCCESS else None)
    try:
        apart = _apart(path, ours, theirs, tolerance)
    except (_Opaque, InferenceError) as error:
        return Comparison(Outcome.NOT_COMPARABLE, str(error))
    if apart.what:
        return Comparison(Outcome.DIFFERENT, apart.what, apart.distance)
    return Comparison(Outcome.CLOSE if apart.distance else Outcome.EQUAL, distance=apart.distance)


_SUCCESS = "success"


def _status(answer: Message) -> tuple[str, str]:
    """The class of the answer's status, and how it is shown."""
    http = answer.headers.get(":status", "")
    if answer.is_grpc and http == "200":
        code = status.parse(answer.headers.get("grpc-status", ""))
        kind = _SUCCESS if code == status.OK else "client" if code in _CLIENTS_MISTAKES else "server"
        return kind, f"status {status.NAMES[code]}"
    kind = {"2": _SUCCESS, "3": _SUCCESS, "4": "client"}.get(http[:1], "server")
    return kind, f"status {http or '?'}"


def _apart(path: str, ours: Message, theirs: Message, tolerance: Tolerance) -> Apart:
    if any(message.headers.get("content-encoding", "identity") != "identity" for message in (ours, theirs)):
        raise _Opaque("the answers are compressed")
    if ours.is_grpc:
        if path != _INFER:
            raise _Opaque(f"the answers of {path} are not known")
        responses = [v2_grpc.decode_infer_response(_only_message(m)) for m in (ours, theirs)]
        return _between(responses, tolerance)
    if _BINARY_LENGTH in ours.headers or _BINARY_LENGTH in theirs.headers:
        responses = [
            v2_json.decode_response(m.body, header_length=m.headers.get(_BINARY_LENGTH))
            for m in (ours, theirs)
        ]
        return _between(responses, tolerance)
    a, b = (v2_json.parse_json(message.body, "the answer") for message in (ours, theirs))
    if _is_v2(a) and _is_v2(b):
        return _between([v2_json.decode_response_document(document) for document in (a, b)], tolerance)
    return differences.between_json(a, b, tolerance, _NAMES)


def _between(responses: list[InferResponse], tolerance: Tolerance) -> Apart:
    ours, theirs = (response.outputs for response in responses)
    return differences.between_tensors(ours, theirs, tolerance)


def _is_v2(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("outputs"), list)


def _only_message(answer: Message) -> bytes:
    body = answer.body
    size = int.from_bytes(body[1:_GRPC_PREFIX_BYTES], "big")
    if body[:1] != b"\0" or size != len(body) - _GRPC_PREFIX_BYTES:
        raise _Opaque("the answer is compressed, or more than one message")
    return body[_GRPC_PREFIX_BYTES:]


def finite(distance: float | None) -> float | None:
    """A distance as JSON can hold it."""
    return None if distance is None or math.isinf(distance) else distance

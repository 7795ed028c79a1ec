"""How urgent a request is: its priority, and the deadline after which nobody waits for the answer.

Both are the client's word, in the forms that exist already: the V2 parameters `timeout` (microseconds) and `priority`
as Triton reads them, gRPC's own deadline, and for any HTTP request Envoy's `x-envoy-expected-rq-timeout-ms`, with
which the ingress says how long it will wait itself. The shortest counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from glowplug.errors import InferenceError
from glowplug.wire.tensors import Parameters

# As with Triton, 1 goes first, and 0 is what a request has that says nothing.
DEFAULT_PRIORITY = 5
TIMEOUT = "timeout"
PRIORITY = "priority"
TIMEOUT_HEADER = "x-envoy-expected-rq-timeout-ms"


@dataclass(frozen=True, slots=True)
class Urgency:
    """`priority`: lower goes first. `deadline`: on the clock of time.monotonic, None for never."""

    priority: int = DEFAULT_PRIORITY
    deadline: float | None = None


class Expired(InferenceError):
    """The deadline has passed, and the request was dropped before it cost a prediction."""

    def __init__(self) -> None:
        super().__init__("the request's deadline passed before it was its turn", code=504)


_DEFAULT = Urgency()
_urgency: ContextVar[Urgency] = ContextVar("glowplug_request_urgency", default=_DEFAULT)


def urgency() -> Urgency:
    """That of the request being served."""
    return _urgency.get()


def set_urgency(parameters: Parameters, limit_s: float | None) -> None:
    """Called once a request, in its own task's context; `limit_s` is what its protocol says, from now.

    Raises InferenceError (400) for a parameter that is no whole number.
    """
    _urgency.set(read_urgency(parameters, limit_s, time.monotonic()))


def read_urgency(parameters: Parameters, limit_s: float | None, now: float) -> Urgency:
    """The urgency of a request with these parameters. Raises InferenceError (400)."""
    if not parameters and limit_s is None:
        return _DEFAULT
    timeout_us = _whole(parameters, TIMEOUT, "microseconds")
    if timeout_us and (limit_s is None or timeout_us < limit_s * 1e6):
        limit_s = timeout_us / 1e6
    priority = _whole(parameters, PRIORITY, "1 or more, 1 first") or DEFAULT_PRIORITY
    return Urgency(priority, None if limit_s is None else now + limit_s)


def header_limit_s(headers: Mapping[str, str]) -> float | None:
    """The time limit in an HTTP request's headers, None without one. Raises InferenceError (400)."""
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InferenceError(f"{TIMEOUT_HEADER} is not a whole number of milliseconds")
    return int(text) / 1000 or None


def remaining_s() -> float | None:
    """How long the client of the request being served will still wait; None for ever. Raises Expired."""
    deadline = _urgency.get().deadline
    if deadline is None:
        return None
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise Expired
    return left_s


def _whole(parameters: Parameters, name: str, meaning: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**63:
        raise InferenceError(f"parameter {name!r} is not a whole number ({meaning}; 0 is the default)")
    return value

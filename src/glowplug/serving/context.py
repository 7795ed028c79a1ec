"""The headers of the request being served, so that a call made on its behalf can pass on who asked."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

_NONE: Mapping[str, str] = MappingProxyType({})
_headers: ContextVar[Mapping[str, str]] = ContextVar("glowplug_request_headers", default=_NONE)

# What goes on to the predictor: who asks, and which trace it belongs to.
PASSED_ON = frozenset(
    {
        "authorization",
        "traceparent",
        "tracestate",
        "x-request-id",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-flags",
    }
)


def request_headers() -> Mapping[str, str]:
    """Headers (gRPC: metadata) of the request being served, lower-case names; empty outside of one."""
    return _headers.get()


def set_request_headers(headers: Mapping[str, str]) -> None:
    """Called once a request, in its own task's context."""
    _headers.set(headers)


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of `headers` that go on to the predictor."""
    return {name: value for name, value in headers.items() if name in PASSED_ON}

"""Copies of requests and answers out of Envoy, pure: for a shadow, and for the payload logger.

Envoy's ext_proc in its observability mode streams copies to whoever listens on a unix socket, and waits for nothing.
Each taker has a filter and a socket of its own: the process of one may be behind, or gone, without the other's
noticing. The filters are off; one part of the weight of a route has them on, so a sample is Envoy's own random choice,
and what is not in it does not meet the filter at all. They are in the outer listeners: a request that waits for a
pod is copied once, and so is one that is tried again.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_proc_filter
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from glowplug.router.clusters import TYPE, Resource, http2_windows, http_options, seconds
from glowplug.spec import names
from glowplug.spec.logger import Logger

# The shadow's copies, and the payload logger's: names of filters, clusters and sockets.
COPIES = "copies"
PAYLOADS = "payloads"
# Copies that nobody took: whoever takes them is gone, or so far behind that `_MAX_COPIES` are waiting.
UNCOPIED = rf"http\.(ingress|local)\.ext_proc\.{PAYLOADS}\.streams_failed"
_EXT_PROC = "envoy.extensions.filters.http.ext_proc.v3."
# Copies at a time. Where nobody takes them they pile up in Envoy, each as large as its request and answer.
_MAX_COPIES = 256
# Without this a request waits while its copy cannot be written: for whoever takes copies, which may have to wait for a
# processor that nobody else wants.
RUNTIME: Resource = {"envoy.reloadable_features.grpc_side_stream_flow_control": False}
# After a request's end Envoy waits so long for its copy to be taken.
_TAKEN_WITHIN_S = 10.0
_IDLE_TIMEOUT_S = 300.0
# A weight of one percent, so that a share may be a thousandth of it; a shadow's share multiplies it again, and all
# weights of a route have to stay below 2**32.
_PARTS = 1000
_EVERYTHING = {
    "request_header_mode": "SEND",
    "request_body_mode": "STREAMED",
    "request_trailer_mode": "SKIP",
    "response_header_mode": "SEND",
    "response_body_mode": "STREAMED",
    "response_trailer_mode": "SEND",
}
_REQUESTS_ONLY = {
    **_EVERYTHING,
    "response_header_mode": "SKIP",
    "response_body_mode": "NONE",
    "response_trailer_mode": "SKIP",
}


def filters() -> list[Resource]:
    """The filters of the listeners: off, but for the routes that turn them on."""
    return [_filter(name) for name in (COPIES, PAYLOADS)]


def clusters(copies: Path, payloads: Path) -> list[Resource]:
    """Who takes the copies, by socket."""
    return [_cluster(COPIES, copies), _cluster(PAYLOADS, payloads)]


def turned_on(name: str, about: Mapping[str, str], mode: Resource | None = None) -> Resource:
    """That filter for a part of a route: whoever takes the copies is told `about` in the stream's headers."""
    metadata = [{"key": key, "value": value} for key, value in about.items() if value]
    overrides: Resource = {"grpc_initial_metadata": metadata}
    if mode is not None:
        overrides["processing_mode"] = mode
    return {name: {"@type": TYPE + _EXT_PROC + "ExtProcPerRoute", "overrides": overrides}}


def logged(
    shares: Iterable[tuple[str, Resource]],
    loggers: Mapping[str, Logger],
    *,
    prefix: str,
    is_by_caller: bool,
) -> list[tuple[str, Resource]]:
    """A route's weighted clusters (by revision), of which each logger's share of its own revision is copied.

    Where callers are known (`is_by_caller`) they keep their revision, so the sum of the weights has to stay: the sample
    is of callers then, in whole percents.
    """
    is_whole = is_by_caller or all(logger.percent in (0.0, 100.0) for logger in loggers.values())
    parts = 1 if is_whole else _PARTS
    found: list[tuple[str, Resource]] = []
    for revision, cluster in shares:
        whole = cluster["weight"] * parts
        logger = loggers.get(revision)
        copied = max(1, round(whole * logger.percent / 100)) if logger and logger.percent else 0
        if whole > copied:
            found.append((revision, {**cluster, "weight": whole - copied}))
        if copied and logger:
            found.append(
                (revision, {**cluster, "weight": copied, "typed_per_filter_config": _logging(logger, prefix)})
            )
    return found


def _logging(logger: Logger, prefix: str) -> Resource:
    about = {names.COPY_LOGGER: logger.to_text(), names.COPY_PREFIX: prefix}
    if logger.tells_responses:
        return turned_on(PAYLOADS, about)
    return turned_on(PAYLOADS, {**about, names.COPY_REQUEST_ONLY: "true"}, _REQUESTS_ONLY)


def _filter(name: str) -> Resource:
    config = {
        "@type": TYPE + _EXT_PROC + "ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": name}},
        "observability_mode": True,
        "failure_mode_allow": True,
        "stat_prefix": name,
        "deferred_close_timeout": seconds(_TAKEN_WITHIN_S),
        "processing_mode": _EVERYTHING,
    }
    return {"name": name, "disabled": True, "typed_config": config}


def _cluster(name: str, socket: Path) -> Resource:
    host = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {
            "thresholds": [{"max_requests": _MAX_COPIES, "max_pending_requests": _MAX_COPIES}]
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [host]}]},
        "typed_extension_protocol_options": http_options(
            {"http2_protocol_options": http2_windows()}, _IDLE_TIMEOUT_S
        ),
    }

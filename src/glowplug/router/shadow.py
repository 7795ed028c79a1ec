"""Shadow traffic's part of Envoy, pure: copies of a share of a route's requests, and the way of a shadow's own.

Envoy's own mirroring throws the answers away. Here ext_proc in its observability mode streams copies of requests and
answers to whoever listens on the unix socket `copies`, and waits for nothing. One part of each weight of a shadowed
route has the filter, the other has not: so the sample is Envoy's own random choice, and what is not in it does not
meet the filter at all.

Whoever takes the copies sends the requests to the shadow through a listener on a unix socket of its own, straight to
the activator's entrance: so they are asked for and counted there, they are in no statistics of the revision's clusters
and in no access log, and they are not copied again.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_proc_filter
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from glowplug.router.clusters import ENTRY, TYPE, Resource, http2_windows, http_options, seconds
from glowplug.spec import names
from glowplug.spec.routes import Shadow

COPIES = "copies"
_LISTENER = "shadow"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_EXT_PROC = "envoy.extensions.filters.http.ext_proc.v3."
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
# Copies at a time. Where nobody takes them they pile up in Envoy, each as large as its request and answer.
_MAX_COPIES = 256
# Without this a request waits while its copy cannot be written: for whoever takes copies, which may have to wait for a
# processor that nobody else wants.
RUNTIME: Resource = {"envoy.reloadable_features.grpc_side_stream_flow_control": False}
# After a request's end Envoy waits so long for its copy to be taken.
_TAKEN_WITHIN_S = 10.0
_IDLE_TIMEOUT_S = 300.0
# A weight of one percent, so that a shadow's share may be a ten thousandth of it.
_PARTS = 10_000


def copies_filter() -> Resource:
    """The filter of the listeners: off, but for the routes that turn it on."""
    config = {
        "@type": TYPE + _EXT_PROC + "ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": COPIES}},
        "observability_mode": True,
        "failure_mode_allow": True,
        "deferred_close_timeout": seconds(_TAKEN_WITHIN_S),
        "processing_mode": {
            "request_header_mode": "SEND",
            "request_body_mode": "STREAMED",
            "request_trailer_mode": "SKIP",
            "response_header_mode": "SEND",
            "response_body_mode": "STREAMED",
            "response_trailer_mode": "SEND",
        },
    }
    return {"name": COPIES, "disabled": True, "typed_config": config}


def weights(
    shares: Iterable[tuple[str, Resource]], shadow: Shadow, service: str, *, prefix: str, is_by_caller: bool
) -> list[Resource]:
    """A route's weighted clusters (by revision), of which the shadow's share of each other revision is copied.

    Where callers are known (`is_by_caller`) they keep their revision, so the sum of the weights has to stay: the sample
    is of callers then, in whole percents.
    """
    parts = 1 if is_by_caller else _PARTS
    found: list[Resource] = []
    for revision, cluster in shares:
        whole = cluster["weight"] * parts
        copied = 0 if revision == shadow.revision else max(1, round(whole * shadow.percent / 100))
        if whole > copied:
            found.append({**cluster, "weight": whole - copied})
        if copied:
            turned_on = {COPIES: _told(service, revision, shadow.revision, prefix)}
            found.append({**cluster, "weight": copied, "typed_per_filter_config": turned_on})
    return found


def _told(service: str, revision: str, shadow: str, prefix: str) -> Resource:
    about = {
        names.COPY_SERVICE: service,
        names.COPY_REVISION: revision,
        names.COPY_SHADOW: shadow,
        names.COPY_PREFIX: prefix,
    }
    metadata = [{"key": key, "value": value} for key, value in about.items() if value]
    return {"@type": TYPE + _EXT_PROC + "ExtProcPerRoute", "overrides": {"grpc_initial_metadata": metadata}}


def timed(route: Resource) -> Resource:
    """The same route for the requests of shadows alone, whose answers say how long the pod took."""
    is_shadows = {"name": names.SHADOW_HEADER, "present_match": True}
    # What x-envoy-upstream-service-time is to the revision in use; no number where the pod has sent nothing.
    time = {"key": names.POD_TIME_HEADER, "value": "%COMMON_DURATION(US_TX_END:US_RX_BEG:ms)%"}
    return {
        **route,
        "match": {**route["match"], "headers": [is_shadows]},
        "response_headers_to_add": [{"header": time, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }


def cluster(copies: Path) -> Resource:
    """Who takes the copies."""
    host = {"endpoint": {"address": {"pipe": {"path": str(copies)}}}}
    return {
        "name": COPIES,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {
            "thresholds": [{"max_requests": _MAX_COPIES, "max_pending_requests": _MAX_COPIES}]
        },
        "load_assignment": {"cluster_name": COPIES, "endpoints": [{"lb_endpoints": [host]}]},
        "typed_extension_protocol_options": http_options(
            {"http2_protocol_options": http2_windows()}, _IDLE_TIMEOUT_S
        ),
    }


def listener(shadow: Path) -> Resource:
    """Where the requests for shadows come in, with the headers that name their revision."""
    to = {"cluster": ENTRY, "timeout": "0s", "idle_timeout": "0s"}
    manager = {
        "@type": TYPE + _MANAGER,
        "stat_prefix": _LISTENER,
        "codec_type": "AUTO",
        # gRPC comes as HTTP/1.1, with its status in trailers.
        "http_protocol_options": {"enable_trailers": True},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": TYPE + _ROUTER, "suppress_envoy_headers": True},
            }
        ],
        "route_config": {
            "name": _LISTENER,
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": to}]}
            ],
        },
        "server_header_transformation": "PASS_THROUGH",
        "use_remote_address": False,
        "skip_xff_append": True,
        "generate_request_id": False,
        "stream_idle_timeout": "0s",
    }
    return {
        "name": _LISTENER,
        "address": {"pipe": {"path": str(shadow), "mode": 0o600}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }

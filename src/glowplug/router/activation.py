"""The way through the activator, pure: how a request waits inside Envoy until a pod is free.

Nothing but Envoy ever touches the request. Routes of held revisions lead to `ENTRY`, a listener within Envoy
that asks the activator for admission (ext_authz) before it goes on. The activator answers when it has a pod for the
request, names that pod in a header, and the request goes there (a cluster of type ORIGINAL_DST). So requests of every
protocol wait alike, their bodies wait at their sender, and a client that gives up cancels the question. When the
request is over, the activator is told by Envoy's access log service.

Every cluster of a revision has `ENTRY` as its second choice: where the last pod has just died, requests wait
before anybody has changed a route.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_authz_filter
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glowplug.router import responses
from glowplug.router.clusters import (
    ENTRY,
    ENTRY_LISTENER,
    TYPE,
    UPGRADES,
    Resource,
    entry_host,
    http2_windows,
    http_options,
    seconds,
)
from glowplug.router.replies import local_reply
from glowplug.router.shadow import timed
from glowplug.spec import names

_DIRECT = "direct"
_DIRECT_GRPC = "direct-grpc"
_ADMISSION = "admission"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ACCESS_LOG = "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"
_ANY_NUMBER = 65536
_STREAMS_PER_CONNECTION = 1024
# Longer than any hold: the activator itself says when the wait is over.
_ADMISSION_TIMEOUT_S = 86400.0
_POOL_IDLE_TIMEOUT_S = 3.0
_BUFFER_BYTES = 64 * 1024

BOOTSTRAP_EXTENSION: Resource = {
    "name": "envoy.bootstrap.internal_listener",
    "typed_config": {"@type": TYPE + "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"},
}


def revision_headers(revision: str) -> list[Resource]:
    """The headers that tell the activator, and as in Knative the pod, which revision a request is for."""
    namespace, _, name = revision.partition("/")
    return [overwrite(names.NAMESPACE_HEADER, namespace), overwrite(names.REVISION_HEADER, name)]


def clusters(admission: Path) -> list[Resource]:
    """The clusters of the way: its entry, its exits, and the activator, who listens on the unix socket `admission`."""
    exits = {"original_dst_lb_config": {"use_http_header": True}, "lb_policy": "CLUSTER_PROVIDED"}
    http2 = {"http2_protocol_options": {**http2_windows(), "max_concurrent_streams": _STREAMS_PER_CONNECTION}}
    # What wants to become a WebSocket comes here as an extended CONNECT.
    connect = {"http2_protocol_options": {**http2["http2_protocol_options"], "allow_connect": True}}
    socket = {"endpoint": {"address": {"pipe": {"path": str(admission)}}}}
    many = {"http2_protocol_options": {"max_concurrent_streams": _ANY_NUMBER}}
    return [
        _cluster(ENTRY, "STATIC", connect, **_one_host(ENTRY, entry_host())),
        _cluster(_DIRECT, "ORIGINAL_DST", {"http_protocol_options": {}}, **exits),
        _cluster(_DIRECT_GRPC, "ORIGINAL_DST", http2, **exits),
        _cluster(_ADMISSION, "STATIC", many, **_one_host(_ADMISSION, socket)),
    ]


def listener() -> Resource:
    """The listener within Envoy where requests wait."""
    manager = {
        "@type": TYPE + _MANAGER,
        "stat_prefix": ENTRY_LISTENER,
        "codec_type": "AUTO",
        "http_filters": [
            _ask(),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": TYPE + "envoy.extensions.filters.http.router.v3.Router",
                    # The outer listener has them.
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "route_config": {
            "name": ENTRY_LISTENER,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes()}],
        },
        "early_header_mutation_extensions": [_hold_header()],
        "access_log": [_tell(), responses.inner_log()],
        "local_reply_config": local_reply(is_before_retry=True),
        "server_header_transformation": "PASS_THROUGH",
        # The outer listener has done all this.
        "use_remote_address": False,
        "skip_xff_append": True,
        "generate_request_id": False,
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {
            **http2_windows(),
            "max_concurrent_streams": _STREAMS_PER_CONNECTION,
            "allow_connect": True,
        },
        "upgrade_configs": UPGRADES,
    }
    return {
        "name": ENTRY_LISTENER,
        "internal_listener": {},
        "ignore_global_conn_limit": True,
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _routes() -> list[Resource]:
    limits = {"timeout": "0s", "idle_timeout": "0s"}
    routes: list[Resource] = [
        {"match": {"prefix": "/", "grpc": {}}, "route": {"cluster": _DIRECT_GRPC, **limits}},
        {"match": {"prefix": "/"}, "route": {"cluster": _DIRECT, **limits}},
    ]
    return [*map(timed, routes), *routes]


def _ask() -> Resource:
    asked = [
        names.NAMESPACE_HEADER, names.REVISION_HEADER, names.HOLD_HEADER, names.ATTEMPT_HEADER, "content-type",
        "grpc-timeout",
    ]  # fmt: skip
    config = {
        "@type": TYPE + "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {
            # A header takes 350 bytes for as long as its request waits.
            "envoy_grpc": {"cluster_name": _ADMISSION, "skip_envoy_headers": True},
            "timeout": seconds(_ADMISSION_TIMEOUT_S),
        },
        "failure_mode_allow": False,
        "status_on_error": {"code": 503},
        "allowed_headers": {"patterns": [{"exact": header} for header in asked]},
    }
    return {"name": "envoy.filters.http.ext_authz", "typed_config": config}


def _tell() -> Resource:
    """One entry at the end of each request, at once, with the header that names the hold."""
    config = {
        "@type": TYPE + _ACCESS_LOG,
        "common_config": {
            "log_name": "ended",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": _ADMISSION}},
            "buffer_size_bytes": 0,
            "buffer_flush_interval": "1s",
        },
        "additional_request_headers_to_log": [names.HOLD_HEADER],
    }
    return {"name": "envoy.access_loggers.http_grpc", "typed_config": config}


def _hold_header() -> Resource:
    mutation = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": TYPE + mutation,
            "mutations": [{"append": overwrite(names.HOLD_HEADER, "%UNIQUE_ID%")}],
        },
    }


def overwrite(name: str, value: str) -> Resource:
    """A header that replaces what the sender said under this name."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _one_host(cluster: str, host: Resource) -> Resource:
    return {"load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [host]}]}}


def _cluster(name: str, type_: str, protocol: Resource, **more: Any) -> Resource:
    limits = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), _ANY_NUMBER
    )
    return {
        "name": name,
        "type": type_,
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": http_options(protocol, _POOL_IDLE_TIMEOUT_S),
        **more,
    }

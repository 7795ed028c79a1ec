"""Ports → Envoy listeners, pure: the ingress, and one listener for each cluster-local service."""

from __future__ import annotations

from pathlib import Path

from glowplug.router import copies, responses
from glowplug.router.clusters import TYPE, UPGRADES, Resource, file_source, http2_windows
from glowplug.router.config import RouterConfig
from glowplug.router.layout import Layout
from glowplug.router.replies import local_reply

# The ingress, and what the names of the cluster-local listeners start with; also the prefixes of their statistics.
INGRESS = "ingress"
LOCAL = "local"
LISTENER_HEADER = "x-glowplug-listener"

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_BUFFER_BYTES = 1024 * 1024

# No header of the client but its host and request id, and no query: both may carry secrets.
_ACCESS_LOG_FIELDS = {
    "time": "%START_TIME%",
    "id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "protocol": "%PROTOCOL%",
    "service": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "endpoint": "%UPSTREAM_HOST%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%",
    "flags": "%RESPONSE_FLAGS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "duration_ms": "%DURATION%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
}


def local_name(namespace: str, service: str) -> str:
    """The name of the listener of a cluster-local service."""
    return f"{LOCAL}/{namespace}/{service}"


def listener(
    name: str, port: int, routes: str, routes_file: Path, layout: Layout, config: RouterConfig
) -> Resource:
    """A listener on `port` of the loopback whose routes, named `routes`, are followed in `routes_file`.

    Its name goes with every request, as the header `LISTENER_HEADER`: routes can match on nothing but headers.
    """
    manager = {
        "@type": TYPE + _MANAGER,
        "stat_prefix": INGRESS if name == INGRESS else LOCAL,
        "codec_type": "AUTO",
        "rds": {"route_config_name": routes, "config_source": file_source(routes_file)},
        "early_header_mutation_extensions": [_name_header(name)],
        "http_filters": [
            *copies.filters(layout),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
            },
        ],
        "access_log": [_access_log(layout.access_log), _busy_time(), responses.outer_log()],
        "local_reply_config": local_reply(),
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        # Clients on this computer count as external, so that none sets Envoy's own headers (timeouts, retries).
        # An empty list would mean the private ranges.
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "request_id_extension": {
            "typed_config": {
                "@type": TYPE + "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "pack_trace_reason": False,
            }
        },
        "request_headers_timeout": "30s",
        # Between the last byte to a client that asked to close and the close; 1 s if not given.
        "delayed_close_timeout": "0.100s",
        "http2_protocol_options": {**http2_windows(), "max_concurrent_streams": 1024},
        "upgrade_configs": UPGRADES,
    }
    return {
        "@type": TYPE + "envoy.config.listener.v3.Listener",
        "name": name,
        # A shutdown drains what comes in, while what pods ask of each other goes on.
        "traffic_direction": "INBOUND" if name == INGRESS else "OUTBOUND",
        "address": {"socket_address": {"address": config.host, "port_value": port}},
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _name_header(name: str) -> Resource:
    mutation = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    header = {
        "header": {"key": LISTENER_HEADER, "value": name},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": TYPE + mutation,
            "mutations": [{"append": header}, *responses.forgotten_headers()],
        },
    }


def _busy_time() -> Resource:
    """Adds up the microseconds that requests were in a cluster's pods: the time-weighted concurrency, exactly."""
    busy = {
        "stat": {"name": "busy_us", "tags": [{"name": "cluster", "value_format": "%UPSTREAM_CLUSTER%"}]},
        "value_format": "%COMMON_DURATION(US_TX_BEG:DS_TX_END:us)%",
    }
    config = {
        "@type": TYPE + "envoy.extensions.access_loggers.stats.v3.Config",
        "stats_scope": {"prefix": "requests"},
        "counters": [busy],
    }
    return {"name": "envoy.access_loggers.stats", "typed_config": config}


def _access_log(path: Path) -> Resource:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": _ACCESS_LOG_FIELDS},
        },
    }

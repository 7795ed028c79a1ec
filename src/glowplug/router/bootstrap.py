"""What Envoy starts with, pure: its admin socket, where it finds everything else, and which statistics it keeps.

An idle Envoy should not wake up: no periodic flush of statistics, slow watchdogs.
"""

from __future__ import annotations

from pathlib import Path

from glowplug.router import activation, copies, responses, shadow
from glowplug.router.clusters import ENDPOINT_SOURCE, TYPE, Resource, file_source
from glowplug.router.layout import CLUSTERS_FILE, LISTENERS_FILE, Layout

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_DOWNSTREAM_CONNECTIONS = (
    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
)
_MAX_DOWNSTREAM_CONNECTIONS = 16384
_MAX_POLLS = 65536

REQUESTS_IN_FLIGHT = r"http\.(ingress|local)\.downstream_rq_active"

# Each statistic costs memory for every cluster, so only those are kept that somebody reads: the router (versions), the
# autoscaler (requests), the rollout judge (responses), the payload logger (copies).
STATISTICS = (
    r"(cluster_manager\.cds|listener_manager\.lds|http\..*\.rds\..*|cluster\..*)"
    r"\.(version_text|update_rejected)",
    r"(cluster_manager\.warming_clusters|listener_manager\.total_listeners_warming)",
    r"listener_manager\.listener_create_failure",
    r"cluster\..*\.(upstream_rq_(active|pending_active|pending_overflow|retry|timeout|time|total|completed|[1-5]xx)"
    r"|upstream_rq_rx_reset|upstream_cx_(active|total|connect_fail)|membership_(total|healthy))",
    r"http\.(ingress|local)\.downstream_(rq|cx)_(active|total|[1-5]xx|completed|time)",
    r"requests\.busy_us\..*",
    responses.STATISTICS,
    r"server\.(live|uptime|memory_allocated)",
    copies.UNCOPIED,
)


def bootstrap(layout: Layout) -> Resource:
    """The bootstrap. Of the sockets, `admin`, `probe` and `shadow` are Envoy's, `endpoints` is the router's, and
    `admission` the activator's."""
    dynamic = {
        "cds_config": file_source(layout.xds / CLUSTERS_FILE),
        "lds_config": file_source(layout.xds / LISTENERS_FILE),
    }
    static = {
        "listeners": [_probe(layout.probe), activation.listener(), shadow.listener(layout.shadow)],
        "clusters": [
            _endpoint_source(layout.endpoints),
            *activation.clusters(layout.admission),
        ],
    }
    return {
        "bootstrap_extensions": [activation.BOOTSTRAP_EXTENSION],
        "node": {"id": "glowplug", "cluster": "glowplug"},
        "admin": {"address": {"pipe": {"path": str(layout.admin), "mode": 0o600}}},
        "dynamic_resources": dynamic,
        "static_resources": static,
        "stats_flush_on_admin": True,
        "stats_config": {
            "stats_matcher": {
                "inclusion_list": {"patterns": [{"safe_regex": {"regex": s}} for s in STATISTICS]}
            },
        },
        "watchdogs": {"main_thread_watchdog": _watchdog(), "worker_watchdog": _watchdog()},
        "overload_manager": {
            "refresh_interval": "3600s",
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": TYPE + _DOWNSTREAM_CONNECTIONS,
                        "max_active_downstream_connections": _MAX_DOWNSTREAM_CONNECTIONS,
                    },
                }
            ],
        },
    }


def _watchdog() -> Resource:
    return {"miss_timeout": "30s", "megamiss_timeout": "60s"}


def _endpoint_source(path: Path) -> Resource:
    host = {"endpoint": {"address": {"pipe": {"path": str(path)}}}}
    limits = {"max_connections": _MAX_POLLS, "max_pending_requests": _MAX_POLLS, "max_requests": _MAX_POLLS}
    return {
        "name": ENDPOINT_SOURCE,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": ENDPOINT_SOURCE, "endpoints": [{"lb_endpoints": [host]}]},
    }


def _probe(path: Path) -> Resource:
    """Answers from a worker thread: an answer proves that the worker has taken what the main thread posted to it."""
    manager = {
        "@type": TYPE + _MANAGER,
        "stat_prefix": "probe",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "name": "probe",
            "virtual_hosts": [
                {
                    "name": "probe",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ],
        },
    }
    return {
        "name": "probe",
        "address": {"pipe": {"path": str(path), "mode": 0o600}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }

"""Revisions → Envoy clusters and their endpoints, pure.

A revision has two clusters, since its REST and its gRPC are on different ports and speak different protocols. What a
cluster is follows from the revision, which never changes. Which pods serve it changes often, so the endpoints are
resources of their own: Envoy replaces a changed cluster as a whole, and would forget how many requests each of its
pods has in flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowplug.router.config import RouterConfig
from glowplug.spec.routes import Backend, Endpoint

Resource = dict[str, Any]

TYPE = "type.googleapis.com/"
METADATA = "glowplug"
# The cluster of the bootstrap that answers for endpoints.
ENDPOINT_SOURCE = "endpoint-source"
# The way through the activator, see `activation`: its cluster, and the listener within Envoy that it leads to.
ENTRY = "activator"
ENTRY_LISTENER = "activator"
_GRPC_SUFFIX = "/grpc"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_LEAST_REQUEST = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
# Of two pods the busier one is chosen in 1 of 2**5 cases.
_CHOICES = 5
_BUFFER_BYTES = 1024 * 1024
# Percent: one host of a thousand counts as all of them.
_ONE_IS_ENOUGH = 100_000
_STREAM_WINDOW_BYTES = 1024 * 1024
_CONNECTION_WINDOW_BYTES = 8 * 1024 * 1024
_GRPC_IDLE_TIMEOUT_S = 300.0
# What a connection may become, as with Knative's ingress; WebSocket is a request as long as its socket is open.
UPGRADES: list[Resource] = [{"upgrade_type": "websocket"}]


@dataclass(frozen=True, order=True)
class Host:
    """Where a pod (`namespace/name`) listens; a leaving one is no longer chosen for requests."""

    address: str
    port: int
    pod: str
    is_leaving: bool = False


@dataclass(frozen=True)
class Endpoints:
    """The hosts of a cluster, sorted, and how many requests each of them takes at a time (0: any number)."""

    hosts: tuple[Host, ...] = ()
    limit: int = 0


@dataclass(frozen=True)
class _Way:
    """How Envoy speaks to a cluster's pods; no number of connections is any number."""

    protocol: Resource
    idle_timeout_s: float
    connections_per_host: int


def http_cluster(revision: str) -> str:
    """The name of the cluster that serves the revision's REST."""
    return revision


def grpc_cluster(revision: str) -> str:
    """The name of the cluster that serves the revision's gRPC."""
    return revision + _GRPC_SUFFIX


def revision_of(cluster: str) -> str:
    """The revision, `namespace/name`, that a cluster serves."""
    return cluster.removesuffix(_GRPC_SUFFIX)


def seconds(value: float) -> str:
    """A duration as protobuf's JSON writes it."""
    return f"{value:.3f}s"


def file_source(path: Path) -> Resource:
    """A source that follows one file, which is replaced by atomic renames."""
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def entry_host() -> Resource:
    """The endpoint that leads to the activator."""
    return {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": ENTRY_LISTENER}}}}


def http_options(protocol: Resource, idle_timeout_s: float) -> Resource:
    """The extension options of a cluster: its protocol, and when an idle connection is closed."""
    options = {
        "@type": TYPE + _HTTP_OPTIONS,
        "common_http_protocol_options": {"idle_timeout": seconds(idle_timeout_s)},
        "explicit_http_config": protocol,
    }
    return {_HTTP_OPTIONS: options}


def http2_windows() -> Resource:
    """Flow-control windows: large enough for a tensor in one go, small enough to bound a slow reader's memory."""
    return {
        "initial_stream_window_size": _STREAM_WINDOW_BYTES,
        "initial_connection_window_size": _CONNECTION_WINDOW_BYTES,
    }


def clusters(backend: Backend, config: RouterConfig) -> dict[str, Resource]:
    """The two clusters of a revision, by name."""
    http, grpc = http_cluster(backend.revision), grpc_cluster(backend.revision)
    limit = backend.container_concurrency
    # One connection, with as many streams as the pod takes at a time: Envoy would open another connection
    # for the next stream.
    http2 = _Way(
        {"http2_protocol_options": {**http2_windows(), "max_concurrent_streams": limit or 1024}},
        _GRPC_IDLE_TIMEOUT_S,
        1 if limit else 0,
    )
    http1 = _Way({"http_protocol_options": {}}, config.upstream_idle_timeout_s, limit)
    return {
        http: _cluster(http, config, http2 if backend.is_h2c else http1),
        grpc: _cluster(grpc, config, http2),
    }


def endpoints(backend: Backend) -> dict[str, Endpoints]:
    """The endpoints of a revision's two clusters, by cluster name."""
    http = {Host(e.host, e.http_port, e.pod) for e in backend.endpoints}
    grpc = {Host(e.host, _grpc_port(e), e.pod) for e in backend.endpoints}
    limit = backend.container_concurrency
    return {
        http_cluster(backend.revision): Endpoints(tuple(sorted(http)), limit),
        grpc_cluster(backend.revision): Endpoints(tuple(sorted(grpc)), limit),
    }


def assignment(cluster: str, endpoints: Endpoints) -> Resource:
    """The endpoints of a cluster as Envoy reads them: its hosts, and where none is left, the activator.

    A leaving host gets no new request, and finishes its queue.
    """
    hosts = [
        {
            "endpoint": {"address": {"socket_address": {"address": host.address, "port_value": host.port}}},
            **({"health_status": "DRAINING"} if host.is_leaving else {}),
        }
        for host in endpoints.hosts
    ]
    return {
        "@type": TYPE + "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": hosts}, {"lb_endpoints": [entry_host()], "priority": 1}],
        # One healthy host is enough to keep all requests: Envoy would else share them out as soon as some are not.
        "policy": {"overprovisioning_factor": _ONE_IS_ENOUGH},
    }


def _grpc_port(endpoint: Endpoint) -> int:
    return endpoint.http_port if endpoint.grpc_port is None else endpoint.grpc_port


def _cluster(name: str, config: RouterConfig, way: _Way) -> Resource:
    limits: Resource = {
        "thresholds": [
            {
                "max_connections": config.max_connections,
                "max_pending_requests": config.max_pending_requests,
                "max_requests": config.max_requests,
                # The default of 3 retries at a time would fail requests while a busy pod leaves.
                "max_retries": config.max_requests,
            }
        ]
    }
    if way.connections_per_host:
        limits["per_host_thresholds"] = [{"max_connections": way.connections_per_host}]
    return {
        "@type": TYPE + "envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _endpoint_source()},
        "connect_timeout": seconds(config.connect_timeout_s),
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "load_balancing_policy": _least_request(way.connections_per_host > 0),
        # Never back to hosts that leave because the others are few.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": limits,
        "outlier_detection": _ejection(config),
        "metadata": {"filter_metadata": {METADATA: {"revision": revision_of(name)}}},
        "typed_extension_protocol_options": http_options(way.protocol, way.idle_timeout_s),
    }


def _ejection(config: RouterConfig) -> Resource:
    """Who fails to take one connection is left out at once.

    A dead pod has the fewest requests in flight, so until the table is without it most choices would fall on it.
    What a model answers is no reason. All pods may be out at a time: then the activator is asked, who is told of a
    death before Envoy is.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 1,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "max_ejection_percent": 100,
        "base_ejection_time": seconds(config.ejection_s),
        "max_ejection_time": seconds(config.ejection_s),
        "interval": seconds(config.ejection_check_interval_s),
    }


def _endpoint_source() -> Resource:
    # Not files: Envoy takes an inotify instance for each, of which Linux gives a user 128, and aborts past that.
    # A poll is held open until something changes, so there is no traffic while nothing does.
    poll = {
        "api_type": "REST",
        "transport_api_version": "V3",
        "cluster_names": [ENDPOINT_SOURCE],
        "refresh_delay": "0.002s",
        "request_timeout": "86400s",
    }
    return {"resource_api_version": "V3", "api_config_source": poll}


def _least_request(is_limited: bool) -> Resource:
    # A full scan where pods take a limited number of requests at a time: fewer choices would queue behind a busy
    # pod while another one is idle. It has one drawback: a dead pod has the fewest requests, so a retry that must
    # not go where it has been is given the same pod again, however often it asks. So elsewhere a few random choices,
    # among which the retry finds the other one at once.
    choice: Resource = {"selection_method": "FULL_SCAN"} if is_limited else {"choice_count": _CHOICES}
    policy = {"@type": TYPE + _LEAST_REQUEST, **choice}
    name = "envoy.load_balancing_policies.least_request"
    return {"policies": [{"typed_extension_config": {"name": name, "typed_config": policy}}]}

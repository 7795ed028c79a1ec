"""A route table → everything that Envoy shall run, as a value; and the documents that carry it, pure.

A `Snapshot` holds resources by name. Its documents are bytes with a version, the hash of the content: equal tables
give equal bytes, and what did not change is not sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import orjson

from glowplug.router import clusters, routes
from glowplug.router.clusters import Endpoints, Resource
from glowplug.router.config import RouterConfig
from glowplug.router.layout import LOCAL_FILE, ROUTES_FILE, Layout
from glowplug.router.listeners import INGRESS, LOCAL, listener, local_name
from glowplug.router.ways import live_splits
from glowplug.spec.routes import Backend, RouteTable

T = TypeVar("T")


@dataclass(frozen=True)
class Document:
    """Resources of one kind with their version.

    `statistic` is the prefix of Envoy's statistics that show which version it has taken, or refused.
    """

    version: str
    content: bytes
    statistic: str


@dataclass(frozen=True)
class Snapshot:
    """What Envoy shall run. `endpoints` has the same keys as `clusters`."""

    clusters: Mapping[str, Resource] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoints] = field(default_factory=dict)
    # By file.
    routes: Mapping[str, Resource] = field(default_factory=dict)
    listeners: Mapping[str, Resource] = field(default_factory=dict)


def snapshot(
    table: RouteTable,
    *,
    port: int,
    local_ports: Mapping[tuple[str, str], int],
    config: RouterConfig,
    layout: Layout,
) -> Snapshot:
    """Everything that `table` asks for. `local_ports`: the port of each (namespace, service) with a local listener."""
    backends = {backend.revision: backend for backend in table.backends}
    served = _served(table, backends)
    listeners = [listener(INGRESS, port, routes.MAIN, layout.xds / ROUTES_FILE, layout, config)]
    for (namespace, service), local_port in sorted(local_ports.items()):
        name = local_name(namespace, service)
        file = layout.xds / LOCAL_FILE
        listeners.append(listener(name, local_port, LOCAL, file, layout, config))
    return Snapshot(
        clusters=_merge(clusters.clusters(backend, config) for backend in served),
        endpoints=_merge(clusters.endpoints(backend) for backend in served),
        routes={
            ROUTES_FILE: routes.main_routes(table.routes, backends, config),
            LOCAL_FILE: routes.local_routes(local_ports, table.routes, backends, config),
        },
        listeners={resource["name"]: resource for resource in listeners},
    )


def cluster_document(resources: Mapping[str, Resource]) -> Document:
    """The clusters, for their file."""
    return _document(_in_order(resources), "cluster_manager.cds")


def endpoint_document(cluster: str, endpoints: Endpoints) -> Document:
    """The endpoints of one cluster."""
    return _document([clusters.assignment(cluster, endpoints)], f"cluster.{cluster}")


def route_document(file: str, resource: Resource) -> Document:
    """The route configuration of one file."""
    stats = INGRESS if file == ROUTES_FILE else LOCAL
    return _document([resource], f"http.{stats}.rds.{resource['name']}")


def listener_document(resources: Mapping[str, Resource]) -> Document:
    """The listeners, for their file."""
    return _document(_in_order(resources), "listener_manager.lds")


def _document(resources: list[Resource], statistic: str) -> Document:
    content = orjson.dumps(resources)
    version = hashlib.blake2b(content, digest_size=8).hexdigest()
    return Document(version, b'{"version_info":"%s","resources":%s}' % (version.encode(), content), statistic)


def _in_order(resources: Mapping[str, Resource]) -> list[Resource]:
    return [resource for _, resource in sorted(resources.items())]


def _merge(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {name: resource for part in parts for name, resource in part.items()}


def _served(table: RouteTable, backends: Mapping[str, Backend]) -> list[Backend]:
    """The backends that get clusters: those with endpoints, and those that a route leads to without the activator."""
    names = {backend.revision for backend in table.backends if backend.endpoints}
    for entry in table.routes:
        names.update(split.revision for split in live_splits(entry, backends))
    names -= {backend.revision for backend in table.backends if backend.is_held and not backend.endpoints}
    return [backends.get(name) or Backend(name, (), 0, 0.0) for name in sorted(names)]

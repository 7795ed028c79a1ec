"""In which order Envoy gets a change, so that no request meets a gap, pure.

What is new comes before what leads to it, and what is old goes after nothing leads to it any more:

1. grow: clusters of the old and of the new table; new endpoints, except where that would leave a cluster empty;
2. switch: routes and listeners of the new table;
3. shrink: the clusters and endpoints that only the old table had go.

Each step is whole, and the next one is taken when Envoy has accepted it.

A cluster without a route lingers a moment, for requests that are between two tries.

Where a pod takes a limited number of requests at a time, others wait for it inside Envoy, in a queue that is the
pod's own. Such a pod does not go with the table that no longer has it: it stays, *leaving*, until its queue is empty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from glowplug.router.clusters import Endpoints
from glowplug.router.xds import Snapshot


@dataclass(frozen=True, order=True)
class Leaver:
    """A host of a cluster that is leaving."""

    cluster: str
    address: str
    port: int


def steps(applied: Snapshot, desired: Snapshot) -> list[Snapshot]:
    """The snapshots to go through from `applied` to `desired`, which is the last; none if they are equal."""
    kept = {name: old for name, old in applied.endpoints.items() if not takes_requests(desired, name)}
    grown = Snapshot(
        clusters={**applied.clusters, **desired.clusters},
        endpoints={**desired.endpoints, **kept},
        routes=applied.routes,
        listeners=applied.listeners,
    )
    switched = replace(grown, routes=desired.routes, listeners=desired.listeners)
    path = [applied]
    for state in (grown, switched, desired):
        if state != path[-1]:
            path.append(state)
    return path[1:]


def with_leavers(desired: Snapshot, applied: Snapshot, released: Collection[Leaver]) -> Snapshot:
    """`desired`, plus the hosts with a queue that `applied` has and `desired` has not, except those `released`."""
    leaving: dict[str, Endpoints] = {}
    for cluster, old in applied.endpoints.items():
        new = desired.endpoints.get(cluster, Endpoints())
        present = {(host.address, host.port) for host in new.hosts}
        hosts = [
            replace(host, is_leaving=True)
            for host in old.hosts
            if old.limit
            and (host.address, host.port) not in present
            and Leaver(cluster, host.address, host.port) not in released
        ]
        if hosts:
            leaving[cluster] = Endpoints(tuple(sorted([*new.hosts, *hosts])), old.limit)
    kept = {cluster: applied.clusters[cluster] for cluster in leaving}
    return replace(
        desired,
        # As it was: Envoy would replace a cluster that differs, and its queues with it.
        clusters={**desired.clusters, **kept},
        endpoints={**desired.endpoints, **leaving},
    )


def with_lingering(desired: Snapshot, applied: Snapshot, expired: Collection[str]) -> Snapshot:
    """`desired`, plus the clusters that only `applied` has, without hosts, except those `expired`.

    A request keeps its route from one try to the next. Where its cluster is gone by then it fails; from a cluster
    without hosts it goes on to the activator.
    """
    kept = applied.clusters.keys() - desired.clusters.keys() - set(expired)
    return replace(
        desired,
        clusters={**desired.clusters, **{name: applied.clusters[name] for name in kept}},
        endpoints={
            **desired.endpoints,
            **{
                name: replace(applied.endpoints[name], hosts=()) for name in kept if name in applied.endpoints
            },
        },
    )


def leavers(state: Snapshot) -> frozenset[Leaver]:
    """The hosts that are leaving."""
    return frozenset(
        Leaver(cluster, host.address, host.port)
        for cluster, endpoints in state.endpoints.items()
        for host in endpoints.hosts
        if host.is_leaving
    )


def finished(
    since: Mapping[Leaver, float], queues: Mapping[tuple[str, str], int], *, now: float, timeout_s: float
) -> frozenset[Leaver]:
    """Those of the leavers, each leaving since a time, that nothing waits for; or that had `timeout_s` to finish.

    `queues` are the lengths of the queues by cluster and `address:port`; a host that is not there has none.
    """
    return frozenset(
        leaver
        for leaver, then in since.items()
        if not queues.get((leaver.cluster, f"{leaver.address}:{leaver.port}")) or now - then > timeout_s
    )


def takes_requests(state: Snapshot, cluster: str) -> bool:
    """Whether the cluster exists in `state` and has a host that can be chosen."""
    endpoints = state.endpoints.get(cluster)
    return endpoints is not None and any(not host.is_leaving for host in endpoints.hosts)


def pods(state: Snapshot) -> frozenset[str]:
    """Every pod, `namespace/name`, that a cluster of `state` holds."""
    return frozenset(host.pod for endpoints in state.endpoints.values() for host in endpoints.hosts)

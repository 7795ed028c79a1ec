"""Where the requests of one service go, pure: the part of a route that all addresses of the service share.

As in Knative with `tag-header-based-routing`: a request that names one of the route's tags goes to the revision of that
tag, one that names another tag or none goes by weight. Where a route has tags, its pods are told which way a request
came, in Knative's headers; where it has none, nothing is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from glowplug.router import copies
from glowplug.router import shadow as shadows
from glowplug.router.activation import overwrite, revision_headers
from glowplug.router.clusters import ENTRY, Resource, grpc_cluster, http_cluster, seconds
from glowplug.spec import names
from glowplug.spec.affinity import Affinity, Source
from glowplug.spec.logger import Logger
from glowplug.spec.routes import Backend, RouteEntry, Shadow, Split

_DEFAULT_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Way:
    """To revisions by weight, or, if there are no `weights`, to nowhere, for the reason in `excuse`.

    `held` are those whose requests go through the activator.
    """

    service: str
    weights: tuple[tuple[str, int], ...] = ()
    held: frozenset[str] = frozenset()
    timeout_s: float = _DEFAULT_TIMEOUT_S
    excuse: str = ""
    affinity: Affinity | None = None
    shadow: Shadow | None = None
    # Of its revisions those that log their payloads.
    loggers: tuple[tuple[str, Logger], ...] = ()
    # Of its revisions those whose pods copy by themselves, with their secret.
    copy_keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    # What the pod is told of the way, by header.
    told: tuple[tuple[str, str], ...] = ()
    # The ways of those that name a tag.
    by_tag: tuple[tuple[str, Way], ...] = ()

    def choices(self) -> list[tuple[Resource, Way]]:
        """Every way of the service with what it asks of a request's headers, in the order in which they are tried."""
        tagged = [
            ({"headers": [{"name": names.TAG_HEADER, "string_match": {"exact": tag}}]}, to)
            for tag, to in self.by_tag
        ]
        return [*tagged, ({}, self)]

    def routes(self, match: Resource, *, prefix_rewrite: str | None = None) -> list[Resource]:
        """The routes of all requests that `match`."""
        if not self.weights:
            answer = {"status": 503, "body": {"inline_string": self.excuse}}
            return [{"match": match, "name": self.service, "direct_response": answer}]
        rewrite = {} if prefix_rewrite is None else {"prefix_rewrite": prefix_rewrite}
        return [
            self._route({**match, "grpc": {}}, grpc_cluster, rewrite),
            self._route(match, http_cluster, rewrite),
        ]

    def _route(self, match: Resource, cluster: Callable[[str], str], rewrite: Resource) -> Resource:
        # As Knative counts it, the timeout ends with the response's first byte: a stream may go on for longer.
        # Envoy's `timeout` would cut it, so the limit is on silence: the wait for a free place, for the first
        # byte, and between two bytes.
        limits = {"timeout": "0s", "idle_timeout": seconds(self.timeout_s)}
        prefix = (match.get("prefix") or match.get("path") or "").rstrip("/") if rewrite else ""
        told = {"request_headers_to_add": [overwrite(*header) for header in self.told]} if self.told else {}
        return {
            "match": match,
            "name": self.service,
            "route": {**self._destination(cluster, prefix), **limits, **rewrite},
            **told,
        }

    def _destination(self, cluster: Callable[[str], str], prefix: str) -> Resource:
        # Also for those that go straight to pods: where none of them is left, the activator is next, and asks.
        weights = [
            {
                "name": ENTRY if revision in self.held else cluster(revision),
                "weight": weight,
                "request_headers_to_add": revision_headers(revision),
            }
            for revision, weight in self.weights
        ]
        is_split = len(weights) > 1
        is_by_caller = is_split and self.affinity is not None
        shares = list(zip((revision for revision, _ in self.weights), weights, strict=True))
        keys = dict(self.copy_keys)
        if self.loggers:
            shares = copies.logged(
                shares, dict(self.loggers), prefix=prefix, is_by_caller=is_by_caller, keys=keys
            )
            weights = [share for _, share in shares]
        if self.shadow is not None:
            weights = shadows.weights(
                shares, self.shadow, self.service, prefix=prefix, is_by_caller=is_by_caller, keys=keys
            )
        if self.affinity is None or not is_split:
            return {"weighted_clusters": {"clusters": weights}}
        # Of two revisions each has one end of the range of hashes, so when a weight grows values move one way only.
        return {
            "weighted_clusters": {"clusters": weights, "use_hash_policy": True},
            "hash_policy": [_hashed(self.affinity)],
        }


def way(entry: RouteEntry, backends: Mapping[str, Backend]) -> Way:
    """Where the requests of this entry go now."""
    told = ((names.TAG_HEADER, entry.tag),) if entry.tag else ()
    if not entry.tags:
        return replace(_split(entry, backends), told=told) if told else _split(entry, backends)
    by_tag = [
        (tag, _split(replace(entry, splits=(Split(revision, 100),), shadow=None), backends))
        for tag, revision in entry.tags
    ]
    told = ((names.DEFAULT_ROUTE_HEADER, "true"),)
    return replace(_split(entry, backends), told=told, by_tag=tuple(by_tag))


def _split(entry: RouteEntry, backends: Mapping[str, Backend]) -> Way:
    service = f"{entry.namespace}/{entry.name}"
    splits = live_splits(entry, backends)
    if not splits:
        return Way(service, excuse=_excuse(entry))
    # Envoy has one timeout a route, before it chooses the revision.
    timeouts = [backends[split.revision].timeout_s for split in splits if split.revision in backends]
    held = frozenset(s.revision for s in splits if s.revision in backends and backends[s.revision].is_held)
    weights = tuple((split.revision, split.percent) for split in splits)
    shadow = entry.shadow
    if shadow is not None and not (shadow.revision in backends and backends[shadow.revision].takes_requests):
        shadow = None
    logged = ((s.revision, backends[s.revision].logger) for s in splits if s.revision in backends)
    loggers = tuple((revision, logger) for revision, logger in logged if logger is not None)
    copy_keys = tuple(
        (s.revision, backends[s.revision].copy_key)
        for s in splits
        if s.revision in backends and backends[s.revision].copy_key
    )
    return Way(
        service,
        weights,
        held,
        max(timeouts),
        affinity=entry.affinity,
        shadow=shadow,
        loggers=loggers,
        copy_keys=copy_keys,
    )


def no_way(namespace: str, service: str) -> Way:
    """The answer for a service that is not in the table."""
    see = f"kubectl get services.serving.knative.dev -n {namespace}"
    return Way(f"{namespace}/{service}", excuse=f"service {namespace}/{service} has no route; see: {see}")


def live_splits(entry: RouteEntry, backends: Mapping[str, Backend]) -> tuple[Split, ...]:
    """The splits that take requests: all with a weight if any of their revisions takes some, else none.

    A revision that takes none keeps its share beside one that does: its requests are answered 503 rather than given
    to a revision that they are not meant for.
    """
    weighted = tuple(split for split in entry.splits if split.percent > 0)
    is_live = any(backends[s.revision].takes_requests for s in weighted if s.revision in backends)
    return tuple(sorted(weighted, key=lambda split: split.revision)) if is_live else ()


def _hashed(affinity: Affinity) -> Resource:
    """What Envoy hashes; without it in a request, Envoy chooses at random."""
    if affinity.source is Source.HEADER:
        return {"header": {"header_name": affinity.name}}
    return {"cookie": {"name": affinity.name}}


def _excuse(entry: RouteEntry) -> str:
    revisions = sorted(split.revision for split in entry.splits if split.percent > 0)
    if not revisions:
        see = f"kubectl get inferenceservices,revisions -n {entry.namespace}"
        return f"service {entry.namespace}/{entry.name} sends its traffic to no revision yet; see: {see}"
    namespace, _, name = revisions[0].partition("/")
    see = f"kubectl get pods -n {namespace} -l serving.knative.dev/revision={name}"
    return f"revision {', '.join(revisions)} has no ready replica; see: {see}"

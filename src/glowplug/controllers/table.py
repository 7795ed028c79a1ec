"""The route book: what each route, alias and revision adds to the one route table, and what is known to be in force.

Owned by the control loops; the table as a whole is assembled from it whenever it is published. A revision that the
published or the confirmed table leads to must keep its pods. One that was left stays in the table, without a route,
until it is released: requests that were on their way to it may wait for its pods still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from glowplug.spec.affinity import Affinity
from glowplug.spec.routes import Backend, RouteEntry, RouteTable, Shadow, Split

from . import addresses
from .config import ControllersConfig

Name = tuple[str, str]
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True)
class Traffic:
    """Where one Route leads: its own splits, and one revision (`namespace/name`) for each tag."""

    splits: tuple[Split, ...]
    tags: tuple[tuple[str, str], ...] = ()
    affinity: Affinity | None = None
    shadow: Shadow | None = None

    @property
    def revisions(self) -> frozenset[str]:
        shadow = [self.shadow.revision] if self.shadow else []
        return frozenset(
            [split.revision for split in self.splits] + [revision for _, revision in self.tags] + shadow
        )


@dataclass(frozen=True)
class Published:
    """What a table was assembled from, as far as it matters when the router runs it."""

    routes: Mapping[Name, Traffic]
    aliases: Mapping[Name, str]


@dataclass(frozen=True)
class Confirmation:
    """What a confirmed table changed: routes and aliases by name, and revisions (`namespace/name`) that were left."""

    routes: frozenset[Name]
    aliases: frozenset[Name]
    revisions: frozenset[str]


class RouteBook:
    """Contributions to the table by (namespace, name), and the table that the router has confirmed."""

    def __init__(self, config: ControllersConfig) -> None:
        self._config = config
        self._routes: dict[Name, Traffic] = {}
        self._aliases: dict[Name, str] = {}
        self._backends: dict[str, Backend] = {}
        self._confirmed = Published({}, {})
        self._uses: dict[str, int] = {}
        self._left: set[str] = set()
        self.is_dirty = False

    def set_route(self, namespace: str, name: str, traffic: Traffic | None) -> None:
        """What the Route leads to; None takes it out."""
        before = self._routes.get((namespace, name))
        if before == traffic:
            return
        _put(self._routes, (namespace, name), traffic)
        self._count(before, -1)
        self._count(traffic, 1)
        self.is_dirty = True

    def set_alias(self, namespace: str, name: str, route: str | None) -> None:
        """`name` (an InferenceService) answers with the splits of `route`; None takes it out."""
        if self._aliases.get((namespace, name)) != route:
            _put(self._aliases, (namespace, name), route)
            self.is_dirty = True

    def set_backend(self, revision: str, backend: Backend | None) -> None:
        if self._backends.get(revision) != backend:
            _put(self._backends, revision, backend)
            # Pods of a revision that no request goes to concern nobody.
            self.is_dirty = self.is_dirty or self.is_routed(revision) or revision in self._left
        if backend is None:
            self.release(revision)

    def release(self, revision: str) -> None:
        """No request is on its way to that revision any more, unless a route leads to it."""
        if revision in self._left:
            self._left.discard(revision)
            self.is_dirty = True

    def is_left(self, revision: str) -> bool:
        """Whether routes led to this revision and it has not been released since."""
        return revision in self._left

    def is_routed(self, revision: str) -> bool:
        """Whether the table as decided, or as last confirmed by the router, leads to this revision."""
        return self._uses.get(revision, 0) > 0

    def is_confirmed(self, namespace: str, name: str) -> bool:
        """Whether the router runs this route as it is decided now."""
        decided = self._routes.get((namespace, name))
        return decided is not None and self._confirmed.routes.get((namespace, name)) == decided

    def is_alias_confirmed(self, namespace: str, name: str, route: str) -> bool:
        """Whether the router leads this alias to `route`, and that to where it is decided to lead."""
        is_in_force = self._confirmed.aliases.get((namespace, name)) == route
        return is_in_force and self.is_confirmed(namespace, route)

    def snapshot(self) -> tuple[RouteTable, Published]:
        """The table to publish, with what to `confirm` once the router runs it."""
        self.is_dirty = False
        kept = self._left.union(self._uses)
        table = assemble(self._config, self._routes, self._aliases, self._backends, kept)
        return table, Published(dict(self._routes), dict(self._aliases))

    def confirm(self, published: Published) -> Confirmation:
        """The router runs that table now."""
        before, self._confirmed = self._confirmed, published
        routes = _changed(before.routes, published.routes)
        left: set[str] = set()
        for name in routes:
            self._count(published.routes.get(name), 1)
            self._count(before.routes.get(name), -1)
            left |= _revisions(before.routes.get(name)) - _revisions(published.routes.get(name))
        unrouted = frozenset(revision for revision in left if not self.is_routed(revision))
        self._left |= unrouted & self._backends.keys()
        return Confirmation(
            routes=routes, aliases=_changed(before.aliases, published.aliases), revisions=unrouted
        )

    def _count(self, traffic: Traffic | None, by: int) -> None:
        for revision in _revisions(traffic):
            count = self._uses.get(revision, 0) + by
            if count:
                self._uses[revision] = count
            else:
                del self._uses[revision]


def assemble(
    config: ControllersConfig,
    routes: Mapping[Name, Traffic],
    aliases: Mapping[Name, str],
    backends: Mapping[str, Backend],
    kept: Iterable[str] = (),
) -> RouteTable:
    """The whole table. A name is taken once: first by a Knative Service, then by an alias, then by a tag.

    Of the revisions in `kept` those that are there are in it, whether a route leads to them or not.
    """
    entries: dict[Name, RouteEntry] = {}
    for (namespace, name), traffic in sorted(routes.items()):
        entries[namespace, name] = _entry(config, namespace, name, traffic)
    for (namespace, name), route in sorted(aliases.items()):
        target = routes.get((namespace, route))
        if target is not None and (namespace, name) not in entries:
            entries[namespace, name] = _entry(config, namespace, name, target)
    for (namespace, name), traffic in sorted(routes.items()):
        for tag, revision in traffic.tags:
            tagged = addresses.tagged(tag, name)
            if (namespace, tagged) not in entries:
                to = Traffic((Split(revision, 100),))
                entries[namespace, tagged] = replace(_entry(config, namespace, tagged, to), tag=tag)
    used = {revision for traffic in routes.values() for revision in traffic.revisions}
    used.update(revision for revision in kept if revision in backends)
    return RouteTable(
        routes=tuple(entries[name] for name in sorted(entries)),
        backends=tuple(backends.get(revision) or _empty(revision) for revision in sorted(used)),
    )


def _entry(config: ControllersConfig, namespace: str, name: str, traffic: Traffic) -> RouteEntry:
    return RouteEntry(
        namespace=namespace,
        name=name,
        hosts=addresses.hosts(config, namespace, name),
        path_prefixes=(addresses.path(namespace, name),),
        splits=traffic.splits,
        tags=traffic.tags,
        affinity=traffic.affinity,
        shadow=traffic.shadow,
    )


def _empty(revision: str) -> Backend:
    # A revision that was deleted under a route: the route answers 503 until its traffic block is changed.
    return Backend(revision, (), 0, 300.0)


def merge(splits: Iterable[Split]) -> tuple[Split, ...]:
    """One split a revision, in order of first appearance; those without traffic are left out."""
    merged: dict[str, Split] = {}
    for split in splits:
        known = merged.get(split.revision)
        merged[split.revision] = replace(split, percent=split.percent + (known.percent if known else 0))
    return tuple(split for split in merged.values() if split.percent > 0)


def _revisions(traffic: Traffic | None) -> frozenset[str]:
    return traffic.revisions if traffic else frozenset()


def _changed(before: Mapping[Name, _V], after: Mapping[Name, _V]) -> frozenset[Name]:
    return frozenset(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _put(into: dict[_K, _V], key: _K, value: _V | None) -> None:
    if value is None:
        into.pop(key, None)
    else:
        into[key] = value

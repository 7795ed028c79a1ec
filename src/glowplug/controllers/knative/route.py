"""Route → the split of its traffic over revisions, and the labels by which those revisions know of it.

Replace before retire: the traffic moves, as a whole, once every target is ready; the revisions that it left are
unlabelled only when the router has confirmed the new table.
"""

from __future__ import annotations

from collections.abc import Iterable

from glowplug.spec import kinds

from .. import addresses, conditions
from ..conditions import Condition
from ..keys import BY_ROUTE, ROUTES_ANNOTATION, routes_of
from ..metadata import (
    Object,
    annotations_of,
    at,
    copied,
    generation_of,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    timestamp,
)
from ..world import World
from .labels import ACTIVE, RESERVE, ROUTING_STATE, ROUTING_STATE_MODIFIED
from .traffic import ASSIGNED, Resolved, Targets, newest_ready, referenced, resolve, traffic_of

INGRESS_READY = "IngressReady"
CERTIFICATE_PROVISIONED = "CertificateProvisioned"
DEPENDENTS = (ASSIGNED, INGRESS_READY, CERTIFICATE_PROVISIONED)


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Brings one Route's traffic, status and labels up to date."""
    route = world.get(kinds.ROUTE, namespace, name)
    if route is None or is_deleting(route):
        world.book.set_route(namespace, name, None)
        _label(world, namespace, name, set(), now)
        return
    configurations = _configurations(world, route)
    revisions = _revisions(world, route, configurations)
    assigned = frozenset(target["revisionName"] for target in at(route, "status", "traffic") or ())
    resolved = resolve(route, Targets(configurations, revisions, assigned))
    route = _update_status(world, route, resolved, newest_ready(configurations, revisions), now)
    wanted = referenced(route, configurations, revisions)
    is_settled = conditions.is_true(route) or conditions.is_false(route)
    _label(world, namespace, name, wanted, now, may_clear=is_settled)


def _configurations(world: World, route: Object) -> dict[str, Object]:
    namespace = namespace_of(route)
    wanted = {target.get("configurationName") for target in at(route, "spec", "traffic") or ()}
    found = {name: world.get(kinds.CONFIGURATION, namespace, name) for name in sorted(filter(None, wanted))}
    return {name: configuration for name, configuration in found.items() if configuration is not None}


def _revisions(world: World, route: Object, configurations: dict[str, Object]) -> dict[str, Object]:
    wanted = {
        target.get("revisionName")
        for part in ("spec", "status")
        for target in at(route, part, "traffic") or ()
    }
    for configuration in configurations.values():
        wanted.add(at(configuration, "status", "latestCreatedRevisionName"))
        wanted.add(at(configuration, "status", "latestReadyRevisionName"))
    found = {
        name: world.get(kinds.REVISION, namespace_of(route), name) for name in sorted(filter(None, wanted))
    }
    return {name: revision for name, revision in found.items() if revision is not None}


def _update_status(
    world: World, route: Object, resolved: Resolved | Condition, newest: str | None, now: float
) -> Object:
    namespace, name = namespace_of(route), name_of(route)
    url = addresses.url(world.config, namespace, name)
    status: Object = dict(route.get("status") or {})
    status["url"] = url
    wanted = [c for c in (conditions.find(route, type) for type in DEPENDENTS) if c is not None]
    if isinstance(resolved, Resolved):
        status["traffic"] = [_with_url(world, route, target) for target in resolved.targets]
        status["address"] = {"url": url}
        wanted = [
            conditions.true(ASSIGNED),
            conditions.true(CERTIFICATE_PROVISIONED, "TLSNotEnabled", "external-domain-tls is not enabled"),
        ]
    else:
        wanted = [c for c in wanted if c.type not in (ASSIGNED, INGRESS_READY)] + [resolved]
    world.book.set_route(namespace, name, traffic_of({**route, "status": status}, newest))
    wanted.append(_ingress_ready(world, namespace, name))
    status["observedGeneration"] = generation_of(route)
    status["conditions"] = conditions.settle(status.get("conditions"), wanted, DEPENDENTS, now)
    return world.update_status(kinds.ROUTE, route, status)


def _ingress_ready(world: World, namespace: str, name: str) -> Condition:
    if world.book.is_confirmed(namespace, name):
        return conditions.true(INGRESS_READY)
    return conditions.unknown(INGRESS_READY, "IngressNotConfigured", "Ingress has not yet been reconciled.")


def _with_url(world: World, route: Object, target: Object) -> Object:
    if not target.get("tag"):
        return target
    tagged = addresses.tagged(target["tag"], name_of(route))
    return {**target, "url": addresses.url(world.config, namespace_of(route), tagged)}


def _label(
    world: World, namespace: str, name: str, wanted: Iterable[str], now: float, may_clear: bool = True
) -> None:
    wanted = set(wanted)
    labelled = {
        name_of(revision): revision for revision in world.related(kinds.REVISION, BY_ROUTE, namespace, name)
    }
    for revision_name in sorted(wanted):
        revision = world.get(kinds.REVISION, namespace, revision_name)
        if revision is not None:
            _set_routes(world, revision, {*routes_of(revision), name}, now)
    for revision_name, revision in labelled.items():
        if may_clear and revision_name not in wanted:
            _set_routes(world, revision, {*routes_of(revision)} - {name}, now)


def _set_routes(world: World, revision: Object, routes: set[str], now: float) -> None:
    state = ACTIVE if routes else RESERVE
    joined = ",".join(sorted(routes))
    if (
        labels_of(revision).get(ROUTING_STATE) == state
        and annotations_of(revision).get(ROUTES_ANNOTATION, "") == joined
    ):
        return
    changed = copied(revision)
    labels, annotations = labels_of(changed), annotations_of(changed)
    if labels.get(ROUTING_STATE) != state:
        labels[ROUTING_STATE] = state
        annotations[ROUTING_STATE_MODIFIED] = timestamp(now)
    annotations.pop(ROUTES_ANNOTATION, None)
    if joined:
        annotations[ROUTES_ANNOTATION] = joined
    changed["metadata"]["labels"] = labels
    changed["metadata"]["annotations"] = annotations
    world.update(kinds.REVISION, changed)

"""Knative Service → Configuration + Route, and their statuses back.

As knative.dev/serving pkg/reconciler/service does it: the children carry the Service's name; a child of that name that
somebody else owns is reported and left alone; a named revision that is taken stops the traffic from moving.
"""

from __future__ import annotations

from glowplug.spec import kinds, knativeservice

from .. import conditions
from ..conditions import Condition
from ..metadata import (
    Object,
    annotations_of,
    at,
    copied,
    generation_of,
    is_controlled_by,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    observed_generation_of,
)
from ..world import World
from .configuration import is_name_taken
from .resources import make_configuration, make_route

CONFIGURATIONS_READY = "ConfigurationsReady"
ROUTES_READY = "RoutesReady"
_DEPENDENTS = (CONFIGURATIONS_READY, ROUTES_READY)
_CONFIGURATION_FIELDS = ("latestCreatedRevisionName", "latestReadyRevisionName")
_ROUTE_FIELDS = ("url", "address", "traffic")


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Brings one Service's children and status up to date."""
    service = world.get(kinds.KNATIVE_SERVICE, namespace, name)
    if service is None or is_deleting(service):
        return
    service = knativeservice.default_service(service)
    status: Object = dict(service.get("status") or {})
    found = (conditions.find(service, type) for type in _DEPENDENTS)
    known = {condition.type: condition for condition in found if condition is not None}
    _reconcile_children(world, service, status, known)
    status["observedGeneration"] = generation_of(service)
    status["conditions"] = conditions.settle(status.get("conditions"), known.values(), _DEPENDENTS, now)
    world.update_status(kinds.KNATIVE_SERVICE, service, status)


def _reconcile_children(world: World, service: Object, status: Object, known: dict[str, Condition]) -> None:
    configuration = world.get(kinds.CONFIGURATION, namespace_of(service), name_of(service))
    if configuration is not None and not is_controlled_by(configuration, service):
        known[CONFIGURATIONS_READY] = _not_owned(CONFIGURATIONS_READY, "Configuration", service)
        return
    configuration = _ensure(
        world, kinds.CONFIGURATION, service, configuration, make_configuration(service, configuration)
    )
    if generation_of(configuration) != observed_generation_of(configuration):
        message = "The Configuration is still working to reflect the latest desired specification."
        known[CONFIGURATIONS_READY] = conditions.unknown(CONFIGURATIONS_READY, "OutOfDate", message)
        if at(configuration, "spec", "template", "metadata", "name"):
            # With a name of the user's, the traffic waits until that name has proved to be free.
            return
    else:
        _propagate(configuration, status, _CONFIGURATION_FIELDS, known, CONFIGURATIONS_READY)
    revision_name = at(configuration, "spec", "template", "metadata", "name")
    if revision_name and is_name_taken(
        world.get(kinds.REVISION, namespace_of(service), revision_name), configuration
    ):
        taken = f'The revision name "{revision_name}" is taken by a conflicting Revision'
        message = f"{taken}, so traffic will not be migrated"
        known[ROUTES_READY] = conditions.false(ROUTES_READY, "RevisionNameTaken", message)
        return
    _reconcile_route(world, service, configuration, status, known)


def _reconcile_route(
    world: World, service: Object, configuration: Object, status: Object, known: dict[str, Condition]
) -> None:
    route = world.get(kinds.ROUTE, namespace_of(service), name_of(service))
    if route is not None and not is_controlled_by(route, service):
        known[ROUTES_READY] = _not_owned(ROUTES_READY, "Route", service)
        return
    route = _ensure(world, kinds.ROUTE, service, route, make_route(service))
    if generation_of(route) != observed_generation_of(route):
        message = "The Route is still working to reflect the latest desired specification."
        known[ROUTES_READY] = conditions.unknown(ROUTES_READY, "OutOfDate", message)
        return
    _propagate(route, status, _ROUTE_FIELDS, known, ROUTES_READY)
    if known.get(ROUTES_READY, conditions.unknown("")).status == "True" and not has_migrated(
        route, configuration
    ):
        known[ROUTES_READY] = conditions.unknown(
            ROUTES_READY, "TrafficNotMigrated", "Traffic is not yet migrated to the latest revision."
        )


def has_migrated(route: Object, configuration: Object) -> bool:
    """Whether the traffic in the Route's status is the one that its spec asks for now."""
    latest = at(configuration, "status", "latestReadyRevisionName")
    wanted = [
        (t.get("tag") or "", t.get("revisionName") or latest, t.get("percent") or 0)
        for t in at(route, "spec", "traffic") or ()
    ]
    got = [
        (t.get("tag") or "", t.get("revisionName"), t.get("percent") or 0)
        for t in at(route, "status", "traffic") or ()
    ]
    return wanted == got


def _ensure(
    world: World, kind: kinds.Kind, service: Object, existing: Object | None, wanted: Object
) -> Object:
    if existing is None:
        created = world.create(kind, wanted)
        world.record(service, "Normal", "Created", f'Created {kind.name} "{name_of(created)}"')
        return created
    is_same = (
        existing.get("spec") == wanted["spec"]
        and labels_of(existing) == labels_of(wanted)
        and annotations_of(existing) == annotations_of(wanted)
    )
    if is_same:
        return existing
    changed = copied(existing)
    changed["spec"] = wanted["spec"]
    changed["metadata"]["labels"] = labels_of(wanted)
    changed["metadata"]["annotations"] = annotations_of(wanted)
    return world.update(kind, changed)


def _propagate(
    child: Object, status: Object, fields: tuple[str, ...], known: dict[str, Condition], type: str
) -> None:
    for field in fields:
        value = at(child, "status", field)
        if value is None:
            status.pop(field, None)
        else:
            status[field] = value
    condition = conditions.find(child, conditions.READY)
    if condition is None:
        return
    # A condition that is true needs no reason.
    known[type] = conditions.true(type) if condition.status == "True" else condition.renamed(type)


def _not_owned(type: str, kind: str, service: Object) -> Condition:
    return conditions.false(
        type, "NotOwned", f'There is an existing {kind} "{name_of(service)}" that we do not own.'
    )

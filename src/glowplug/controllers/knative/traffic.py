"""A Route's traffic block, resolved to revisions. Pure.

As knative.dev/serving pkg/reconciler/route/traffic: all targets resolve, or none does, and then the traffic stays
where it was. One thing is stricter than there: a revision that always has pods (min-scale) and has no traffic yet takes
some only once a pod is ready. One that may be at zero takes it at once, and the activator holds what comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glowplug.spec import names
from glowplug.spec.affinity import affinity_of
from glowplug.spec.autoscaling import scaling_of
from glowplug.spec.routes import Shadow, Split
from glowplug.spec.shadowing import shadow_percent_of

from .. import conditions
from ..conditions import Condition
from ..metadata import (
    Object,
    annotations_of,
    at,
    generation_of,
    labels_of,
    name_of,
    namespace_of,
    observed_generation_of,
)
from ..table import Traffic, merge

ASSIGNED = "AllTrafficAssigned"


@dataclass(frozen=True)
class Targets:
    """What the traffic block may refer to, by name, and the revisions that have traffic now."""

    configurations: Mapping[str, Object]
    revisions: Mapping[str, Object]
    assigned: frozenset[str]


@dataclass(frozen=True)
class Resolved:
    """The traffic block at the level of revisions, as `status.traffic` holds it, without URLs."""

    targets: tuple[Object, ...]


def resolve(route: Object, targets: Targets) -> Resolved | Condition:
    """The revisions of every target, or the condition that says why not; a failure is reported before a wait."""
    merged: dict[tuple[Any, ...], Object] = {}
    problems: list[Condition] = []
    traffic = at(route, "spec", "traffic") or ()
    for target in traffic:
        revision = _resolve_one(route, target, targets)
        if isinstance(revision, Condition):
            problems.append(revision)
            continue
        is_latest = not target.get("revisionName")
        key = (target.get("tag"), revision, is_latest)
        if key not in merged:
            merged[key] = {"latestRevision": is_latest, "revisionName": revision, "percent": 0}
            if target.get("tag"):
                merged[key]["tag"] = target["tag"]
        merged[key]["percent"] += target.get("percent") or 0
    total = sum(target["percent"] for target in merged.values())
    if not problems and total != 100:
        message = f"Traffic targets sum to {total}, must sum to 100."
        problems.append(conditions.false(ASSIGNED, "InvalidTraffic", message))
    problems.sort(key=lambda condition: condition.status != "False")
    return problems[0] if problems else Resolved(tuple(merged.values()))


def traffic_of(route: Object, newest: str | None = None) -> Traffic | None:
    """What the router is to do for this Route: the traffic of its status; None while it has none.

    `newest` is the newest ready revision of its Configuration: the one that may be a shadow.
    """
    namespace = namespace_of(route)
    targets = at(route, "status", "traffic") or ()
    if not targets:
        return None
    splits = merge(
        Split(f"{namespace}/{target['revisionName']}", target.get("percent") or 0) for target in targets
    )
    tags = tuple(
        (target["tag"], f"{namespace}/{target['revisionName']}") for target in targets if target.get("tag")
    )
    shadow = _shadow(route, splits, f"{namespace}/{newest}") if newest else None
    return Traffic(splits, tags, affinity_of(annotations_of(route)), shadow)


def newest_ready(configurations: Mapping[str, Object], revisions: Mapping[str, Object]) -> str | None:
    """The newest ready revision, where all the traffic is one Configuration's."""
    if len(configurations) != 1:
        return None
    (configuration,) = configurations.values()
    name = at(configuration, "status", "latestReadyRevisionName")
    return name if name in revisions and _is_ready(revisions[name]) else None


def _shadow(route: Object, splits: Iterable[Split], newest: str) -> Shadow | None:
    percent = shadow_percent_of(annotations_of(route))
    is_in_use = any(split.revision == newest and split.percent >= 100 for split in splits)
    return Shadow(newest, percent) if percent and not is_in_use else None


def referenced(
    route: Object, configurations: Mapping[str, Object], revisions: Mapping[str, Object]
) -> set[str]:
    """The revisions that must be kept running for this Route: those with traffic, those that it names, and the ones
    that are to get traffic as the latest of their Configuration when they are ready."""
    found: set[str] = set()
    for target in [*(at(route, "status", "traffic") or ()), *(at(route, "spec", "traffic") or ())]:
        configuration = target.get("configurationName")
        revision = target.get("revisionName")
        if revision and revision in revisions:
            found.add(revision)
            configuration = labels_of(revisions[revision]).get(names.CONFIGURATION_LABEL)
        if target.get("latestRevision") and configuration in configurations:
            status = at(configurations[configuration], "status") or {}
            latest = (status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName"))
            found |= {name for name in latest if name and name in revisions}
    return found


def _resolve_one(route: Object, target: Object, targets: Targets) -> str | Condition:
    named = target.get("revisionName")
    if named:
        return _resolve_revision(named, targets, labels_of(route).get(names.SERVICE_LABEL))
    name = target.get("configurationName") or ""
    configuration = targets.configurations.get(name)
    if configuration is None:
        return _missing("Configuration", name)
    latest = at(configuration, "status", "latestReadyRevisionName")
    if not latest:
        if conditions.is_false(configuration):
            message = f'Configuration "{name}" does not have any ready Revision.'
            return conditions.false(ASSIGNED, "RevisionMissing", message)
        message = f'Configuration "{name}" is waiting for a Revision to become ready.'
        return conditions.unknown(ASSIGNED, "RevisionMissing", message)
    return _resolve_revision(latest, targets, None)


def _resolve_revision(name: str, targets: Targets, service: str | None) -> str | Condition:
    revision = targets.revisions.get(name)
    if revision is None:
        return _missing("Revision", name)
    owner = labels_of(revision).get(names.SERVICE_LABEL, "")
    if service and owner != service:
        said = f'does not belong to Service "{service}"'
        if owner:
            said = f'belongs to Service "{owner}", not Service "{service}"'
        return conditions.false(ASSIGNED, "RevisionNotOwned", f'Revision "{name}" {said}.')
    if conditions.is_false(revision):
        return conditions.false(ASSIGNED, "RevisionMissing", f'Revision "{name}" failed to become ready.')
    if not _is_ready(revision) or not _can_serve(revision, targets.assigned):
        return conditions.unknown(ASSIGNED, "RevisionMissing", f'Revision "{name}" is not yet ready.')
    return name_of(revision)


def _is_ready(revision: Object) -> bool:
    return conditions.is_true(revision) and observed_generation_of(revision) == generation_of(revision)


def _can_serve(revision: Object, assigned: frozenset[str]) -> bool:
    if name_of(revision) in assigned or at(revision, "status", "actualReplicas"):
        return True
    return not scaling_of(annotations_of(revision)).min_scale


def _missing(kind: str, name: str) -> Condition:
    return conditions.false(ASSIGNED, f"{kind}Missing", f'{kind} "{name}" referenced in traffic not found.')

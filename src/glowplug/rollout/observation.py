"""What is seen of an InferenceService in a rollout: its revisions, its percents, how the canary's pods fare. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from glowplug.spec import names

Object = Mapping[str, Any]

COMPONENTS = ("predictor", "transformer")
# Fields of a component that say how it is scaled and measured, not what it runs.
_NOT_ITS_VERSION = frozenset(
    {
        "annotations", "autoScaling", "batcher", "canaryTrafficPercent", "containerConcurrency",
        "deploymentStrategy", "labels", "logger", "maxReplicas", "minReplicas", "name", "scaleMetric",
        "scaleMetricType", "scaleTarget", "storageContainerName", "timeout",
    }
)  # fmt: skip
_CRASH_LOOP = "CrashLoopBackOff"
# A container may be ended from outside; one that is started for the third time ends by itself.
_MOST_RESTARTS = 2


@dataclass(frozen=True)
class Component:
    """`created`, `ready` and `rolled_out` are revisions, as KServe's status names the latest of each.

    `percent` is `canaryTrafficPercent`, `shares` the traffic by revision that is in force. `trouble` says why the
    latest revision cannot become ready. `is_split` is known while a canary is awaited: whether KServe has passed the
    percent on to Knative, which has acted on it and made no revision that KServe does not tell of yet.
    `twins` are those of the revisions in question that run the same as `created`.
    """

    created: str = ""
    ready: str = ""
    rolled_out: str = ""
    percent: int | None = None
    shares: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""
    is_split: bool = False
    twins: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Observation:
    """By component; `crash` says that a canary's pods crash again and again."""

    components: Mapping[str, Component]
    crash: str = ""


def observe(
    isvc: Object, pods: Iterable[Object] = (), canaries: Iterable[str] = (), services: Iterable[Object] = ()
) -> Observation:
    """From the InferenceService, its pods, the revisions whose pods matter, and its Knative Services."""
    spec, status = isvc.get("spec") or {}, isvc.get("status") or {}
    known = status.get("components") or {}
    components = {
        name: _component(spec[name], known.get(name) or {}, _trouble(status, name))
        for name in COMPONENTS
        if spec.get(name) is not None
    }
    for service in services:
        name = (service["metadata"].get("labels") or {}).get(names.COMPONENT_LABEL, "")
        if name in components:
            is_split = _is_split(service, components[name])
            components[name] = replace(components[name], is_split=is_split)
    watched = frozenset(canaries)
    crashes = (
        _crash(pod)
        for pod in pods
        if (pod["metadata"].get("labels") or {}).get(names.REVISION_LABEL) in watched
    )
    return Observation(components, next(filter(None, crashes), ""))


def annotations_of(isvc: Object) -> Mapping[str, str]:
    """The annotations, none where there are none."""
    found: Mapping[str, str] = isvc["metadata"].get("annotations") or {}
    return found


def version_of(spec: Object) -> dict[str, Any]:
    """What a component runs, of its part of the spec."""
    return {key: value for key, value in spec.items() if key not in _NOT_ITS_VERSION and value is not None}


def _component(spec: Object, status: Object, trouble: str) -> Component:
    shares: dict[str, int] = {}
    for target in status.get("traffic") or ():
        revision = target.get("revisionName") or ""
        shares[revision] = shares.get(revision, 0) + int(target.get("percent") or 0)
    return Component(
        created=status.get("latestCreatedRevision") or "",
        ready=status.get("latestReadyRevision") or "",
        rolled_out=status.get("latestRolledoutRevision") or "",
        percent=spec.get("canaryTrafficPercent"),
        shares=shares,
        trouble=trouble,
    )


def _is_split(service: Object, component: Component) -> bool:
    status = service.get("status") or {}
    targets = (service.get("spec") or {}).get("traffic") or ()
    # Its Configuration makes the revision, and may be behind; KServe's own status is later still.
    is_behind = status.get("latestCreatedRevisionName") != component.created or any(
        condition.get("type") == "ConfigurationsReady" and condition.get("reason") == "OutOfDate"
        for condition in status.get("conditions") or ()
    )
    return (
        not is_behind
        and status.get("observedGeneration") == service["metadata"].get("generation")
        and any(
            target.get("latestRevision") and (target.get("percent") or 0) == component.percent
            for target in targets
        )
    )


def _trouble(status: Object, component: str) -> str:
    # KServe names the condition as here; the transformer's and the predictor's alike.
    wanted = f"{component.capitalize()}ConfigurationReady"
    for condition in status.get("conditions") or ():
        if condition.get("type") == wanted and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason") or "it is not ready")
    return ""


def _crash(pod: Object) -> str:
    name = pod["metadata"]["name"]
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        restarts = int(container.get("restartCount") or 0)
        waiting = ((container.get("state") or {}).get("waiting") or {}).get("reason")
        if waiting == _CRASH_LOOP or restarts > _MOST_RESTARTS:
            ended = ((container.get("lastState") or {}).get("terminated") or {}).get("message") or ""
            words = f": {ended.strip().splitlines()[-1][:200]}" if ended.strip() else ""
            return f"container {container.get('name')} of pod {name} crashes ({restarts} restarts){words}"
    return ""

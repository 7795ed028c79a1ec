"""Which revisions are live, and what to write on them: nothing but `autoscaling.knative.dev/min-scale`.

Pure. Knative copies all other annotations and labels of a revision into its Deployment's pods, so that writing one
would replace every pod; those of the group autoscaling.knative.dev are left out of it. What a revision's min-scale was
before is therefore kept in our ConfigMap, and is written there before the revision is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glowplug.autoscaler.parameters import Parameters, parameters_of
from glowplug.spec import autoscaling, names
from glowplug.spec.autoscaling import RevisionScaling, scaling_of

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Grip:
    """What we did to a revision: its `own` min-scale before (None: it had none), and the values that may stand there
    as ours: the one to be written and the one before it."""

    own: str | None
    written: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Live:
    """A revision that traffic goes to; `share` is its part of it, above 0."""

    name: str
    component: str
    share: float
    annotations: Mapping[str, str]
    container_concurrency: int

    @property
    def scaling(self) -> RevisionScaling:
        return scaling_of(self.annotations)

    @property
    def parameters(self) -> Parameters:
        return parameters_of(self.scaling, self.container_concurrency, True)


def live(isvc: Object, revisions: Iterable[Object]) -> list[Live]:
    """The InferenceService's revisions that its status sends traffic to."""
    by_name = {revision["metadata"]["name"]: revision for revision in revisions}
    found = []
    components = (isvc.get("status") or {}).get("components") or {}
    for component, status in sorted(components.items()):
        for name, share in _shares(status).items():
            revision = by_name.get(name)
            if revision is None or "deletionTimestamp" in revision["metadata"]:
                continue
            found.append(
                Live(
                    name,
                    component,
                    share,
                    revision["metadata"].get("annotations") or {},
                    int((revision.get("spec") or {}).get("containerConcurrency") or 0),
                )
            )
    return [each for each in found if each.scaling.autoscaler_class == autoscaling.KPA]


def _shares(status: Object) -> dict[str, float]:
    shares: dict[str, float] = {}
    for target in status.get("traffic") or ():
        name, percent = target.get("revisionName"), target.get("percent") or 0
        if name and percent > 0:
            shares[name] = shares.get(name, 0.0) + percent / 100
    latest = status.get("latestReadyRevision")
    return shares or ({latest: 1.0} if latest else {})


def gripped(grip: Grip | None, annotations: Mapping[str, str]) -> Grip:
    """The grip on a revision with these annotations; a value that is none of ours is its user's from now on."""
    present = annotations.get(names.MIN_SCALE)
    if grip is None or present not in (grip.own, *grip.written):
        return Grip(present)
    return grip


def wanted(grip: Grip, revision: Live, floor: int) -> str | None:
    """The min-scale to write for a floor, within the revision's own min-scale and max-scale; None is to remove it."""
    annotations = {key: value for key, value in revision.annotations.items() if key != names.MIN_SCALE}
    if grip.own is not None:
        annotations[names.MIN_SCALE] = grip.own
    own = scaling_of(annotations)
    if own.max_scale:
        floor = min(floor, own.max_scale)
    return grip.own if floor <= (own.min_scale or 0) else str(floor)


def patch(min_scale: str | None) -> dict[str, Any]:
    """The merge patch that writes it."""
    return {"metadata": {"annotations": {names.MIN_SCALE: min_scale}}}

"""What is written in place of an InferenceService that somebody writes. Pure.

Once a spec has changed, KServe gives all requests to the new revision as soon as it is ready. So the canary's share is
in the very write that changes the spec: 0, until the controller sees the canary ready and begins with the first step.
(With the first step at once, the latest revision that is ready by then would take it, and in the middle of a rollout,
or after one that failed, that is the revision that must go.)

A client that replaces the whole object does not know of the weight and the state; they are put back.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from glowplug.spec import names, pairs

from . import membership, record, settings
from .observation import COMPONENTS, annotations_of, observe
from .state import State

Object = dict[str, Any]

# Fields of a component that say how it is scaled and measured, not what it runs.
_NOT_ITS_VERSION = frozenset(
    {
        "annotations", "autoScaling", "batcher", "canaryTrafficPercent", "containerConcurrency",
        "deploymentStrategy", "labels", "logger", "maxReplicas", "minReplicas", "name", "scaleMetric",
        "scaleMetricType", "scaleTarget", "storageContainerName", "timeout",
    }
)  # fmt: skip


def admit(old: Object | None, new: Object, metrics: frozenset[str], now: float) -> Object | None:
    """The object to store in place of `new`, None where it may stay.

    Raises ConfigError or Invalid where it must be refused.

    `metrics` is what can be measured, see `gates.metrics_of`.
    """
    _check(old, new, metrics)
    stored = pairs.stamp(new, old) or copy.deepcopy(new)
    if names.ROLLOUT_STEPS in annotations_of(stored):
        stored = _without_state(stored) if old is None else _updated(old, stored, now)
    return None if stored == new else stored


def _check(old: Object | None, new: Object, metrics: frozenset[str]) -> None:
    # What has been stored already must not keep anybody from changing something else.
    if old is not None and _asked(old) == _asked(new):
        return
    settings.parse(annotations_of(new), metrics)
    settings.parse_action(annotations_of(new))


def _asked(isvc: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value
        for key, value in annotations_of(isvc).items()
        if key.startswith(names.ROLLOUT_PREFIX) and key != names.ROLLOUT_STATE
    }


def _updated(old: Object, new: Object, now: float) -> Object:
    changed = [name for name in COMPONENTS if _version(old, name) != _version(new, name)]
    was, text = annotations_of(old).get(names.ROLLOUT_STATE), annotations_of(new).get(names.ROLLOUT_STATE)
    if not changed and text is not None:
        return new  # the controller's own write, or one that leaves the rollout alone
    known = record.load(was) or State()
    seen = observe({**new, "status": old.get("status") or {}})
    before = {name: seen.components[name].created for name in changed if name in seen.components}
    state = membership.begin(known, seen, before, now)
    if state is known:
        return _with_state(new, was, known.weight if membership.is_unfinished(known) else None, known)
    present = record.load(text)
    if present is not None and (present.phase, present.members) == (state.phase, state.members):
        state = present  # our own, asked again
    return _with_state(new, record.dump(state), state.weight, state)


def _with_state(isvc: Object, text: str | None, weight: int | None, state: State) -> Object:
    if text is not None:
        isvc["metadata"].setdefault("annotations", {})[names.ROLLOUT_STATE] = text
    if weight is not None:
        for name in state.members.keys() & isvc["spec"].keys():
            isvc["spec"][name]["canaryTrafficPercent"] = weight
    return isvc


def _without_state(isvc: Object) -> Object:
    # Copied from another InferenceService: its rollout is not this one's.
    (isvc["metadata"].get("annotations") or {}).pop(names.ROLLOUT_STATE, None)
    return isvc


def _version(isvc: Mapping[str, Any], component: str) -> Object | None:
    """What a component runs."""
    spec = (isvc.get("spec") or {}).get(component)
    if spec is None:
        return None
    return {key: value for key, value in spec.items() if key not in _NOT_ITS_VERSION and value is not None}

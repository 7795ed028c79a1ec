"""What is written in place of an InferenceService that somebody writes. Pure.

Once a spec has changed, KServe gives all requests to the new revision as soon as it is ready. So the canary's share is
in the very write that changes the spec: 0, until the controller sees the canary ready and begins with the first step.
(With the first step at once, the latest revision that is ready by then would take it, and in the middle of a rollout,
or after one that failed, that is the revision that must go.)

A client that replaces the whole object does not know of the weight and the state; they are put back. One that applies
its manifest again and again, as GitOps tools do, may bring a percent each time: it is not taken. To take the percent
away is KServe's way to promote, and stays one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from glowplug.errors import Invalid, Problem
from glowplug.spec import names, pairs

from . import membership, record, settings, stamps
from .observation import COMPONENTS, Observation, annotations_of, observe, version_of
from .state import State

Object = dict[str, Any]

_PERCENT = "canaryTrafficPercent"
_ALL = 100


def admit(
    old: Object | None,
    new: Object,
    metrics: frozenset[str],
    now: float,
    warn: Callable[[str], None] = lambda text: None,
) -> Object | None:
    """The object to store in place of `new`, None where it may stay.

    Raises ConfigError or Invalid where it must be refused.

    `metrics` is what can be measured, see `gates.metrics_of`; `warn` takes what the writer should be told.
    """
    _check(old, new, metrics)
    stored = pairs.stamp(new, old) or copy.deepcopy(new)
    stamps.stamp(stored, old)
    if names.ROLLOUT_STEPS in annotations_of(stored):
        stored = _without_state(stored) if old is None else _updated(old, stored, now, warn)
    return None if stored == new else stored


def _check(old: Object | None, new: Object, metrics: frozenset[str]) -> None:
    # What has been stored already must not keep anybody from changing something else.
    if old is None or _asked(old) != _asked(new):
        settings.parse(annotations_of(new), metrics)
        settings.parse_action(annotations_of(new))
    if names.ROLLOUT_STEPS in annotations_of(new):
        _check_percents(old or {}, new)


def _check_percents(old: Mapping[str, Any], new: Object) -> None:
    """KServe takes any; Knative refuses it later, when nobody looks any more."""
    problems = []
    for name in COMPONENTS:
        before, percent = _percent(old, name), _percent(new, name)
        if percent is not None and percent != before and not 0 <= percent <= _ALL:
            where = f"spec.{name}.{_PERCENT}"
            problems.append(Problem(where, f"expected 0 <= {percent} <= {_ALL}"))
    if problems:
        raise Invalid("; ".join(f"{each.field}: {each.message}" for each in problems), causes=problems)


def _percent(isvc: Mapping[str, Any], component: str) -> int | None:
    found = ((isvc.get("spec") or {}).get(component) or {}).get(_PERCENT)
    return found if type(found) is int else None


def _asked(isvc: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value
        for key, value in annotations_of(isvc).items()
        if key.startswith(names.ROLLOUT_PREFIX) and key != names.ROLLOUT_STATE
    }


def _updated(old: Object, new: Object, now: float, warn: Callable[[str], None]) -> Object:
    changed = [name for name in COMPONENTS if _version(old, name) != _version(new, name)]
    was, text = _state_of(old), _state_of(new)
    if not changed and text not in (None, was):
        return new  # the controller's own write
    known = record.load(was) or State()
    seen = observe({**new, "status": old.get("status") or {}})
    before = {name: seen.components[name].created for name in changed if name in seen.components}
    state = membership.begin(known, seen, before, now)
    if state is known:
        return _kept(old, new, known, seen, warn)
    present = record.load(text)
    if present is not None and (present.phase, present.members) == (state.phase, state.members):
        state = present  # our own, asked again
    return _with_state(new, record.dump(state), state.weight, state)


def _kept(old: Object, new: Object, known: State, seen: Observation, warn: Callable[[str], None]) -> Object:
    """The rollout stays where it is, and its percents with it."""
    is_replaced = _state_of(new) is None
    is_held = membership.is_unfinished(known) and not membership.has_rolled_out(known, seen)
    for name in known.members.keys() & new["spec"].keys():
        asked, before = new["spec"][name].get(_PERCENT), (old["spec"].get(name) or {}).get(_PERCENT)
        if is_held and (is_replaced or asked is not None):
            new["spec"][name][_PERCENT] = known.weight
        elif not is_held and before is None and asked is not None and 0 < asked < _ALL:
            # Without a canary, KServe would take the latest revision back for it.
            del new["spec"][name][_PERCENT]
        kept = new["spec"][name].get(_PERCENT)
        if asked not in (None, kept):
            warn(
                f"spec.{name}.{_PERCENT} stays {'unset' if kept is None else kept}, {asked} is not taken: rollouts set"
                f" it by themselves, and {names.ROLLOUT_ACTION} steers them; leave it out of the manifest"
            )
    return _with_state(new, _state_of(old), None, known)


def _state_of(isvc: Mapping[str, Any]) -> str | None:
    return annotations_of(isvc).get(names.ROLLOUT_STATE)


def _with_state(isvc: Object, text: str | None, weight: int | None, state: State) -> Object:
    if text is not None:
        isvc["metadata"].setdefault("annotations", {})[names.ROLLOUT_STATE] = text
    if weight is not None:
        for name in state.members.keys() & isvc["spec"].keys():
            isvc["spec"][name][_PERCENT] = weight
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
    return version_of(spec)

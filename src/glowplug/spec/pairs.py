"""Pair lock: which version of a transformer belongs to which version of its predictor. Pure.

The two components of an InferenceService are two Knative Services, which become ready, move traffic and scale each by
itself. The annotation `glowplug.dev/pair-lock: "true"` asks that a request which went through one version of the
transformer meets the predictor of the same apply. For that both pods are told the same id, a hash of what both run: a
change of either one makes a new revision of both. `glowplug.serving` does the rest: a predictor refuses (421) a request
that names another id, and the transformer looks for the one that has its own.

What only scales a component, or splits its traffic, is not hashed: it changes no answer, and must not replace the other
component's pods.

`stamp` belongs in a mutating admission webhook with `reinvocationPolicy: IfNeeded`: KServe's own defaulting may come
after it. With the object as it was before, defaults that were filled in meanwhile do not count as a change.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from glowplug.errors import Invalid, Problem
from glowplug.spec import names
from glowplug.spec.inferenceservice import FRAMEWORKS
from glowplug.spec.validation import (
    Object,
    annotations_of,
    as_list,
    as_object,
    as_text,
    invalid,
    metadata,
)

# The ids made here can be told from those that a user writes.
PREFIX = "auto-"
_DIGITS = 12
_OURS = re.compile(rf"{PREFIX}[0-9a-f]{{{_DIGITS}}}", re.ASCII)
_STAMPED = (names.PAIR_ENV, names.TRANSFORMER_HOST_ENV)
_COMPONENTS = ("predictor", "transformer")
# Of a component: how many pods, how much traffic, and who is told; not what they answer.
_NOT_HASHED = frozenset(
    {
        "annotations",
        "canaryTrafficPercent",
        "labels",
        "logger",
        "minReplicas",
        "maxReplicas",
        "scaleTarget",
        "scaleMetric",
        "scaleMetricType",
        "autoScaling",
    }
)


def is_locked(isvc: Object) -> bool:
    """Whether it asks for the lock and has the two components that can be locked together."""
    spec = as_object(isvc.get("spec"))
    asked = annotations_of(isvc).get(names.PAIR_LOCK) == "true"
    return asked and all(list(_containers(as_object(spec.get(name)))) for name in _COMPONENTS)


def problems(annotations: Mapping[str, str]) -> Iterator[Problem]:
    """What is wrong with the annotation, if it is there."""
    asked = annotations.get(names.PAIR_LOCK)
    if asked not in (None, "true", "false"):
        yield invalid(f"metadata.annotations[{names.PAIR_LOCK}]", asked, 'must be "true" or "false"')


def stamp(isvc: Object, old: Object | None = None) -> Object | None:
    """A copy in which both components know their pair's id, and both have tags; None if it is so already.

    `old` is the stored object that `isvc` replaces. An id that the user wrote into a container (one that is not of our
    form) is the pair's: it is given to the other component too; ids that the user reads from elsewhere (`valueFrom`)
    are the user's business altogether. Where the lock is not asked for, ids of ours are taken out, since a stale one
    would match every revision. Raises Invalid where the user's ids of the two components differ: no request could be
    answered.
    """
    stamped = copy.deepcopy(isvc)
    spec = as_object(stamped.get("spec"))
    if not is_locked(isvc):
        for name in _COMPONENTS:
            for container in _containers(as_object(spec.get(name))):
                _remove(container)
        return None if stamped == isvc else stamped
    # KServe gives the newest revision a tag only where it is asked to.
    stamped["metadata"]["annotations"].setdefault(names.ENABLE_TAG_ROUTING, "true")
    pair = _users_id(spec) or _kept(isvc, old) or pair_id(isvc)
    host = _transformer_host(isvc)
    for name in _COMPONENTS:
        for container in _containers(spec[name]):
            if not _is_read_from_elsewhere(spec):
                _set(container, names.PAIR_ENV, pair)
            if name == "transformer" and host:
                _set(container, names.TRANSFORMER_HOST_ENV, host)
    return None if stamped == isvc else stamped


def pair_id(isvc: Object) -> str:
    """The id of what the two components run, whatever they are stamped with, in whatever order it is written."""
    text = json.dumps(_content(isvc), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return PREFIX + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def stamped_id(isvc: Object) -> str | None:
    """The id that both components have now; None where they have none, or not the same."""
    spec = as_object(isvc.get("spec"))
    found = {
        name: {_env(container, names.PAIR_ENV) for container in _containers(as_object(spec.get(name)))}
        for name in _COMPONENTS
    }
    ids = found["predictor"] | found["transformer"]
    return next(iter(ids)) if len(ids) == 1 and all(found.values()) else None


def _kept(isvc: Object, old: Object | None) -> str | None:
    """The id of the stored object, if what its components run is still the same."""
    if old is None or _content(old) != _content(isvc):
        return None
    known = stamped_id(old)
    return known if known is not None and _OURS.fullmatch(known) else None


def _users_id(spec: Object) -> str | None:
    """The id that the user wrote, if any."""
    found: dict[str, str] = {}
    for name in _COMPONENTS:
        for container in _containers(spec[name]):
            value = _env(container, names.PAIR_ENV)
            if value and not _OURS.fullmatch(value):
                found.setdefault(value, f"spec.{name}")
    if len(found) > 1:
        listed = ", ".join(f"{where} has {value[:80]!r}" for value, where in found.items())
        raise Invalid(
            f"the components of a locked pair name different pairs: {listed}",
            hint=f"write the same {names.PAIR_ENV} into both, or none",
            causes=[
                Problem(where, f"Invalid value: {names.PAIR_ENV} is {value[:80]!r}")
                for value, where in found.items()
            ],
        )
    return next(iter(found), None)


def _is_read_from_elsewhere(spec: Object) -> bool:
    return any(
        as_object(item).get("name") == names.PAIR_ENV and bool(as_object(item).get("valueFrom"))
        for name in _COMPONENTS
        for container in _containers(spec[name])
        for item in as_list(container.get("env"))
    )


def _transformer_host(isvc: Object) -> str:
    """How the transformer's pods call their own service, in the form that KServe gives the predictor's name in."""
    meta = metadata(isvc)
    name = as_text(meta.get("name"))
    return f"{name}-transformer.{as_text(meta.get('namespace')) or 'default'}" if name else ""


def _containers(component: Object) -> Iterator[Object]:
    """Those that take a component's requests: the model's, by whichever field, and a collocated transformer's."""
    for field in ("model", *FRAMEWORKS):
        if isinstance(component.get(field), dict):
            yield component[field]
    items = [item for item in as_list(component.get("containers")) if isinstance(item, dict)]
    own = (names.SERVING_CONTAINER, names.TRANSFORMER_CONTAINER)
    named = [item for item in items if item.get("name") in own]
    has_model = any(isinstance(component.get(field), dict) for field in ("model", *FRAMEWORKS))
    # KServe names the first one, where none is named.
    yield from named or ([] if has_model else items[:1])


def _content(isvc: Object) -> Any:
    spec = as_object(isvc.get("spec"))
    return _plain(
        {
            name: {k: v for k, v in as_object(spec.get(name)).items() if k not in _NOT_HASHED}
            for name in _COMPONENTS
        }
    )


def _plain(value: Any) -> Any:
    """Without our stamps, and without fields that are empty: some clients write those out, others leave them."""
    if isinstance(value, dict):
        items = {key: _plain(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None and item not in ("", [], {})}
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_stamp(item)]
    return value


def _is_stamp(item: Any) -> bool:
    return isinstance(item, dict) and item.get("name") in _STAMPED and not item.get("valueFrom")


def _env(container: Object, name: str) -> str:
    for item in as_list(container.get("env")):
        if as_object(item).get("name") == name:
            return as_text(item.get("value"))
    return ""


def _set(container: Object, name: str, value: str) -> None:
    """Gives a variable its value where it stands, or at the end."""
    env = as_list(container.get("env"))
    for item in env:
        if as_object(item).get("name") == name:
            if not item.get("valueFrom"):
                item["value"] = value
            return
    container["env"] = [*env, {"name": name, "value": value}]


def _remove(container: Object) -> None:
    """Takes our stamps out, and the list with them if nothing else is in it."""
    if not _OURS.fullmatch(_env(container, names.PAIR_ENV)):
        return
    kept = [item for item in as_list(container.get("env")) if not _is_stamp(item)]
    if kept:
        container["env"] = kept
    else:
        del container["env"]

"""A revision's template: the defaults that Knative writes into it, and Knative's rules for it.

Source: knative.dev/serving pkg/apis/serving/v1/revision_defaults.go and revision_validation.go.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from glowplug.errors import Problem
from glowplug.spec import autoscaling_validation, pods
from glowplug.spec.gonumbers import GoValueError, parse_duration
from glowplug.spec.validation import (
    DNS_1035_LABEL,
    INVALID,
    Object,
    annotations_of,
    as_int,
    as_list,
    as_object,
    as_text,
    invalid_value,
    metadata,
    metadata_problems,
    under,
)

DEFAULT_TIMEOUT_S = 300
DEFAULT_CONTAINER = "user-container"
_SECOND_NS = 1_000_000_000
_PROGRESS_DEADLINE = "serving.knative.dev/progress-deadline"
_WRITABLE_VOLUMES = ("emptyDir", "persistentVolumeClaim")


def default_spec(spec: Object) -> Object:
    """The spec of a revision with Knative's defaults written into a copy."""
    spec = copy.deepcopy(spec)
    if not spec.get("timeoutSeconds"):
        spec["timeoutSeconds"] = DEFAULT_TIMEOUT_S
    if spec.get("containerConcurrency") is None:
        spec["containerConcurrency"] = 0
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = False
    containers = [item for item in as_list(spec.get("containers")) if isinstance(item, dict)]
    _default_names(containers)
    writable = {
        as_text(volume.get("name"))
        for volume in as_list(spec.get("volumes"))
        if isinstance(volume, dict) and any(isinstance(volume.get(kind), dict) for kind in _WRITABLE_VOLUMES)
    }
    for container in containers:
        container.setdefault("resources", {})
        if len(containers) == 1 or container.get("ports"):
            _default_probe(container)
        _default_thresholds(container)
        for mount in as_list(container.get("volumeMounts")):
            if isinstance(mount, dict) and as_text(mount.get("name")) not in writable:
                mount["readOnly"] = True
    return spec


def _default_names(containers: list[Object]) -> None:
    taken = {as_text(container.get("name")) for container in containers}
    suffix = 0
    for container in containers:
        if container.get("name"):
            continue
        name = DEFAULT_CONTAINER
        while len(containers) > 1 and (name in taken or name == DEFAULT_CONTAINER):
            name = f"{DEFAULT_CONTAINER}-{suffix}"
            suffix += 1
        container["name"] = name
        taken.add(name)


def _default_probe(container: Object) -> None:
    probe = container.setdefault("readinessProbe", {})
    if isinstance(probe, dict) and not any(
        probe.get(kind) is not None for kind in ("tcpSocket", "httpGet", "exec", "grpc")
    ):
        # Port 0 is the container's own port, whichever that is.
        probe["tcpSocket"] = {"port": 0}


def _default_thresholds(container: Object) -> None:
    probe = container.get("readinessProbe")
    if not isinstance(probe, dict):
        return
    if not probe.get("successThreshold"):
        probe["successThreshold"] = 1
    if probe.get("periodSeconds"):
        probe.setdefault("failureThreshold", 3)
        probe.setdefault("timeoutSeconds", 1)


def validate_spec(spec: Object) -> Iterator[Problem]:
    """Problems of a revision's spec, fields relative to it."""
    yield from pods.validate(spec)
    yield from pods.timeout(spec.get("timeoutSeconds"), "timeoutSeconds")
    for field in ("responseStartTimeoutSeconds", "idleTimeoutSeconds"):
        limit = as_int(spec.get("timeoutSeconds")) or DEFAULT_TIMEOUT_S
        yield from pods.timeout(spec.get(field), field, max(limit, 0))
    yield from pods.concurrency(spec.get("containerConcurrency"), "containerConcurrency")


def validate_template(template: Object, parent: Object) -> Iterator[Problem]:
    """Problems of a template, fields relative to it; `parent` is the metadata of the Service or Configuration."""
    yield from under("spec", validate_spec(as_object(template.get("spec"))))
    meta = metadata(template)
    notes = annotations_of(template)
    yield from metadata_problems(meta)
    yield from annotation_problems(autoscaling_validation.problems(notes))
    yield from annotation_problems(duration_annotation(notes, _PROGRESS_DEADLINE))
    name = as_text(meta.get("name"))
    if not name:
        return
    if faults := DNS_1035_LABEL.faults(name):
        yield invalid_value("metadata.name", f"not a DNS 1035 label: [{' '.join(faults)}]")
    prefix = f"{as_text(parent.get('name'))}-"
    if parent.get("name") and not name.startswith(prefix):
        yield invalid_value("metadata.name", f'"{name}" must have prefix "{prefix}"')


def validate_name_change(template: Object, old: Object) -> Iterator[Problem]:
    """A template that names its revision must take a new name with every change."""
    name = as_text(metadata(template).get("name"))
    if name and name == as_text(metadata(old).get("name")) and template != old:
        message = f"Saw the following changes without a name change (-old +new): {changes(old, template)}"
        yield Problem("metadata.name", message, INVALID)


def changes(old: Any, new: Any, path: str = "") -> str:
    """The fields that differ, as `field: -old +new`, a few of them."""
    found = list(_changes(old, new, path))
    more = f", and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(found[:5]) + more


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, after, f"{path}[{index}]")
    elif old != new:
        yield f"{path}: -{str(old)[:40]} +{str(new)[:40]}"


def duration_annotation(notes: dict[str, str], key: str) -> Iterator[Problem]:
    """A positive duration of whole seconds, in Knative's wording; the problem's field is the key."""
    value = notes.get(key)
    if not value:
        return
    name = key.partition("/")[2]
    try:
        duration = parse_duration(value)
    except GoValueError:
        yield invalid_value(key, value)
        return
    if duration % _SECOND_NS:
        yield Problem(key, f"{name}={value} is not at second precision", INVALID)
    elif duration < 0:
        yield Problem(key, f"{name}={value} must be positive", INVALID)


def annotation_problems(problems: Iterator[Problem], path: str = "metadata.annotations") -> Iterator[Problem]:
    """Problems whose field is an annotation's key, as `metadata.annotations[key]`."""
    return (Problem(f"{path}[{problem.field}]", problem.message, problem.reason) for problem in problems)

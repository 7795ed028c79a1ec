"""Knative's Service, Configuration, Revision and Route: their defaults and their rules.

Source: knative.dev/serving pkg/apis/serving/v1/*_defaults.go and *_validation.go. Nothing here raises on an object
of a wrong shape; a field of a wrong type is the schema's finding and reads as absent.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from glowplug.errors import Problem
from glowplug.spec import affinity, autoscaling, autoscaling_validation, names, pods, revisions, shadowing
from glowplug.spec.revisions import annotation_problems
from glowplug.spec.validation import (
    DNS_1035_LABEL,
    INVALID,
    Object,
    annotations_of,
    as_list,
    as_object,
    as_text,
    disallowed,
    invalid_value,
    metadata,
    missing,
    out_of_bounds,
    qualified_name_faults,
    under,
)

_ROLLOUT_DURATION = "serving.knative.dev/rollout-duration"
_ALL_TO_LATEST = {"latestRevision": True, "percent": 100}


def default_service(obj: Object) -> Object:
    """A Service with a defaulted template, and all requests to the latest revision where no split is written."""
    obj = default_configuration(obj)
    spec = obj.get("spec")
    if isinstance(spec, dict):
        if not spec.get("traffic"):
            spec["traffic"] = [dict(_ALL_TO_LATEST)]
        spec["traffic"] = _default_traffic(spec["traffic"])
    return obj


def default_configuration(obj: Object) -> Object:
    """A Configuration with a defaulted template."""
    obj = copy.deepcopy(obj)
    template = as_object(as_object(obj.get("spec")).get("template"))
    if isinstance(template.get("spec"), dict):
        template["spec"] = revisions.default_spec(template["spec"])
    return obj


def default_revision(obj: Object) -> Object:
    """A Revision with a defaulted spec."""
    obj = copy.deepcopy(obj)
    if isinstance(obj.get("spec"), dict):
        obj["spec"] = revisions.default_spec(obj["spec"])
    return obj


def default_route(obj: Object) -> Object:
    """A Route whose targets say whether they follow the latest revision, and their percent."""
    obj = copy.deepcopy(obj)
    spec = as_object(obj.get("spec"))
    if "traffic" in spec:
        spec["traffic"] = _default_traffic(spec["traffic"])
    return obj


def _default_traffic(traffic: Any) -> Any:
    for target in as_list(traffic):
        if isinstance(target, dict):
            if target.get("latestRevision") is None:
                target["latestRevision"] = not as_text(target.get("revisionName"))
            if target.get("percent") is None:
                target["percent"] = 0
    return traffic


def validate_service(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a Service; `old` is the object that it replaces."""
    spec = as_object(obj.get("spec"))
    return (
        *_metadata(obj),
        *annotation_problems(revisions.duration_annotation(annotations_of(obj), _ROLLOUT_DURATION)),
        *_template(obj, old),
        *under("spec.traffic", _traffic(as_list(spec.get("traffic")), has_configuration=True)),
    )


def validate_configuration(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a Configuration."""
    return (*_metadata(obj), *_owner_label(obj, names.SERVICE_LABEL, "Service"), *_template(obj, old))


def validate_revision(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a Revision; its spec never changes."""
    problems = [
        *_name(obj),
        *annotation_problems(autoscaling_validation.problems(annotations_of(obj))),
        *_owner_label(obj, names.CONFIGURATION_LABEL, "Configuration"),
    ]
    if old is None:
        problems += under("spec", revisions.validate_spec(as_object(obj.get("spec"))))
    elif obj.get("spec") != old.get("spec"):
        difference = revisions.changes(old.get("spec"), obj.get("spec"))
        problems.append(
            Problem("spec", f"Immutable fields changed (-old +new): {difference}", "FieldValueForbidden")
        )
    return tuple(problems)


def validate_route(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a Route."""
    del old  # every field of a Route may change
    spec = as_object(obj.get("spec"))
    return (
        *_metadata(obj),
        *_owner_label(obj, names.SERVICE_LABEL, "Service"),
        *annotation_problems(revisions.duration_annotation(annotations_of(obj), _ROLLOUT_DURATION)),
        *under("spec.traffic", _traffic(as_list(spec.get("traffic")), has_configuration=False)),
    )


def warnings(obj: Object) -> tuple[str, ...]:
    """What a Service, Configuration or Revision asks for and a process on this computer has no use for."""
    spec = as_object(obj.get("spec"))
    path = "spec"
    if "template" in spec:
        spec, path = as_object(as_object(spec["template"]).get("spec")), "spec.template.spec"
    fields = pods.ignored(spec)
    if not fields:
        return ()
    return (f"{path}: {', '.join(fields)}: without effect on the local machine, where pods are processes",)


def _metadata(obj: Object) -> Iterator[Problem]:
    yield from _name(obj)
    yield from affinity.problems(annotations_of(obj))
    yield from shadowing.problems(annotations_of(obj))
    for key in annotations_of(obj):
        if key.startswith(autoscaling.GROUP):
            why = 'autoscaling annotations must be put under "spec.template.metadata.annotations" to work'
            yield Problem(f"metadata.annotations[{key}]", f'invalid key name "{key}": {why}', INVALID)


def _name(obj: Object) -> Iterator[Problem]:
    name = as_text(metadata(obj).get("name"))
    if name and (faults := DNS_1035_LABEL.faults(name)):
        yield invalid_value("metadata.name", f"not a DNS 1035 label: [{' '.join(faults)}]")


def _owner_label(obj: Object, label: str, kind: str) -> Iterator[Problem]:
    """A label that names an owner must have that owner's reference beside it."""
    labels = as_object(metadata(obj).get("labels"))
    if label not in labels:
        return
    owners = [as_object(owner) for owner in as_list(metadata(obj).get("ownerReferences"))]
    if not any(owner.get("kind") == kind and owner.get("name") == labels[label] for owner in owners):
        yield missing(f"metadata.labels[{label}]")


def _template(obj: Object, old: Object | None) -> Iterator[Problem]:
    template = as_object(as_object(obj.get("spec")).get("template"))
    yield from under("spec.template", revisions.validate_template(template, metadata(obj)))
    if old is not None:
        before = as_object(as_object(old.get("spec")).get("template"))
        yield from under("spec.template", revisions.validate_name_change(template, before))


def _traffic(targets: list[Any], *, has_configuration: bool) -> Iterator[Problem]:
    """A Service's targets (`has_configuration`) mean its own configuration; a Route's must name one."""
    tags: dict[str, int] = {}
    total = 0
    for index, item in enumerate(targets):
        target = as_object(item)
        yield from under(f"[{index}]", _target(target, has_configuration=has_configuration))
        percent = target.get("percent")
        total += percent if isinstance(percent, int) else 0
        tag = as_text(target.get("tag"))
        if tag in tags:
            yield Problem(f"[{index}].tag", f'Multiple definitions for "{tag}"', "FieldValueDuplicate")
        elif tag:
            tags[tag] = index
    if total != 100:
        yield Problem("", f"Traffic targets sum to {total}, want 100", INVALID)


def _target(target: Object, *, has_configuration: bool) -> Iterator[Problem]:
    revision, configuration = as_text(target.get("revisionName")), as_text(target.get("configurationName"))
    if has_configuration and configuration:
        yield disallowed("configurationName")
    elif revision and configuration:
        yield Problem("", "expected exactly one, got both: revisionName, configurationName", INVALID)
    elif not has_configuration and not revision and not configuration:
        yield Problem(
            "", "expected exactly one, got neither: revisionName, configurationName", "FieldValueRequired"
        )
    for field, name in (("revisionName", revision), ("configurationName", configuration)):
        if name and (faults := qualified_name_faults(name)):
            yield Problem(field, f'invalid key name "{name[:80]}": {"; ".join(faults)}', INVALID)
    latest = target.get("latestRevision")
    if isinstance(latest, bool) and latest == bool(revision):
        message = f'may not set revisionName "{revision}" when latestRevision is {str(latest).lower()}'
        yield Problem("latestRevision", message, INVALID)
    percent = target.get("percent")
    if isinstance(percent, int) and not 0 <= percent <= 100:
        yield out_of_bounds("percent", percent, 0, 100)
    tag = as_text(target.get("tag"))
    if tag and (faults := DNS_1035_LABEL.faults(tag)):
        yield Problem("tag", f"invalid value: not a DNS 1035 label: {'; '.join(faults)}", INVALID)
    if target.get("url"):
        yield disallowed("url")

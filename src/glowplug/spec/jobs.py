"""Jobs: what is wrong with one, what it says where nothing is written, and the labels that lead to its pods.

The rules are Kubernetes' (pkg/apis/batch/{validation,v1/defaults}.go and the Job strategy), for Jobs whose pods are all
alike. A field that would make another Job of it if it were left out is refused; one that only refines what a failure
means is a warning.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from glowplug.errors import Problem
from glowplug.spec import pods
from glowplug.spec.validation import (
    DNS_1123_SUBDOMAIN,
    LABEL_VALUE,
    Object,
    as_int,
    as_list,
    as_object,
    as_text,
    forbidden,
    invalid,
    metadata,
    metadata_problems,
    required,
    under,
    unsupported,
)

CONTROLLER_UID_LABEL = "batch.kubernetes.io/controller-uid"
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
# The names of these labels before Kubernetes 1.27, which it writes still.
_OLD_CONTROLLER_UID_LABEL = "controller-uid"
_OLD_JOB_NAME_LABEL = "job-name"
# Keeps an ended pod until the Job has counted it.
TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"

NEVER, ON_FAILURE = "Never", "OnFailure"
DEFAULT_BACKOFF_LIMIT = 6
_NON_INDEXED = "NonIndexed"
_COUNTS = ("parallelism", "completions", "backoffLimit", "ttlSecondsAfterFinished")
_REFUSED = {
    "successPolicy": "the local machine runs Jobs without a success policy; a Job would go on that is to end",
    "backoffLimitPerIndex": "the local machine runs NonIndexed Jobs",
    "maxFailedIndexes": "the local machine runs NonIndexed Jobs",
    "manualSelector": "the local machine makes the selector of every Job",
    "managedBy": "the local machine is the only one that acts on Jobs",
}
_IMMUTABLE = ("selector", "template", "completionMode", "completions")


def default_job(obj: Object) -> Object:
    """A Job with Kubernetes' defaults."""
    obj = copy.deepcopy(obj)
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return obj
    # Only parallelism written: a queue of work, done when one pod has succeeded and all have ended.
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    for field, value in (
        ("backoffLimit", DEFAULT_BACKOFF_LIMIT),
        ("completionMode", _NON_INDEXED),
        ("suspend", False),
    ):
        if spec.get(field) is None:
            spec[field] = value
    if spec.get("manualSelector") is False:
        del spec["manualSelector"]
    return obj


def with_selector(obj: Object) -> Object:
    """A new Job, which has its uid, with the selector of its pods and the labels that it selects."""
    obj = copy.deepcopy(obj)
    meta, spec = obj["metadata"], as_object(obj.get("spec"))
    template = spec.get("template")
    if not isinstance(template, dict):
        return obj
    uid, name = meta["uid"], meta["name"]
    if not isinstance(template.get("metadata"), dict):
        template["metadata"] = {}
    template["metadata"]["labels"] = {
        **as_object(template["metadata"].get("labels")),
        CONTROLLER_UID_LABEL: uid,
        JOB_NAME_LABEL: name,
        _OLD_CONTROLLER_UID_LABEL: uid,
        _OLD_JOB_NAME_LABEL: name,
    }
    spec["selector"] = {"matchLabels": {CONTROLLER_UID_LABEL: uid}}
    return obj


def validate_job(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a defaulted Job; `old` is the one that it replaces."""
    name = as_text(metadata(obj).get("name"))
    # The name is a label's value of its pods.
    faults = (DNS_1123_SUBDOMAIN.faults(name) + LABEL_VALUE.faults(name)) if name else []
    problems = [invalid("metadata.name", name, fault) for fault in faults]
    spec = as_object(obj.get("spec"))
    problems += under("spec", _spec(spec, is_new=old is None))
    if old is not None:
        before = as_object(old.get("spec"))
        for field in _IMMUTABLE:
            if before.get(field) != spec.get(field):
                problems.append(invalid(f"spec.{field}", "…", "field is immutable"))
    return tuple(problems)


def template_problems(job: Object) -> Iterator[Problem]:
    """Of a Job inside another object, where it has no name yet; fields relative to the Job."""
    yield from metadata_problems(metadata(job))
    yield from under("spec", _spec(as_object(default_job(job).get("spec")), is_new=True))


def warnings(obj: Object, path: str = "") -> tuple[str, ...]:
    """What a Job asks for and a process on this computer has no use for."""
    spec = as_object(obj.get("spec"))
    template = as_object(as_object(spec.get("template")).get("spec"))
    found = []
    fields = pods.ignored(template)
    if fields:
        where = f"{path}spec.template.spec: {', '.join(fields)}"
        found.append(f"{where}: without effect on the local machine, where pods are processes")
    if spec.get("podFailurePolicy"):
        found.append(
            f"{path}spec.podFailurePolicy: without effect on the local machine, every failure of a pod counts"
        )
    if spec.get("podReplacementPolicy") == "Failed":
        found.append(
            f"{path}spec.podReplacementPolicy: Failed: the local machine replaces pods when they begin to end"
        )
    return tuple(found)


def _spec(spec: Object, *, is_new: bool) -> Iterator[Problem]:
    for field in _COUNTS:
        number = as_int(spec.get(field))
        if number is not None and number < 0:
            yield invalid(field, number, "must be greater than or equal to 0")
    deadline = as_int(spec.get("activeDeadlineSeconds"))
    if deadline is not None and deadline < 0:
        yield invalid("activeDeadlineSeconds", deadline, "must be greater than or equal to 0")
    if as_text(spec.get("completionMode")) not in ("", _NON_INDEXED):
        yield unsupported(
            "completionMode", spec["completionMode"], [_NON_INDEXED], "the local machine has no indexed Jobs"
        )
    for field, why in _REFUSED.items():
        if spec.get(field) not in (None, [], {}, ""):
            yield forbidden(field, why)
    if is_new and spec.get("selector"):
        yield invalid("selector", spec["selector"], "`selector` will be auto-generated")
    yield from under("template.spec", _pod(as_object(as_object(spec.get("template")).get("spec"))))


def _pod(spec: Object) -> Iterator[Problem]:
    policy = as_text(spec.get("restartPolicy"))
    if not policy:
        yield required("restartPolicy", f'valid values: "{ON_FAILURE}", "{NEVER}"')
    elif policy not in (NEVER, ON_FAILURE):
        yield unsupported("restartPolicy", policy, [ON_FAILURE, NEVER])
    containers = [as_object(item) for item in as_list(spec.get("containers"))]
    if not containers:
        yield required("containers")
    for index, container in enumerate(containers):
        if not as_text(container.get("name")):
            yield required(f"containers[{index}].name")
    if spec.get("initContainers"):
        yield forbidden("initContainers", pods.NO_INIT_CONTAINERS)

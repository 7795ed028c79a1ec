"""JobSink → its address, and the Job and the Secret that an event makes there.

As knative.dev/eventing cmd/jobsink: the Job's name follows from the event's source and id, so that the same event,
which may come again, makes no second Job; its containers find the event, as JSON, in a file beside them.
"""

from __future__ import annotations

import base64
import hashlib

from glowplug.spec import kinds
from glowplug.spec.jobs import default_job

from .. import conditions
from ..metadata import (
    Object,
    at,
    child_name,
    copied,
    generation_of,
    is_deleting,
    name_of,
    namespace_of,
    reference_to,
)
from ..world import World

ID_LABEL = "sinks.knative.dev/job-sink-id"
NAME_LABEL = "sinks.knative.dev/job-sink-name"
_ADDRESSABLE = "Addressable"
_VOLUME = "jobsink-event"
_MOUNT_PATH = "/etc/jobsink-event"
_PATH_VARIABLE = "K_EVENT_PATH"
_MODE_VARIABLE, _BATCH = "K_EXECUTION_MODE", "batch"
_KEY = "event"


def reconcile(world: World, namespace: str, name: str, now: float) -> None:
    """Brings one JobSink's status up to date."""
    sink = world.get(kinds.JOB_SINK, namespace, name)
    if sink is None or is_deleting(sink) or world.engine is None:
        return
    status: Object = {
        "address": {"name": "http", "url": world.engine.job_sink_url(namespace, name)},
        "job": {"selector": f"{NAME_LABEL}={name}"},
        "observedGeneration": generation_of(sink),
    }
    before = at(sink, "status", "conditions")
    found = [conditions.true(_ADDRESSABLE)]
    status["conditions"] = conditions.settle(before, found, (_ADDRESSABLE,), now)
    world.update_status(kinds.JOB_SINK, sink, status)


def job_name(sink: str, source: str, id: str) -> str:
    """The name of the Job that an event makes at the JobSink `sink`."""
    digest = hashlib.md5((source + id).encode(), usedforsecurity=False).hexdigest()
    return child_name(f"{sink}-", digest)


def make_job(sink: Object, name: str) -> Object:
    """The Job that an event makes; `name` as `job_name` gives it."""
    job = copied(at(sink, "spec", "job") or {})
    metadata = job.get("metadata") or {}
    spec: Object = job.get("spec") or {}
    pod = spec.setdefault("template", {}).setdefault("spec", {})
    for container in pod.get("containers") or ():
        _show_event(container)
    volumes = pod.setdefault("volumes", [])
    if not any(volume.get("name") == _VOLUME for volume in volumes):
        volumes.append({"name": _VOLUME, "secret": {"secretName": name}})
    return default_job(
        {
            "apiVersion": kinds.JOB.api_version,
            "kind": kinds.JOB.name,
            "metadata": {
                "name": name,
                "namespace": namespace_of(sink),
                "labels": {**(metadata.get("labels") or {}), ID_LABEL: name, NAME_LABEL: name_of(sink)},
                "annotations": metadata.get("annotations") or {},
                "ownerReferences": [{**reference_to(kinds.JOB_SINK, sink), "blockOwnerDeletion": False}],
            },
            "spec": spec,
        }
    )


def make_secret(job: Object, event: bytes) -> Object:
    """The Secret with the event (structured JSON) that the containers of `job` are shown; it goes with the Job."""
    labels = at(job, "metadata", "labels") or {}
    return {
        "apiVersion": kinds.SECRET.api_version,
        "kind": kinds.SECRET.name,
        "metadata": {
            "name": name_of(job),
            "namespace": namespace_of(job),
            "labels": {key: labels[key] for key in (ID_LABEL, NAME_LABEL) if key in labels},
            "ownerReferences": [{**reference_to(kinds.JOB, job), "blockOwnerDeletion": False}],
        },
        "immutable": True,
        "type": "Opaque",
        "data": {_KEY: base64.b64encode(event).decode()},
    }


def _show_event(container: Object) -> None:
    mounts = container.setdefault("volumeMounts", [])
    mount = next((each for each in mounts if each.get("name") == _VOLUME), None)
    if mount is None:
        mount = {"name": _VOLUME, "mountPath": _MOUNT_PATH, "readOnly": True}
        mounts.append(mount)
    variables = container.setdefault("env", [])
    if not any(each.get("name") == _MODE_VARIABLE for each in variables):
        variables.append({"name": _MODE_VARIABLE, "value": _BATCH})
    variables.append({"name": _PATH_VARIABLE, "value": mount.get("mountPath", _MOUNT_PATH)})

"""A revision's pods: what they look like, how they are doing, and which to make or to end.

Pure. What a pod's container failed with is said once here, for every status that repeats it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from glowplug.spec import kinds, names
from glowplug.spec.revisions import DEFAULT_TIMEOUT_S

from ..metadata import (
    Object,
    at,
    child_name,
    copied,
    is_deleting,
    name_of,
    namespace_of,
    reference_to,
    seconds,
    uid_of,
)
from .labels import child_labels, pod_annotations

IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
# A container that waits for one of these is on its way.
_HARMLESS = ("ContainerCreating", "PodInitializing", "")
# Fields of a RevisionSpec that are Knative's, not a pod's.
_REVISION_FIELDS = (
    "containerConcurrency",
    "timeoutSeconds",
    "responseStartTimeoutSeconds",
    "idleTimeoutSeconds",
    "enableServiceLinks",
)


@dataclass(frozen=True)
class Trouble:
    """Why no pod of a revision is ready. `is_failure`: a container has failed, rather than waits for something."""

    reason: str
    message: str
    is_failure: bool


@dataclass(frozen=True)
class PodPlan:
    """The step from the pods that are there to the scale that is wanted; `due` is when to look again, if at all."""

    create: int = 0
    delete: tuple[str, ...] = ()
    due: float | None = None


def make_pod(revision: Object, token: str, decided_at: float | None = None) -> Object:
    """A pod of `revision`, named as a Deployment's would be; `token` is five random letters or digits.

    `decided_at` is when it was known to be needed, in seconds since the epoch, from where its cold start counts.
    """
    timing = {} if decided_at is None else {names.DECIDED_AT: f"{decided_at:.6f}"}
    spec = {k: v for k, v in copied(revision["spec"]).items() if k not in _REVISION_FIELDS}
    spec["restartPolicy"] = "Always"
    spec["terminationGracePeriodSeconds"] = at(revision, "spec", "timeoutSeconds") or DEFAULT_TIMEOUT_S
    serving = serving_container(spec)
    _resolve_probe_ports(serving)
    digest = hashlib.sha256(uid_of(revision).encode()).hexdigest()[:8]
    return {
        "apiVersion": kinds.POD.api_version,
        "kind": kinds.POD.name,
        "metadata": {
            "name": child_name(child_name(name_of(revision), "-deployment"), f"-{digest}-{token}"),
            "namespace": namespace_of(revision),
            "labels": child_labels(revision),
            "annotations": {
                **pod_annotations(revision),
                **timing,
                "kubectl.kubernetes.io/default-container": str(serving.get("name", "")),
            },
            "ownerReferences": [reference_to(kinds.REVISION, revision)],
        },
        "spec": spec,
    }


def serving_container(pod_spec: Object) -> Object:
    """The container that takes the requests: the one with ports, else the only one, else kserve-container."""
    containers: list[Object] = pod_spec.get("containers") or [{}]
    with_ports = [container for container in containers if container.get("ports")]
    named = [container for container in containers if container.get("name") == names.SERVING_CONTAINER]
    return [*with_ports, *named, containers[0]][0]


def is_h2c(pod_spec: Object) -> bool:
    """Whether the serving container takes HTTP/2 alone: its port is named so."""
    ports = serving_container(pod_spec).get("ports") or [{}]
    return bool(ports[0].get("name") == "h2c")


def is_ready(pod: Object) -> bool:
    """Ready, and not on its way out."""
    if is_deleting(pod):
        return False
    return any(
        c.get("type") == "Ready" and c.get("status") == "True" for c in at(pod, "status", "conditions") or ()
    )


def is_failed(pod: Object) -> bool:
    return bool(at(pod, "status", "phase") == "Failed")


def find_trouble(pods: list[Object]) -> Trouble | None:
    """What keeps the pods from being ready, from the first pod that can tell; a failure before a wait."""
    found = [trouble for pod in sorted(pods, key=name_of) for trouble in _troubles(pod)]
    return next((t for t in found if t.is_failure), None) or next(iter(found), None)


def describe_unready(pods: list[Object]) -> str:
    """What the first pod that is not ready says of it, for revisions whose time is up; may be empty."""
    for pod in sorted(pods, key=name_of):
        for condition in at(pod, "status", "conditions") or ():
            if condition.get("type") == "Ready" and condition.get("status") != "True":
                return str(condition.get("message") or "")
    return ""


def plan_pods(pods: list[Object], desired: int, now: float, backoff_s: float) -> PodPlan:
    """Makes the missing, ends the surplus (not ready ones and the newest first), replaces those that failed.

    A failed pod counts until `backoff_s` after its creation, so that pods that fail at once are not made in a loop.
    """
    live = [pod for pod in pods if not is_deleting(pod)]
    failed = [pod for pod in live if is_failed(pod)]
    replaceable = [pod for pod in failed if _age(pod, now) >= backoff_s]
    resting = [pod for pod in failed if pod not in replaceable]
    working = [pod for pod in live if pod not in failed]
    present = [*sorted(resting, key=_worth), *sorted(working, key=_worth)]
    ended = [*replaceable, *present[: max(0, len(present) - desired)]]
    due = min((now + backoff_s - _age(pod, now) for pod in resting if pod not in ended), default=None)
    return PodPlan(max(0, desired - len(present)), tuple(name_of(pod) for pod in ended), due)


def _worth(pod: Object) -> tuple[bool, float, str]:
    # Ascending: what goes first comes first.
    created = seconds(at(pod, "metadata", "creationTimestamp")) or 0.0
    return (is_ready(pod), -created, name_of(pod))


def _age(pod: Object, now: float) -> float:
    created = seconds(at(pod, "metadata", "creationTimestamp"))
    return float("inf") if created is None else now - created


def _troubles(pod: Object) -> list[Trouble]:
    if is_deleting(pod):
        return []
    statuses = [
        *(at(pod, "status", "initContainerStatuses") or ()),
        *(at(pod, "status", "containerStatuses") or ()),
    ]
    return [trouble for trouble in map(_trouble, statuses) if trouble is not None]


def _trouble(status: Object) -> Trouble | None:
    waiting = at(status, "state", "waiting")
    if waiting and waiting.get("reason") in IMAGE_REASONS:
        message = f'Unable to fetch image "{status.get("image", "")}": {waiting.get("message") or ""}'
        return Trouble("ContainerMissing", message, True)
    for ended in (at(status, "state", "terminated"), at(status, "lastState", "terminated")):
        if ended and not _is_done(status, ended):
            code = ended.get("exitCode", 0)
            said = ended.get("message") or ("container exited with no error" if code == 0 else "")
            return Trouble(f"ExitCode{code}", f"Container failed with: {said}", True)
    if waiting and (waiting.get("reason") or "") not in _HARMLESS:
        return Trouble(waiting["reason"], waiting.get("message") or "", False)
    return None


def _is_done(status: Object, ended: Object) -> bool:
    # An init container that has finished its work, in this run or before a restart of the pod.
    return ended.get("exitCode", 0) == 0 and status.get("name") == names.STORAGE_INITIALIZER


def _resolve_probe_ports(container: Object) -> None:
    ports = container.get("ports") or ()
    port = ports[0].get("containerPort", 8080) if ports else 8080
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        for kind in ("tcpSocket", "httpGet", "grpc"):
            action = at(container, probe, kind)
            if action is not None and not action.get("port"):
                action["port"] = port

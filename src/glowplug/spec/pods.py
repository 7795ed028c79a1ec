"""The rules for the pods of a revision: containers together, volumes, and what a process can't be given.

A field falls in one of three groups. What Knative refuses is refused in Knative's words. What would serve something
else if it were left out (init containers, volumes that this computer does not have) is refused with the reason.
What only places or sizes a pod is let through, and named in a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glowplug.errors import Problem
from glowplug.spec import containers as container_rules
from glowplug.spec.containers import FIELD_REFS, ContainerRules
from glowplug.spec.validation import (
    DNS_1123_LABEL,
    DNS_1123_SUBDOMAIN,
    DUPLICATE,
    INVALID,
    REQUIRED,
    Object,
    as_list,
    as_object,
    as_text,
    disallowed,
    forbidden,
    invalid_value,
    missing,
    out_of_bounds,
    under,
)

DISALLOWED = (
    "activeDeadlineSeconds", "ephemeralContainers", "hostUsers", "hostname", "hostnameOverride", "nodeName", "os",
    "overhead", "preemptionPolicy", "priority", "readinessGates", "resourceClaims", "restartPolicy",
    "schedulingGates", "setHostnameAsFQDN", "subdomain", "terminationGracePeriodSeconds",
)  # fmt: skip
NO_INIT_CONTAINERS = "the local machine runs no init containers; what they prepare would be missing"
_REFUSED = {
    "initContainers": NO_INIT_CONTAINERS,
    "hostAliases": "a process uses this computer's own hosts file",
}
IGNORED = (
    "affinity", "dnsConfig", "dnsPolicy", "hostIPC", "hostNetwork", "hostPID", "imagePullSecrets", "nodeSelector",
    "priorityClassName", "runtimeClassName", "schedulerName", "securityContext", "serviceAccount",
    "serviceAccountName", "shareProcessNamespace", "tolerations", "topologySpreadConstraints",
)  # fmt: skip

_VOLUMES = ("secret", "configMap", "projected", "emptyDir", "persistentVolumeClaim")
_PROJECTIONS = ("secret", "configMap", "downwardAPI")


def validate(pod: Object, *, is_kserve: bool = False, is_complete: bool = True) -> Iterator[Problem]:
    """Every problem of a pod's spec, fields relative to it.

    `is_complete` is false where a serving runtime is merged in later: then volumes may be mounted, and containers be
    filled in, by what is not known yet.
    """
    for field in DISALLOWED:
        if pod.get(field) not in (None, [], {}, ""):
            yield disallowed(field)
    for field, why in _REFUSED.items():
        if pod.get(field):
            yield forbidden(field, why)
    if pod.get("automountServiceAccountToken") is True:
        yield disallowed("automountServiceAccountToken", "only false is allowed")
    account = as_text(pod.get("serviceAccountName"))
    if account and (faults := DNS_1123_SUBDOMAIN.faults(account)):
        yield invalid_value("serviceAccountName", account, "; ".join(faults))
    items = as_list(pod.get("containers"))
    volumes = as_list(pod.get("volumes"))
    yield from _volumes(volumes, items if is_complete else None)
    yield from _containers(items, volumes, is_kserve=is_kserve, is_complete=is_complete)


def ignored(pod: Object) -> list[str]:
    """The fields that are written and that only place or size the pod, as paths relative to it."""
    fields = [field for field in IGNORED if pod.get(field) not in (None, False, [], {}, "")]
    for index, item in enumerate(as_list(pod.get("containers"))):
        fields += [f"containers[{index}].{field}" for field in ignored_of_container(as_object(item))]
    return fields


def ignored_of_container(container: Object) -> list[str]:
    """The same for one container."""
    return [field for field in container_rules.IGNORED if _is_written(container.get(field))]


def _is_written(value: object) -> bool:
    """Whether anything is in there: defaulting writes `resources: {}`, and nobody wrote that."""
    if isinstance(value, dict):
        return any(_is_written(item) for item in value.values())
    return value is not None


def _containers(
    items: list[Any], volumes: list[Any], *, is_kserve: bool, is_complete: bool
) -> Iterator[Problem]:
    known = {as_text(as_object(volume).get("name")): as_object(volume) for volume in volumes}
    yield from container_rules.duplicate_names(items)
    if is_complete:
        if not items:
            yield missing("containers")
        elif len(items) > 1 and not any(as_list(as_object(item).get("ports")) for item in items):
            yield missing("containers[*].ports")
    if sum(len(as_list(as_object(item).get("ports"))) for item in items) > 1:
        yield Problem(
            "containers[*].ports",
            "more than one container port is set: Only a single port is allowed across all containers",
            INVALID,
        )
    for index, item in enumerate(items):
        container = as_object(item)
        rules = ContainerRules(
            needs_image=is_complete,
            is_kserve=is_kserve,
            is_serving=len(items) == 1 or bool(as_list(container.get("ports"))),
            volumes=known if is_complete else None,
        )
        yield from under(f"containers[{index}]", container_rules.validate(container, rules))


def _volumes(volumes: list[Any], containers: list[Any] | None) -> Iterator[Problem]:
    mounted = {
        as_text(as_object(mount).get("name"))
        for container in containers or ()
        for mount in as_list(as_object(container).get("volumeMounts"))
    }
    seen: set[str] = set()
    for index, item in enumerate(volumes):
        volume, path = as_object(item), f"volumes[{index}]"
        name = as_text(volume.get("name"))
        if not name:
            yield missing(f"{path}.name")
        elif DNS_1123_LABEL.faults(name):
            yield invalid_value(f"{path}.name", name)
        elif name in seen:
            yield Problem(f"{path}.name", f'duplicate volume name "{name}"', DUPLICATE)
        elif containers is not None and name not in mounted:
            yield Problem(f"{path}.name", f'volume with name "{name}" not mounted', INVALID)
        seen.add(name)
        yield from under(path, _volume_source(volume))


def _volume_source(volume: Object) -> Iterator[Problem]:
    sources = [field for field in volume if field != "name" and volume[field] is not None]
    for field in sources:
        if field not in _VOLUMES:
            supported = ", ".join(_VOLUMES)
            yield forbidden(field, f"the local machine has volumes of these kinds: {supported}")
    if not sources:
        yield Problem("", f"expected exactly one, got neither: {', '.join(_VOLUMES)}", REQUIRED)
    elif len(sources) > 1:
        yield Problem("", f"expected exactly one, got both: {', '.join(sources)}", INVALID)
    for field in ("secret", "configMap"):
        yield from under(field, _items(as_object(volume.get(field))))
    claim = volume.get("persistentVolumeClaim")
    if isinstance(claim, dict) and not as_text(claim.get("claimName")):
        yield missing("persistentVolumeClaim.claimName")
    medium = as_text(as_object(volume.get("emptyDir")).get("medium"))
    if medium not in ("", "Memory"):
        yield invalid_value("emptyDir.medium", medium)
    for index, item in enumerate(as_list(as_object(volume.get("projected")).get("sources"))):
        yield from under(f"projected.sources[{index}]", _projection(as_object(item)))


def _projection(source: Object) -> Iterator[Problem]:
    fields = [field for field in source if source[field] is not None]
    for field in fields:
        if field not in _PROJECTIONS:
            yield forbidden(field, f"the local machine projects these: {', '.join(_PROJECTIONS)}")
        elif field == "downwardAPI":
            yield from under(field, _downward_items(as_object(source[field])))
        else:
            if not as_text(as_object(source[field]).get("name")):
                yield missing(f"{field}.name")
            yield from under(field, _items(as_object(source[field])))
    if not fields:
        yield Problem("", f"expected exactly one, got neither: {', '.join(_PROJECTIONS)}", REQUIRED)
    elif len(fields) > 1:
        yield Problem("", f"expected exactly one, got both: {', '.join(fields)}", INVALID)


def _downward_items(source: Object) -> Iterator[Problem]:
    for index, item in enumerate(as_list(source.get("items"))):
        entry, path = as_object(item), f"items[{index}]"
        yield from under(path, _target(as_text(entry.get("path"))))
        field_path = as_text(as_object(entry.get("fieldRef")).get("fieldPath"))
        known = FIELD_REFS.fullmatch(field_path) or field_path in ("metadata.labels", "metadata.annotations")
        if not known:
            yield invalid_value(f"{path}.fieldRef.fieldPath", field_path)


def _items(source: Object) -> Iterator[Problem]:
    for index, item in enumerate(as_list(source.get("items"))):
        entry, path = as_object(item), f"items[{index}]"
        if not as_text(entry.get("key")):
            yield missing(f"{path}.key")
        yield from under(path, _target(as_text(entry.get("path"))))


def _target(target: str) -> Iterator[Problem]:
    """The path of a file within a volume."""
    if not target:
        yield missing("path")
    elif target.startswith("/") or ".." in target.split("/"):
        yield invalid_value("path", target, "must be a relative path without '..'")


def timeout(value: object, field: str, maximum_s: int = 600) -> Iterator[Problem]:
    """A request's time limit, in seconds; Knative's maximum is 600."""
    if isinstance(value, int) and not 0 <= value <= maximum_s:
        yield out_of_bounds(field, value, 0, maximum_s)


def concurrency(value: object, field: str, maximum: int = 1000) -> Iterator[Problem]:
    """Requests at a time in one pod; Knative's maximum is 1000, and 0 is no limit."""
    if isinstance(value, int) and not 0 <= value <= maximum:
        yield out_of_bounds(field, value, 0, maximum)

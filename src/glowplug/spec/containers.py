"""The rules for one container: image, environment, ports, probes, mounts. They are Kubernetes' and Knative's.

Source: knative.dev/serving pkg/apis/serving/k8s_validation.go and fieldmask.go. Fields of a problem are relative to
the container.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from glowplug.errors import Problem
from glowplug.spec import names, quantities
from glowplug.spec.validation import (
    DNS_1123_LABEL,
    INVALID,
    Object,
    as_int,
    as_list,
    as_object,
    as_text,
    disallowed,
    forbidden,
    invalid,
    invalid_value,
    missing,
    out_of_bounds,
    required,
    under,
)

DISALLOWED = (
    "lifecycle", "resizePolicy", "restartPolicy", "restartPolicyRules", "stdin", "stdinOnce", "tty", "volumeDevices",
)  # fmt: skip
# What places or sizes a container, which a process on this computer has no use for.
IGNORED = ("resources", "securityContext")

_MAX_INT32 = 2**31 - 1
_RESERVED_NAMES = ("queue-proxy",)
_RESERVED_ENV = frozenset({"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"})
_BLOCKED_ENV = frozenset({"PYTHONPATH"})
# Ports of Knative's queue-proxy: 8012 and 8013 serve, 8022 administers, 9090 and 9091 and 8008 report.
_RESERVED_PORTS = frozenset({8008, 8012, 8013, 8022, 9090, 9091})
_PORT_NAMES = ("", "h2c", "http1")
_RESERVED_PATHS = ("/", "/dev", "/dev/log")
_HANDLERS = ("httpGet", "tcpSocket", "exec", "grpc")
_ENV_NAME = re.compile(r"[ -<>-~]+", re.ASCII)
_IMAGE = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]+)?(/[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?",
    re.ASCII,
)
# What the downward API knows of a pod here.
FIELD_REFS = re.compile(
    r"metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])|spec\.(nodeName|serviceAccountName)"
    r"|status\.(podIPs?|hostIPs?)",
    re.ASCII,
)


@dataclass(frozen=True)
class ContainerRules:
    """What a container's surroundings make of the rules.

    `needs_image` is false where a runtime fills it in, `is_kserve` adds KServe's rules, `volumes` are the known
    volumes by name, or None where a runtime may bring more.
    """

    needs_image: bool = True
    is_kserve: bool = False
    is_serving: bool = True
    volumes: dict[str, Object] | None = None


def validate(container: Object, rules: ContainerRules) -> Iterator[Problem]:
    """Every problem of a container."""
    for field in DISALLOWED:
        if container.get(field) not in (None, False, [], {}, ""):
            yield disallowed(field)
    name = as_text(container.get("name"))
    if name:
        yield from (invalid("name", name, fault) for fault in DNS_1123_LABEL.faults(name))
    if name in _RESERVED_NAMES:
        yield Problem("name", f'"{name}" is a reserved container name', INVALID)
    yield from _image(container, rules)
    yield from _env(container, rules)
    yield from _env_from(container)
    yield from _ports(as_list(container.get("ports")))
    yield from resources(as_object(container.get("resources")))
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(container.get(field), dict):
            is_readiness = field == "readinessProbe"
            problems = _probe(container[field], is_readiness=is_readiness, is_kserve=rules.is_kserve)
            yield from under(field, problems)
    yield from _mounts(as_list(container.get("volumeMounts")), rules.volumes)


def _image(container: Object, rules: ContainerRules) -> Iterator[Problem]:
    image = as_text(container.get("image"))
    if not image:
        if rules.needs_image:
            yield missing("image")
    elif not _IMAGE.fullmatch(image):
        yield Problem("image", f'Failed to parse image reference: image: "{image}"', INVALID)


def _env(container: Object, rules: ContainerRules) -> Iterator[Problem]:
    reserved = _RESERVED_ENV if rules.is_serving else _RESERVED_ENV - {"PORT"}
    for index, item in enumerate(as_list(container.get("env"))):
        env, path = as_object(item), f"env[{index}]"
        name = as_text(env.get("name"))
        if not name:
            yield missing(f"{path}.name")
        elif name in reserved:
            yield Problem(f"{path}.name", f'"{name}" is a reserved environment variable', INVALID)
        elif rules.is_kserve and name in _BLOCKED_ENV:
            where = as_text(container.get("name")) or names.SERVING_CONTAINER
            yield forbidden(
                f"{path}.name", f'setting {name} in container "{where}" is not allowed for security reasons'
            )
        elif not _ENV_NAME.fullmatch(name):
            yield invalid(
                f"{path}.name", name, "a name consists of printable ASCII characters other than '='"
            )
        if isinstance(env.get("valueFrom"), dict):
            if as_text(env.get("value")):
                yield invalid(f"{path}.valueFrom", "", "may not be specified when `value` is not empty")
            yield from under(f"{path}.valueFrom", _value_from(env["valueFrom"]))


def _value_from(source: Object) -> Iterator[Problem]:
    supported = ("configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef")
    found = [field for field in supported if isinstance(source.get(field), dict)]
    others = [field for field in source if field not in supported and source[field] is not None]
    for field in others:
        yield forbidden(field, "the local machine has no value for it; write the value, or use a ConfigMap")
    if len(found) > 1:
        yield _several(found)
    elif not found and not others:
        yield _none_of(supported)
    for field in ("configMapKeyRef", "secretKeyRef"):
        reference = as_object(source.get(field))
        for part in ("name", "key"):
            if field in found and not as_text(reference.get(part)):
                yield missing(f"{field}.{part}")
    reference = as_object(source.get("fieldRef"))
    path = as_text(reference.get("fieldPath"))
    if "fieldRef" in found and not FIELD_REFS.fullmatch(path):
        yield invalid(
            "fieldRef.fieldPath", path, "metadata.name, metadata.namespace, metadata.labels['…'] and the like"
        )


def _env_from(container: Object) -> Iterator[Problem]:
    for index, item in enumerate(as_list(container.get("envFrom"))):
        source, path = as_object(item), f"envFrom[{index}]"
        found = [field for field in ("configMapRef", "secretRef") if isinstance(source.get(field), dict)]
        if not found:
            yield from under(path, [_none_of(("configMapRef", "secretRef"))])
        elif len(found) > 1:
            yield from under(path, [_several(found)])
        for field in found:
            if not as_text(source[field].get("name")):
                yield missing(f"{path}.{field}.name")


def _ports(ports: list[Any]) -> Iterator[Problem]:
    for index, item in enumerate(ports):
        port, path = as_object(item), f"ports[{index}]"
        number = as_int(port.get("containerPort"))
        if number is not None and number in _RESERVED_PORTS:
            yield invalid_value(
                f"{path}.containerPort", f"{number} is a reserved port", "please use a different value"
            )
        elif number is not None and not 0 <= number <= 65535:
            yield out_of_bounds(f"{path}.containerPort", number, 0, 65535)
        name = as_text(port.get("name"))
        if name not in _PORT_NAMES:
            yield Problem(
                f"{path}.name",
                f"Port name {name} is not allowed: Name must be empty, or one of: 'h2c', 'http1'",
            )
        if as_text(port.get("protocol")) not in ("", "TCP"):
            yield invalid_value(f"{path}.protocol", port["protocol"])
        for field in ("hostIP", "hostPort"):
            if port.get(field):
                yield disallowed(f"{path}.{field}")


def resources(requirements: Object) -> Iterator[Problem]:
    """Amounts must not be negative, and a request not above its limit. Their syntax is the schema's business."""
    limits = as_object(requirements.get("limits"))
    requests = as_object(requirements.get("requests"))
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            value = quantities.parse(amount)
            if value is not None and value < 0:
                yield invalid(f"resources.{field}[{name}]", amount, "must be greater than or equal to 0")
    for name, amount in requests.items():
        value, limit = quantities.parse(amount), quantities.parse(limits.get(name))
        if value is not None and limit is not None and value > limit:
            yield invalid(
                f"resources.requests[{name}]",
                amount,
                f"must be less than or equal to {name} limit of {limits[name]}",
            )


def _probe(probe: Object, *, is_readiness: bool, is_kserve: bool) -> Iterator[Problem]:
    handlers = [handler for handler in _HANDLERS if isinstance(probe.get(handler), dict)]
    if not handlers and not is_readiness:
        # A readiness probe without a handler is Knative's default, a TCP probe.
        yield _none_of(_HANDLERS)
    elif len(handlers) > 1:
        yield _several(handlers)
    for handler in handlers:
        number = as_int(probe[handler].get("port"))
        if is_kserve and handler != "exec" and probe[handler].get("port") is None:
            # Knative asks the container's own port then; KServe's definition of an InferenceService wants it written.
            yield required(f"{handler}.port")
        if number is not None and not 0 <= number <= 65535:
            yield out_of_bounds(f"{handler}.port", number, 0, 65535)
        if handler == "exec" and not as_list(probe[handler].get("command")):
            yield missing("exec.command")
    for field in (
        "initialDelaySeconds",
        "periodSeconds",
        "timeoutSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        number = as_int(probe.get(field))
        if number is not None and not 0 <= number <= _MAX_INT32:
            yield out_of_bounds(field, number, 0, _MAX_INT32)
    # A period of zero is Knative's own, aggressive probing.
    if is_readiness and as_int(probe.get("periodSeconds")) == 0:
        for field in ("failureThreshold", "timeoutSeconds"):
            if as_int(probe.get(field)):
                yield Problem(field, f"{field} is disallowed when periodSeconds is zero", INVALID)


def _mounts(mounts: list[Any], volumes: dict[str, Object] | None) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, item in enumerate(mounts):
        mount, path = as_object(item), f"volumeMounts[{index}]"
        name = as_text(mount.get("name"))
        if volumes is not None and name not in volumes:
            yield Problem(f"{path}.name", "volumeMount has no matching volume", INVALID)
        yield from under(path, _mount_path(as_text(mount.get("mountPath")), seen))
        for field in ("mountPropagation", "recursiveReadOnly", "subPathExpr"):
            if mount.get(field):
                yield disallowed(f"{path}.{field}")


def _mount_path(mount_path: str, seen: set[str]) -> Iterator[Problem]:
    if not mount_path:
        yield missing("mountPath")
        return
    clean = posixpath.normpath(mount_path)
    if clean in _RESERVED_PATHS:
        yield Problem("mountPath", f'mountPath "{clean}" is a reserved path', INVALID)
    elif not clean.startswith("/"):
        yield invalid_value("mountPath", mount_path)
    elif clean in seen:
        yield invalid_value("mountPath", f'"{mount_path}" must be unique')
    seen.add(clean)


def duplicate_names(containers: list[Any], path: str = "containers") -> Iterator[Problem]:
    """Names that two containers share."""
    seen: set[str] = set()
    for index, item in enumerate(containers):
        name = as_text(as_object(item).get("name"))
        if name and name in seen:
            yield Problem(
                f"{path}[{index}].name", f'duplicate container name "{name}"', "FieldValueDuplicate"
            )
        seen.add(name)


def _none_of(fields: Collection[str]) -> Problem:
    return Problem("", f"expected exactly one, got neither: {', '.join(fields)}", "FieldValueRequired")


def _several(fields: Collection[str]) -> Problem:
    return Problem("", f"expected exactly one, got both: {', '.join(fields)}", INVALID)

"""The core kinds that users write beside their services: ConfigMap, Secret, Namespace, Pod, and names in general.

The rules are Kubernetes' (pkg/apis/core/validation), for the fields that this machine reads.
"""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Iterable, Iterator

from glowplug.errors import Problem
from glowplug.spec import autoscaling_config, pods
from glowplug.spec.validation import (
    DNS_1123_LABEL,
    DNS_1123_SUBDOMAIN,
    INVALID,
    Object,
    as_list,
    as_object,
    as_text,
    forbidden,
    invalid,
    metadata,
    required,
    under,
)

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}", re.ASCII)
_MAX_DATA = 1024 * 1024
_DEFAULT_SECRET_TYPE = "Opaque"


def default_secret(obj: Object) -> Object:
    """A Secret whose `stringData` is moved into `data`, and which has a type."""
    obj = copy.deepcopy(obj)
    texts = obj.pop("stringData", None)
    if isinstance(texts, dict):
        data = obj.get("data")
        if not isinstance(data, dict):
            data = obj["data"] = {}
        for key, value in texts.items():
            if isinstance(value, str):
                data[key] = base64.b64encode(value.encode("utf-8", "replace")).decode("ascii")
    obj.setdefault("type", _DEFAULT_SECRET_TYPE)
    return obj


def default_namespace(obj: Object) -> Object:
    """A Namespace with the label that selectors find it by."""
    obj = copy.deepcopy(obj)
    meta = obj.get("metadata")
    name = as_text(metadata(obj).get("name"))
    if isinstance(meta, dict) and name and isinstance(meta.setdefault("labels", {}), dict):
        meta["labels"]["kubernetes.io/metadata.name"] = name
    return obj


def validate_named(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """The name alone: a DNS subdomain."""
    del old
    return tuple(_name(obj))


def validate_namespace(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """A Namespace's name is a DNS label."""
    del old
    name = as_text(metadata(obj).get("name"))
    return tuple(
        invalid("metadata.name", name, fault) for fault in (DNS_1123_LABEL.faults(name) if name else ())
    )


def validate_config_map(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Keys, overlap of `data` and `binaryData`, size, and immutability."""
    data, binary = as_object(obj.get("data")), as_object(obj.get("binaryData"))
    problems = [*_name(obj), *_keys(data, "data"), *_keys(binary, "binaryData")]
    problems += (
        Problem(
            f"data[{key}]", f"Invalid value: {key[:80]!r}: duplicate of key present in binaryData", INVALID
        )
        for key in data
        if key in binary
    )
    problems += _size([*data.values(), *binary.values()])
    problems += _immutable(obj, old, ("data", "binaryData", "immutable"))
    meta = metadata(obj)
    if (meta.get("namespace"), meta.get("name")) == (
        autoscaling_config.NAMESPACE,
        autoscaling_config.CONFIG_MAP,
    ):
        texts = {key: value for key, value in data.items() if isinstance(value, str)}
        problems += (Problem("data", problem, INVALID) for problem in autoscaling_config.read(texts)[1])
    return tuple(problems)


def validate_secret(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Keys, size, the type that never changes, and immutability."""
    data = as_object(obj.get("data"))
    problems = [*_name(obj), *_keys(data, "data"), *_size(data.values())]
    problems += _immutable(obj, old, ("data", "immutable"))
    if old is not None and obj.get("type") != old.get("type"):
        problems.append(invalid("type", obj.get("type"), "field is immutable"))
    return tuple(problems)


def validate_pod(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """A pod that a user writes: it must have containers, and its spec stays as it was created but for images."""
    spec = as_object(obj.get("spec"))
    problems = list(_name(obj))
    if old is None:
        problems += under("spec", _pod_spec(spec))
    elif _fixed(spec) != _fixed(as_object(old.get("spec"))):
        allowed = "`spec.containers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations`"
        problems.append(forbidden("spec", f"pod updates may not change fields other than {allowed}"))
    return tuple(problems)


def _pod_spec(spec: Object) -> Iterator[Problem]:
    containers = [as_object(item) for item in as_list(spec.get("containers"))]
    if not containers:
        yield required("containers")
    for index, container in enumerate(containers):
        if not as_text(container.get("name")):
            yield required(f"containers[{index}].name")
    if spec.get("initContainers"):
        yield forbidden("initContainers", pods.NO_INIT_CONTAINERS)


def _fixed(spec: Object) -> Object:
    """The part of a pod's spec that an update must repeat."""
    changing = ("containers", "activeDeadlineSeconds", "tolerations")
    fixed = {key: value for key, value in spec.items() if key not in changing}
    fixed["containers"] = [
        {key: value for key, value in as_object(item).items() if key != "image"}
        for item in as_list(spec.get("containers"))
    ]
    return fixed


def _name(obj: Object) -> Iterator[Problem]:
    name = as_text(metadata(obj).get("name"))
    if name:
        yield from (invalid("metadata.name", name, fault) for fault in DNS_1123_SUBDOMAIN.faults(name))


def _keys(data: Object, field: str) -> Iterator[Problem]:
    for key in data:
        if not _KEY.fullmatch(key) or key in (".", ".."):
            why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name')"
            yield invalid(f"{field}[{key[:80]}]", key, why)


def _size(values: Iterable[object]) -> Iterator[Problem]:
    if sum(len(as_text(value)) for value in values) > _MAX_DATA:
        yield Problem("data", f"Too long: may not be more than {_MAX_DATA} bytes", "FieldValueTooLong")


def _immutable(obj: Object, old: Object | None, fields: tuple[str, ...]) -> Iterator[Problem]:
    if old is None or old.get("immutable") is not True:
        return
    for field in fields:
        if obj.get(field) != old.get(field):
            yield forbidden(field, "field is immutable when `immutable` is set")

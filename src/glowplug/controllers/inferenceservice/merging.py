"""Merging a runtime's containers and pod fields with those of an InferenceService. Pure.

The rules are Kubernetes' strategic merge: maps merge, the lists below merge by their key, all other lists are
replaced. Arguments are the exception, where the InferenceService's follow the runtime's (KServe's
MergeRuntimeContainers).
"""

from __future__ import annotations

import re
from typing import Any

from glowplug.spec import names

from ..metadata import Object, annotations_of, at, copied, labels_of, name_of, namespace_of, uid_of

# Lists that merge item by item, and the fields that identify an item.
_CONTAINER_LISTS = {
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
}
_POD_LISTS = {"volumes": "name", "imagePullSecrets": "name", "hostAliases": "ip", "resourceClaims": "name"}

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FIELD = re.compile(r"\.(Name|Namespace|UID|Labels|Annotations)(?:\.([A-Za-z_]\w*))?")
_INDEX = re.compile(r'index\s+\.(Labels|Annotations)\s+"([^"]+)"')
_TAG = re.compile(r":[\w.\-]*$")


class PlaceholderError(ValueError):
    """A placeholder that means nothing."""


def merge_container(runtime: Object, own: Object) -> Object:
    """The runtime's container with the settings of the InferenceService's container over it."""
    merged = _merge(runtime, own, _CONTAINER_LISTS)
    merged["args"] = [*(runtime.get("args") or ()), *(own.get("args") or ())]
    if not merged["args"]:
        del merged["args"]
    merged["name"] = own.get("name") or runtime.get("name") or names.SERVING_CONTAINER
    overlay = {entry.get("name"): entry for entry in own.get("env") or ()}
    for entry in merged.get("env") or ():
        wanted = overlay.get(entry.get("name"), {})
        # A value and a source exclude each other: the one that the InferenceService gave stays.
        for given, other in (("valueFrom", "value"), ("value", "valueFrom")):
            if wanted.get(given) and wanted.get(other) is None:
                entry.pop(other, None)
    return merged


def merge_pod_fields(runtime: Object, own: Object) -> Object:
    """Pod fields (volumes, serviceAccountName, ...) of both; containers are not among them."""
    return _merge(runtime, own, _POD_LISTS)


def replace_placeholders(container: Object, isvc: Object) -> Object:
    """A copy with `{{.Name}}`, `{{.Namespace}}`, `{{.Labels.x}}`, `{{.Annotations.x}}` and `{{index .Labels "x"}}`
    replaced in every string, as Go's templates do: what is absent becomes empty. Raises PlaceholderError."""
    replaced: Object = _replace(container, isvc)
    return replaced


def with_image_tag(container: Object, version: str | None) -> Object:
    """The container with `runtimeVersion` as its image's tag; an image with a digest stays as it is."""
    image = container.get("image") or ""
    if not version or not image or "@sha256:" in image:
        return container
    head, _, last = image.rpartition("/")
    tagged = f"{_TAG.sub('', last)}:{version}"
    return {**container, "image": f"{head}/{tagged}" if head else tagged}


def with_env(container: Object, name: str, value: str) -> Object:
    """The container with that environment variable set; its place is kept if it was there."""
    env = [dict(entry) for entry in container.get("env") or ()]
    for entry in env:
        if entry.get("name") == name:
            entry["value"] = value
            break
    else:
        env.append({"name": name, "value": value})
    return {**container, "env": env}


def _merge(base: Object, over: Object, lists: dict[str, str]) -> Object:
    merged = copied(base)
    for key, value in over.items():
        if value is None:
            continue
        present = merged.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            merged[key] = _merge(present, value, {})
        elif key in lists and isinstance(present, list):
            merged[key] = _merge_items(present, value, lists[key])
        else:
            merged[key] = copied(value)
    return merged


def _merge_items(base: list[Object], over: list[Object], key: str) -> list[Object]:
    merged = copied(base)
    places = {item.get(key): place for place, item in enumerate(merged)}
    for item in over:
        place = places.get(item.get(key))
        if place is None:
            merged.append(copied(item))
        elif key == "name" and "mountPath" not in item and _is_volume(item):
            # retainKeys: a volume has one source.
            merged[place] = copied(item)
        else:
            merged[place] = _merge(merged[place], item, {})
    return merged


def _is_volume(item: Object) -> bool:
    return any(isinstance(value, dict) for field, value in item.items() if field != "valueFrom")


def _replace(value: Any, isvc: Object) -> Any:
    if isinstance(value, str):
        return _ACTION.sub(lambda match: _evaluate(match.group(1), isvc), value) if "{{" in value else value
    if isinstance(value, list):
        return [_replace(item, isvc) for item in value]
    if isinstance(value, dict):
        return {key: _replace(item, isvc) for key, item in value.items()}
    return value


def _evaluate(action: str, isvc: Object) -> str:
    plain = {"Name": name_of(isvc), "Namespace": namespace_of(isvc), "UID": uid_of(isvc)}
    maps = {"Labels": labels_of(isvc), "Annotations": annotations_of(isvc)}
    field = _FIELD.fullmatch(action)
    if field and (field.group(1) in plain) == (field.group(2) is None):
        return plain.get(field.group(1)) or maps.get(field.group(1), {}).get(field.group(2) or "", "")
    index = _INDEX.fullmatch(action)
    if index:
        return maps[index.group(1)].get(index.group(2), "")
    raise PlaceholderError(
        f"{{{{{action}}}}} is no placeholder; known are .Name, .Namespace, .Labels.<key> and .Annotations.<key>"
    )


def container_named(containers: Any, name: str) -> Object | None:
    """The container with that name, or None."""
    return next((container for container in containers or () if at(container, "name") == name), None)

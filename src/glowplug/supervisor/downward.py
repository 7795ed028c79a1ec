"""The downward API: what a pod may be told about itself, and Kubernetes' quantities."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9, "T": Decimal(10) ** 12,
    "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30, "Ti": Decimal(2) ** 40,
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)")


def field(pod: Mapping[str, Any], path: str) -> str | None:
    """The value of a `fieldRef`, or None if there is no such field to refer to."""
    metadata = pod["metadata"]
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        return str((metadata.get(subscript.group(1)) or {}).get(subscript.group(2), ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = metadata.get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": "localhost",
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": "127.0.0.1",
        "status.podIPs": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
        "status.hostIPs": "127.0.0.1",
    }
    return values.get(path)


def resource(pod: Mapping[str, Any], container: Mapping[str, Any], ref: Mapping[str, Any]) -> str | None:
    """The value of a `resourceFieldRef`, rounded up in units of its divisor; None if nothing is set."""
    named = ref.get("containerName")
    if named:
        container = next((each for each in pod["spec"]["containers"] if each["name"] == named), container)
    section, _, name = str(ref.get("resource", "")).partition(".")
    amount = quantity(((container.get("resources") or {}).get(section) or {}).get(name))
    divisor = quantity(ref.get("divisor")) or Decimal(1)
    return None if amount is None else str(math.ceil(amount / divisor))


def quantity(text: Any) -> Decimal | None:
    """A Kubernetes quantity (`500m`, `2`, `1Gi`) as a number, or None if it is absent or not one."""
    match = _QUANTITY.fullmatch(str(text).strip()) if text is not None else None
    if match is None or match.group(2) not in _SUFFIXES:
        return None
    try:
        return Decimal(match.group(1)) * _SUFFIXES[match.group(2)]
    except InvalidOperation:
        return None

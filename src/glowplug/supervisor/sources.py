"""ConfigMaps and Secrets as a pod reads them, with Kubernetes' wording for what is missing.

A missing thing is collected, not raised, so that a pod learns of all of them at once.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from glowplug.spec.kinds import CONFIG_MAP, SECRET, Kind

# (kind, namespace, name) -> the object, or None.
Lookup = Callable[[Kind, str, str], "Mapping[str, Any] | None"]


class Sources:
    """What one pod may read: the ConfigMaps and Secrets of its namespace. `missing` fills as things are not found."""

    def __init__(self, lookup: Lookup, namespace: str) -> None:
        self._lookup = lookup
        self.namespace = namespace
        self.missing: list[str] = []

    def whole(self, kind: Kind, name: str, is_optional: bool) -> dict[str, bytes]:
        """Every key of the object; empty, and noted as missing unless optional, where it does not exist."""
        found = self._lookup(kind, self.namespace, name)
        if found is None:
            if not is_optional:
                self.missing.append(f'{kind.singular} "{name}" not found')
            return {}
        return _values(kind, found)

    def one(self, kind: Kind, name: str, key: str, is_optional: bool) -> bytes | None:
        """One key, or None where it, or the object, is not there."""
        before = len(self.missing)
        values = self.whole(kind, name, is_optional)
        if key not in values and not is_optional and len(self.missing) == before:
            self.missing.append(f"couldn't find key {key} in {kind.name} {self.namespace}/{name}")
        return values.get(key)


def _values(kind: Kind, found: Mapping[str, Any]) -> dict[str, bytes]:
    if kind is SECRET:
        values = {key: _decoded(value) for key, value in (found.get("data") or {}).items()}
        values.update({key: text.encode() for key, text in (found.get("stringData") or {}).items()})
        return values
    values = {key: text.encode() for key, text in (found.get("data") or {}).items()}
    values.update({key: _decoded(value) for key, value in (found.get("binaryData") or {}).items()})
    return values


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return value.encode()


def reference(entry: Mapping[str, Any]) -> tuple[Kind, Mapping[str, Any]] | None:
    """The ConfigMap or Secret that an `envFrom` entry, a `valueFrom` or a projected source names."""
    for key, kind in _REFERENCES.items():
        if entry.get(key) is not None:
            return kind, entry[key]
    return None


_REFERENCES = {
    "configMapRef": CONFIG_MAP,
    "configMapKeyRef": CONFIG_MAP,
    "configMap": CONFIG_MAP,
    "secretRef": SECRET,
    "secretKeyRef": SECRET,
    "secret": SECRET,
}

"""CustomResourceDefinitions of the KServe and Knative kinds, for clients that look for them before they watch.

They are derived and can't be changed. Their schemas are open: the full ones are in OpenAPI, where clients look.
"""

from __future__ import annotations

from typing import Any

from glowplug.spec.kinds import Kind

Object = dict[str, Any]

_KUBERNETES_GROUPS = frozenset(
    {"", "admissionregistration.k8s.io", "apiextensions.k8s.io", "batch", "coordination.k8s.io"}
)
_ESTABLISHED_AT = "2026-01-01T00:00:00Z"  # they were always there


def is_custom(kind: Kind) -> bool:
    """Whether a cluster has the kind only by a CustomResourceDefinition."""
    return kind.group not in _KUBERNETES_GROUPS


def definition(kind: Kind) -> Object:
    """The CustomResourceDefinition of a custom kind."""
    names = {
        "plural": kind.plural,
        "singular": kind.singular,
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
        **({"categories": list(kind.categories)} if kind.categories else {}),
    }
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _open_schema(kind)},
        **({"subresources": {"status": {}}} if kind.has_status else {}),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.resource},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.is_namespaced else "Cluster",
            "versions": [version],
            "conversion": {"strategy": "None"},
        },
        "status": {
            "acceptedNames": names,
            "storedVersions": [kind.version],
            "conditions": [
                _condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                _condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
        },
    }


def _open_schema(kind: Kind) -> Object:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties: Object = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": dict(anything),
    }
    if kind.has_status:
        properties["status"] = dict(anything)
    return {"type": "object", "properties": properties}


def _condition(name: str, reason: str, message: str) -> Object:
    return {
        "type": name,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": _ESTABLISHED_AT,
    }

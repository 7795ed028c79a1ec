"""Paths of the API: what a URL asks for.

`/api/v1/...` are the core kinds, `/apis/<group>/<version>/...` the others; then
`[namespaces/<namespace>/]<plural>[/<name>[/<subresource>]]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from glowplug.errors import NotFound
from glowplug.spec.kinds import KINDS, NAMESPACE, POD, Kind, by_resource

NO_RESOURCE = "the server could not find the requested resource"


@dataclass(frozen=True)
class Target:
    """A kind's collection (`name` is empty), an object, or its subresource; `namespace` "" is all or none."""

    kind: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def details(self) -> dict[str, str]:
        """What a Status says of its subject; empty values left out."""
        found = {"name": self.name, "group": self.kind.group, "kind": self.kind.plural}
        return {key: value for key, value in found.items() if value}


def split(raw_path: str) -> tuple[str, ...]:
    """The segments of a path, each decoded after the split: a `%2F` is part of a name."""
    return tuple(unquote(segment) for segment in raw_path.split("/") if segment)


def resource(segments: tuple[str, ...]) -> Target:
    """The target of `/api/v1/...` or `/apis/<group>/<version>/...`. Raises NotFound."""
    if segments[0] == "api" and len(segments) >= 3:
        group, version, rest = "", segments[1], segments[2:]
    elif segments[0] == "apis" and len(segments) >= 4:
        group, version, rest = segments[1], segments[2], segments[3:]
    else:
        raise NotFound(NO_RESOURCE)
    target = _target(group, version, rest)
    if target is None:
        raise NotFound(NO_RESOURCE, hint=f"{'/'.join(segments)} is not served; {_served(group, version)}")
    return target


def _target(group: str, version: str, rest: tuple[str, ...]) -> Target | None:
    # /namespaces/<name>[/status] is an object; /namespaces/<name>/<plural> is inside it.
    if rest[0] == NAMESPACE.plural and len(rest) >= 3 and not (group == "" and rest[2] == "status"):
        namespace, rest = rest[1], rest[2:]
    else:
        namespace = ""
    kind = by_resource(group, version, rest[0])
    if kind is None or len(rest) > 3:
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if namespace and not kind.is_namespaced:
        return None
    if name and not namespace and kind.is_namespaced:
        return None
    if subresource and not _has_subresource(kind, subresource):
        return None
    return Target(kind, namespace, name, subresource)


def _has_subresource(kind: Kind, subresource: str) -> bool:
    return (subresource == "status" and kind.has_status) or (subresource == "log" and kind is POD)


def _served(group: str, version: str) -> str:
    plurals = sorted(kind.plural for kind in KINDS if (kind.group, kind.version) == (group, version))
    if plurals:
        return f"{group + '/' if group else ''}{version} has {', '.join(plurals)}"
    groups = sorted({kind.api_version for kind in KINDS})
    return f"this machine serves {', '.join(groups)}"

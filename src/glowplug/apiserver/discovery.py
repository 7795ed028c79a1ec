"""What the API serves, in the two forms that clients ask for: the legacy lists and aggregated discovery v2."""

from __future__ import annotations

from typing import Any

from glowplug.apiserver.codec import Object
from glowplug.errors import NotFound
from glowplug.spec.kinds import KINDS, POD, Kind

# The Kubernetes version whose API this machine follows; clients gate features by it.
KUBERNETES_VERSION = "v1.34.2"
_READS = ("get", "list", "watch")
_WRITES = ("create", "delete", "deletecollection", "patch", "update")
_STATUS_VERBS = ("get", "patch", "update")
# Answered without being stored: name of the kind, plural.
REVIEWS: dict[str, tuple[tuple[str, str], ...]] = {
    "authorization.k8s.io": (
        ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        ("SelfSubjectRulesReview", "selfsubjectrulesreviews"),
    ),
    "authentication.k8s.io": (("SelfSubjectReview", "selfsubjectreviews"),),
}


def version() -> Object:
    """`/version`."""
    major, minor, _ = KUBERNETES_VERSION.lstrip("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{KUBERNETES_VERSION}+glowplug",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "",
    }


def api_versions(address: str) -> Object:
    """`/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def api_groups() -> Object:
    """`/apis`."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in _groups()]}


def api_group(name: str) -> Object:
    """`/apis/<group>`. Raises NotFound."""
    if name not in _groups():
        raise NotFound("the server could not find the requested resource", hint=f"the groups are {_groups()}")
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)}


def api_resources(group: str, version: str) -> Object:
    """`/api/v1` and `/apis/<group>/<version>`. Raises NotFound."""
    if version not in _versions(group):
        raise NotFound("the server could not find the requested resource")
    resources = [one for kind in _kinds(group, version) for one in _resources(kind)]
    resources += [
        {"name": plural, "singularName": name.lower(), "namespaced": False, "kind": name, "verbs": ["create"]}
        for name, plural in REVIEWS.get(group, ())
    ]
    group_version = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }


def aggregated(*, is_core: bool) -> Object:
    """`/api` (`is_core`) or `/apis` as an APIGroupDiscoveryList: all of discovery in one answer."""
    names = [""] if is_core else _groups()
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [_group_discovery(name) for name in names],
    }


def verbs(kind: Kind) -> list[str]:
    """What may be done with objects of the kind."""
    return list(_READS) if kind.is_read_only else sorted((*_READS, *_WRITES))


def _groups() -> list[str]:
    return list(dict.fromkeys([*(kind.group for kind in KINDS if kind.group), *REVIEWS]))


def _versions(group: str) -> list[str]:
    if group in REVIEWS:
        return ["v1"]
    found = dict.fromkeys(kind.version for kind in KINDS if kind.group == group)
    # The stable version is preferred: v1 before v1beta1 before v1alpha1.
    return sorted(found, key=lambda name: ("alpha" in name, "beta" in name, name))


def _kinds(group: str, version: str) -> list[Kind]:
    return [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]


def _group(name: str) -> Object:
    versions = [{"groupVersion": f"{name}/{one}", "version": one} for one in _versions(name)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _resources(kind: Kind) -> list[Object]:
    main: Object = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.is_namespaced,
        "kind": kind.name,
        "verbs": verbs(kind),
    }
    if kind.short_names:
        main["shortNames"] = list(kind.short_names)
    if kind.categories:
        main["categories"] = list(kind.categories)
    return [main, *(_subresource(kind, name, allowed) for name, allowed in _subresources(kind))]


def _subresource(kind: Kind, name: str, allowed: tuple[str, ...]) -> Object:
    return {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.is_namespaced,
        "kind": kind.name,
        "verbs": list(allowed),
    }


def _subresources(kind: Kind) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = (
        [("status", _STATUS_VERBS)] if kind.has_status and not kind.is_read_only else []
    )
    return [*found, ("log", ("get",))] if kind is POD else found


def _group_discovery(name: str) -> Object:
    versions = [
        {"version": one, "resources": _discoveries(name, one), "freshness": "Current"}
        for one in _versions(name)
    ]
    metadata = {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None}
    return {"metadata": metadata, "versions": versions}


def _discoveries(group: str, version: str) -> list[Object]:
    found = [_discovery(kind) for kind in _kinds(group, version)]
    for name, plural in REVIEWS.get(group, ()):
        found.append(
            {
                "resource": plural,
                "responseKind": {"group": group, "version": version, "kind": name},
                "scope": "Cluster",
                "singularResource": name.lower(),
                "verbs": ["create"],
            }
        )
    return found


def _discovery(kind: Kind) -> Object:
    response_kind = {"group": kind.group, "version": kind.version, "kind": kind.name}
    found: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": response_kind,
        "scope": "Namespaced" if kind.is_namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    }
    if kind.short_names:
        found["shortNames"] = list(kind.short_names)
    if kind.categories:
        found["categories"] = list(kind.categories)
    subresources = [
        {"subresource": name, "responseKind": response_kind, "verbs": list(allowed)}
        for name, allowed in _subresources(kind)
    ]
    return {**found, "subresources": subresources} if subresources else found

"""Where events go: a destination of the API, an object or a URI, to a URL of this computer. Pure.

An object that can take events is one whose status has an address; those of this machine are the kinds below. A URI that
names a Service as DNS does in a cluster means that Service here too.
Source: knative.dev/pkg resolver/addressable_resolver.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from glowplug.spec import kinds
from glowplug.spec.eventing import Destination, Reference
from glowplug.spec.eventing_local import ADDRESSABLE
from glowplug.spec.kinds import Kind

from ..metadata import Object, at

Get = Callable[[Kind, str, str], "Object | None"]
Target = tuple[Kind, str, str]

_ADDRESSABLE = {(kind.group, kind.name): kind for kind in ADDRESSABLE}
_CLUSTER_NAME = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.cluster\.local)?")
# An InferenceService has no Service of its own name, though its name leads there.
_BY_NAME = (kinds.KNATIVE_SERVICE, kinds.INFERENCE_SERVICE)


@dataclass(frozen=True)
class Resolved:
    """The destination is at `url`."""

    url: str


@dataclass(frozen=True)
class Unresolved:
    """The destination has no URL now, and why."""

    message: str


def addressable(reference: Reference) -> Kind | None:
    """The kind that a reference names, if objects of it can take events here; the version is of no concern."""
    return _ADDRESSABLE.get((reference.api_version.rpartition("/")[0], reference.kind))


def resolve(destination: Destination, get: Get) -> Resolved | Unresolved:
    """The URL of `destination`; `get` reads an object, None where there is none."""
    if destination.reference is None:
        return _by_uri(destination.uri, get)
    found = _by_reference(destination.reference, get)
    if isinstance(found, Unresolved) or not destination.uri:
        return found
    # In a cluster an address is a host. Here its path is part of it, and what is relative to it comes after.
    return Resolved(f"{found.url.rstrip('/')}/{destination.uri.lstrip('/')}")


def targets(destination: Destination | None) -> Iterator[Target]:
    """The objects on which the URL of a destination depends."""
    if destination is None:
        return
    reference = destination.reference
    if reference is not None:
        kind = addressable(reference)
        if kind is not None:
            yield kind, reference.namespace, reference.name
        return
    named = _CLUSTER_NAME.fullmatch(urlsplit(destination.uri).hostname or "")
    if named is not None:
        for kind in _BY_NAME:
            yield kind, named[2], named[1]


def _by_reference(reference: Reference, get: Get) -> Resolved | Unresolved:
    kind = addressable(reference)
    where = f"{reference.namespace}/{reference.name}"
    if kind is None:
        known = ", ".join(f"{each.name} ({each.group})" for each in _ADDRESSABLE.values())
        return Unresolved(
            f"the local machine has no address for {reference.kind} ({reference.api_version}) {where}, "
            f"expected one of {known}, or a uri"
        )
    obj = get(kind, reference.namespace, reference.name)
    if obj is None:
        return Unresolved(f'failed to get object {where}: {kind.resource} "{reference.name}" not found')
    url = address(obj)
    return Resolved(url) if url else Unresolved(f"address not set for {kind.name} {where}")


def _by_uri(uri: str, get: Get) -> Resolved | Unresolved:
    parts = urlsplit(uri)
    named = _CLUSTER_NAME.fullmatch(parts.hostname or "")
    if named is None:
        return Resolved(uri)
    for kind in _BY_NAME:
        obj = get(kind, named[2], named[1])
        url = address(obj) if obj is not None else ""
        if url:
            query = f"?{parts.query}" if parts.query else ""
            return Resolved(f"{url.rstrip('/')}{parts.path}{query}")
    return Unresolved(f"{parts.hostname} is no Service of this machine that has an address")


def address(obj: Object) -> str:
    """What an object says of where it takes events; empty where it does not say."""
    return str(at(obj, "status", "address", "url") or "")

"""Lists: selectors, a snapshot at a revision, and pages of it with a token to go on.

A token holds the revision of the first page and the last name given out. Later pages are answered as of that
revision, by undoing what the hub's logs say has happened since; when the logs no longer reach back, the token has
expired (410) and the client lists again, as with etcd.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from glowplug.apiserver.changes import Ref
from glowplug.apiserver.codec import decode
from glowplug.apiserver.selectors import EVERYTHING, Selector
from glowplug.apiserver.store import Store
from glowplug.apiserver.watch import Hub
from glowplug.errors import BadRequest, Gone
from glowplug.spec.kinds import Kind

_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. "
    "You must start a new list without the continue parameter."
)


@dataclass(frozen=True)
class Page:
    """What to list: `limit` 0 is no limit; `revision` asks for the list as it was then."""

    selector: Selector = EVERYTHING
    limit: int = 0
    token: str = ""
    revision: int | None = None


@dataclass(frozen=True)
class Listing:
    """One page: the objects' bytes, the revision they are of, and how to go on ("" at the end).

    `remaining` is how many follow, None at the end or where a selector makes it unknown, as in Kubernetes.
    """

    items: list[bytes]
    revision: int
    token: str = ""
    remaining: int | None = None


def list_page(store: Store, hub: Hub, kind: Kind, namespace: str, page: Page) -> Listing:
    """One page of a kind. Raises BadRequest for a token that is none, Gone for one that has expired."""
    revision, after = _resume(page)
    if revision is None:
        rows: list[tuple[Ref, bytes]] = list(store.scan(kind, namespace))
        return _cut(rows, store.revision, page)
    try:
        rows = _snapshot(store, hub, kind, namespace, revision)
    except Gone as error:
        raise Gone(_EXPIRED if after else error.message) from error
    return _cut([row for row in rows if _key(row[0]) > after], revision, page)


def _resume(page: Page) -> tuple[int | None, tuple[str, str]]:
    if not page.token:
        return page.revision, ("", "")
    try:
        token = orjson.loads(base64.urlsafe_b64decode(page.token))
        return int(token["rv"]), (str(token["namespace"]), str(token["name"]))
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"continue key is not valid: {page.token[:80]!r}") from error


def _snapshot(store: Store, hub: Hub, kind: Kind, namespace: str, revision: int) -> list[tuple[Ref, bytes]]:
    rows = dict(store.scan(kind, namespace))
    for ref, raw in hub.undo(kind, revision).items():
        if namespace and ref.namespace != namespace:
            continue
        if raw is None:
            rows.pop(ref, None)
        else:
            rows[ref] = raw
    return sorted(rows.items(), key=lambda row: _key(row[0]))


def _cut(rows: list[tuple[Ref, bytes]], revision: int, page: Page) -> Listing:
    if not page.limit or (page.selector.is_empty and len(rows) <= page.limit):
        return Listing([raw for _, raw in _matching(rows, page.selector)], revision)
    taken: list[tuple[Ref, bytes]] = []
    for row in _matching(rows, page.selector):
        if len(taken) == page.limit:
            remaining = len(rows) - len(taken) if page.selector.is_empty else None
            return Listing([raw for _, raw in taken], revision, _token(revision, taken[-1][0]), remaining)
        taken.append(row)
    return Listing([raw for _, raw in taken], revision)


def _matching(rows: Iterable[tuple[Ref, bytes]], selector: Selector) -> Iterable[tuple[Ref, bytes]]:
    if selector.is_empty:
        return rows
    return (row for row in rows if selector.may_match(row[1]) and selector.matches(decode(row[1])))


def _key(ref: Ref) -> tuple[str, str]:
    return ref.namespace, ref.name


def _token(revision: int, last: Ref) -> str:
    token = {"rv": revision, "namespace": last.namespace, "name": last.name}
    return base64.urlsafe_b64encode(orjson.dumps(token)).decode()

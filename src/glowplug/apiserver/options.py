"""Query parameters and DeleteOptions bodies, as values; every wrong one is a BadRequest that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from glowplug.apiserver import selectors
from glowplug.apiserver.codec import Object
from glowplug.apiserver.finalizers import DeleteOptions
from glowplug.apiserver.paging import Page
from glowplug.errors import BadRequest, Gone, Invalid, Problem
from glowplug.spec.kinds import Kind

Validation = Literal["Strict", "Warn", "Ignore"]
_VALIDATIONS: dict[str, Validation] = {"": "Warn", "Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore"}
_EXACT = "Exact"
_MATCHES = ("", _EXACT, "NotOlderThan")


@dataclass(frozen=True)
class WriteOptions:
    """What create, update and patch share; `validation` is how unknown fields are met."""

    is_dry_run: bool
    manager: str
    validation: Validation
    is_forced: bool


@dataclass(frozen=True)
class WatchOptions:
    """A watch: `revision` None is "what exists, then what happens"."""

    selector: selectors.Selector
    revision: int | None
    timeout_s: float | None
    has_bookmarks: bool
    sends_initial: bool


def write_options(query: Mapping[str, str], user_agent: str) -> WriteOptions:
    """Options of a write; without a fieldManager the client's program name is it, as in Kubernetes."""
    manager = query.get("fieldManager") or user_agent.split("/")[0].strip()[:128] or "unknown"
    validation = query.get("fieldValidation", "")
    if validation not in _VALIDATIONS:
        raise BadRequest(f"fieldValidation is {validation!r}, must be Strict, Warn or Ignore")
    return WriteOptions(
        is_dry_run=is_dry_run(query.get("dryRun", "")),
        manager=manager,
        validation=_VALIDATIONS[validation],
        is_forced=flag(query, "force"),
    )


def is_dry_run(value: str) -> bool:
    """True for `All`. Raises BadRequest for anything else but nothing: a typo must not write."""
    if value not in ("", "All"):
        raise BadRequest(f"dryRun is {value!r}, must be All")
    return value == "All"


def page(kind: Kind, query: Mapping[str, str], newest: int) -> Page:
    """What a list asks for. Raises Gone for a revision that does not exist yet, so that the client lists anew."""
    selector = selector_of(kind, query)
    match = query.get("resourceVersionMatch", "")
    if match not in _MATCHES:
        raise BadRequest(f"resourceVersionMatch is {match!r}, must be Exact or NotOlderThan")
    revision = _revision(query)
    if match and revision is None:
        raise BadRequest("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if revision is not None and revision > newest:
        raise Gone(f"Too large resource version: {revision}, current: {newest}")
    return Page(
        selector=selector,
        limit=number(query, "limit") or 0,
        token=query.get("continue", ""),
        revision=revision if match == _EXACT else None,
    )


def watch_options(kind: Kind, query: Mapping[str, str]) -> WatchOptions:
    """What a watch asks for; resourceVersion 0 is "any", so it begins with what exists."""
    sends_initial = flag(query, "sendInitialEvents")
    revision = _revision(query)
    return WatchOptions(
        selector=selector_of(kind, query),
        revision=None if sends_initial or not revision else revision,
        timeout_s=number(query, "timeoutSeconds"),
        has_bookmarks=flag(query, "allowWatchBookmarks"),
        sends_initial=sends_initial,
    )


def selector_of(kind: Kind, query: Mapping[str, str]) -> selectors.Selector:
    return selectors.parse(kind, query.get("labelSelector", ""), query.get("fieldSelector", ""))


def delete_options(query: Mapping[str, str], body: Object) -> DeleteOptions:
    """Options of a delete, from its body and, where that is silent, the query."""
    preconditions = _part(body, "preconditions", dict) or {}
    dry_run = _part(body, "dryRun", list) or [query.get("dryRun", "")]
    grace = _part(body, "gracePeriodSeconds", int)
    propagation = _part(body, "propagationPolicy", str) or query.get("propagationPolicy", "")
    if not propagation and (body.get("orphanDependents") is True or query.get("orphanDependents") == "true"):
        propagation = "Orphan"
    return DeleteOptions(
        grace_period_s=number(query, "gracePeriodSeconds") if grace is None else grace,
        propagation=propagation,
        uid=_part(preconditions, "uid", str),
        revision=_part(preconditions, "resourceVersion", str),
        is_dry_run=any(is_dry_run(str(one)) for one in dry_run),
    )


def options_object(query: Mapping[str, str], *, is_create: bool) -> Object:
    """The options of a write as an object, which is how admission webhooks are told of them; a patch is an update."""
    found: Object = {
        "apiVersion": "meta.k8s.io/v1",
        "kind": "CreateOptions" if is_create else "UpdateOptions",
    }
    found |= {key: query[key] for key in ("fieldManager", "fieldValidation") if query.get(key)}
    return {**found, "dryRun": ["All"]} if query.get("dryRun") else found


def delete_options_of(wanted: DeleteOptions) -> Object:
    """The same of a delete."""
    preconditions = {"uid": wanted.uid, "resourceVersion": wanted.revision}
    preconditions = {key: value for key, value in preconditions.items() if value is not None}
    found: Object = {"apiVersion": "meta.k8s.io/v1", "kind": "DeleteOptions"}
    if wanted.grace_period_s is not None:
        found["gracePeriodSeconds"] = wanted.grace_period_s
    if wanted.propagation:
        found["propagationPolicy"] = wanted.propagation
    if preconditions:
        found["preconditions"] = preconditions
    return {**found, "dryRun": ["All"]} if wanted.is_dry_run else found


def required_manager(query: Mapping[str, str]) -> None:
    """Raises Invalid unless the request names its field manager: apply is meaningless without one."""
    if not query.get("fieldManager"):
        problem = Problem("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
        text = f'PatchOptions.meta.k8s.io "" is invalid: {problem.field}: {problem.message}'
        raise Invalid(text, causes=(problem,))


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean parameter: `?watch`, `?watch=1` and `?watch=true` are all true."""
    if name not in query:
        return False
    value = query[name].lower()
    if value in ("0", "false", "f"):
        return False
    if value in ("", "1", "true", "t"):
        return True
    raise BadRequest(f"{name} is {query[name]!r}, must be true or false")


def number(query: Mapping[str, str], name: str) -> int | None:
    """A whole number that is not negative, or None where there is none."""
    text = query.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise BadRequest(f"{name} is {text[:40]!r}, must be a whole number that is not negative")
    return int(text)


def _revision(query: Mapping[str, str]) -> int | None:
    return number(query, "resourceVersion")


def _part(body: Object, name: str, type_: type) -> Any:
    value = body.get(name)
    if value is not None and not isinstance(value, type_):
        raise BadRequest(f"DeleteOptions.{name} is {value!r}, must be of type {type_.__name__}")
    return value

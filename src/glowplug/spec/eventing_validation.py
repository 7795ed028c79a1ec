"""What is wrong with a Broker or a Trigger, in Knative's words, all at once.

Source: knative.dev/eventing pkg/apis/eventing/v1/{broker,trigger}_validation.go, pkg/apis/duck/v1/delivery_types.go and
knative.dev/pkg apis/duck/v1/destination.go. An expression in CloudEvents SQL is the caller's to parse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from glowplug.errors import Problem
from glowplug.spec.eventing import BROKER_CLASS, Backoff, period_s
from glowplug.spec.validation import (
    FORBIDDEN,
    INVALID,
    Object,
    annotations_of,
    as_int,
    as_list,
    as_object,
    as_text,
    disallowed,
    invalid_value,
    missing,
    under,
)

_ATTRIBUTE = re.compile(r"[a-z][a-z0-9]*")
_MAPS = ("exact", "prefix", "suffix")
_DIALECTS = (*_MAPS, "all", "any", "not", "cesql")
_FORMATS = ("json", "binary")
_MAX_DEPTH = 32

# What is wrong with an expression, and None where nothing is.
ParseSql = Callable[[str], str | None]


def validate_broker(obj: Object, old: Object | None = None) -> tuple[Problem, ...]:
    """Every problem of a Broker; `old` is the object that it replaces."""
    spec = as_object(obj.get("spec"))
    problems = list(under("spec.delivery", delivery_problems(as_object(spec.get("delivery")))))
    if old is not None:
        before = as_object(old.get("spec"))
        if _without_delivery(before) != _without_delivery(spec):
            problems.append(Problem("spec", "Immutable fields changed (-old +new)", FORBIDDEN))
        if annotations_of(old).get(BROKER_CLASS) != annotations_of(obj).get(BROKER_CLASS):
            where = f"metadata.annotations[{BROKER_CLASS}]"
            problems.append(Problem(where, "Immutable annotations changed (-old +new)", FORBIDDEN))
    return tuple(problems)


def validate_trigger(obj: Object, old: Object | None, parse_sql: ParseSql) -> tuple[Problem, ...]:
    """Every problem of a Trigger; `old` is the object that it replaces."""
    spec = as_object(obj.get("spec"))
    problems = [
        *under("spec", _broker(spec)),
        *under(
            "spec.filter.attributes",
            _attributes(as_object(as_object(spec.get("filter")).get("attributes"))),
        ),
        *under("spec.filters", _filters(as_list(spec.get("filters")), parse_sql, 0)),
        *under("spec.subscriber", destination_problems(as_object(spec.get("subscriber")))),
        *under("spec.delivery", delivery_problems(as_object(spec.get("delivery")))),
    ]
    if old is not None and as_object(old.get("spec")).get("broker") != spec.get("broker"):
        problems.append(Problem("spec.broker", "Immutable fields changed (-old +new)", FORBIDDEN))
    return tuple(problems)


def destination_problems(obj: Object) -> Iterator[Problem]:
    """Of a destination that has to be there."""
    ref, uri = obj.get("ref"), as_text(obj.get("uri"))
    parts = urlsplit(uri)
    if ref is None and not uri:
        yield Problem("", "expected at least one, got none: ref, uri", INVALID)
    elif ref is not None and parts.scheme:
        why = "Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present"
        yield Problem("", f"{why}: [apiVersion, kind, name], ref, uri", INVALID)
    elif ref is None and not (parts.scheme and parts.netloc):
        why = "Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent"
        yield invalid_value("uri", uri, why)
    if ref is not None:
        for field in ("name", "kind", "apiVersion"):
            if not as_text(as_object(ref).get(field)):
                yield missing(f"ref.{field}")


def delivery_problems(obj: Object) -> Iterator[Problem]:
    """Of a `delivery` block."""
    if obj.get("deadLetterSink") is not None:
        yield from under("deadLetterSink", destination_problems(as_object(obj["deadLetterSink"])))
    retry = as_int(obj.get("retry"))
    if retry is not None and retry < 0:
        yield invalid_value("retry", retry)
    policy = obj.get("backoffPolicy")
    if policy is not None and policy not in {each.value for each in Backoff}:
        yield invalid_value("backoffPolicy", policy, "expected linear or exponential")
    for field in ("timeout", "backoffDelay", "retryAfterMax"):
        if field not in obj:
            continue
        seconds = period_s(obj[field])
        if seconds is None:
            yield invalid_value(field, obj[field], "expected an ISO 8601 duration such as PT0.5S")
        elif seconds < 0 or (field == "timeout" and seconds == 0):
            yield invalid_value(field, obj[field])
    if obj.get("format") is not None and obj["format"] not in _FORMATS:
        yield invalid_value("format", obj["format"], "expected json or binary")


def _broker(spec: Object) -> Iterator[Problem]:
    name, ref = as_text(spec.get("broker")), spec.get("brokerRef")
    if ref is None and not name:
        yield missing("broker")
    elif ref is not None and name:
        yield Problem("", "expected exactly one, got both: broker, brokerRef", INVALID)
    if as_text(as_object(ref).get("namespace")):
        why = "only name, apiVersion and kind are supported fields when feature.CrossNamespaceEventLinks is disabled"
        yield disallowed("brokerRef.namespace", why)


def _filters(filters: list[object], parse_sql: ParseSql, depth: int) -> Iterator[Problem]:
    for index, each in enumerate(filters):
        yield from under(f"[{index}]", _filter(as_object(each), parse_sql, depth))


def _filter(obj: Object, parse_sql: ParseSql, depth: int) -> Iterator[Problem]:
    if depth > _MAX_DEPTH:
        yield Problem("", f"filters are nested more than {_MAX_DEPTH} deep", INVALID)
        return
    found = [name for name in _DIALECTS if obj.get(name) not in (None, "", {}, [])]
    if len(found) > 1:
        why = "multiple dialects found, filters can have only one dialect set"
        yield Problem("", f"{why}: {', '.join(found)}", INVALID)
    for name in _MAPS:
        yield from under(name, _attributes(as_object(obj.get(name))))
    for name in ("all", "any"):
        yield from under(name, _filters(as_list(obj.get(name)), parse_sql, depth + 1))
    if obj.get("not") is not None:
        yield from under("not", _filter(as_object(obj["not"]), parse_sql, depth + 1))
    expression = as_text(obj.get("cesql"))
    fault = parse_sql(expression) if expression else None
    if fault is not None:
        yield invalid_value("cesql", expression, fault)


def _attributes(attributes: Object) -> Iterator[Problem]:
    why = "Attribute name must start with a letter and can only contain lowercase alphanumeric"
    for name in attributes:
        if not _ATTRIBUTE.fullmatch(str(name)):
            yield Problem(f"[{name}]", f'invalid key name "{name}": {why}', INVALID)


def _without_delivery(spec: Object) -> Object:
    return {key: value for key, value in spec.items() if key != "delivery"}

"""The words of validation: reading fields of a raw object that may hold anything, and saying what is wrong.

Validators see objects before anybody knows that their types are right, so a field of a wrong type reads as absent
here; that the type is wrong is the schema's finding. Messages follow Kubernetes (`Invalid value: ...`) and, where
Knative has a rule of its own, Knative's wording, so that a search for them finds the right page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from glowplug.errors import Problem

Object = dict[str, Any]

INVALID = "FieldValueInvalid"
REQUIRED = "FieldValueRequired"
NOT_SUPPORTED = "FieldValueNotSupported"
FORBIDDEN = "FieldValueForbidden"
DUPLICATE = "FieldValueDuplicate"

_SHOWN = 80  # characters of a wrong value that a message repeats


def as_object(value: object) -> Object:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """The value if it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def as_int(value: object) -> int | None:
    """The value if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def metadata(obj: Object) -> Object:
    return as_object(obj.get("metadata"))


def annotations_of(obj: Object) -> dict[str, str]:
    """The annotations that are text."""
    found = as_object(metadata(obj).get("annotations"))
    return {key: value for key, value in found.items() if isinstance(value, str)}


def join(path: str, name: str) -> str:
    """`spec` and `predictor` as `spec.predictor`; a name in brackets, or none, is appended as it is."""
    if not path or not name or name.startswith("["):
        return path + name
    return f"{path}.{name}"


def under(path: str, problems: Iterable[Problem]) -> Iterator[Problem]:
    """The same problems, their fields seen from one level higher."""
    return (Problem(join(path, problem.field), problem.message, problem.reason) for problem in problems)


def invalid(path: str, value: object, why: str) -> Problem:
    return Problem(path, f"Invalid value: {shown(value)}: {why}", INVALID)


def required(path: str, why: str = "") -> Problem:
    return Problem(path, f"Required value: {why}" if why else "Required value", REQUIRED)


def unsupported(path: str, value: object, allowed: Iterable[str], why: str = "") -> Problem:
    choices = ", ".join(f'"{choice}"' for choice in allowed)
    tail = f" ({why})" if why else ""
    return Problem(
        path, f"Unsupported value: {shown(value)}: supported values: {choices}{tail}", NOT_SUPPORTED
    )


def forbidden(path: str, why: str) -> Problem:
    return Problem(path, f"Forbidden: {why}", FORBIDDEN)


def out_of_bounds(path: str, value: object, lower: object, upper: object) -> Problem:
    """Knative's wording for a number outside its range."""
    return Problem(path, f"expected {lower} <= {value} <= {upper}", INVALID)


def invalid_value(path: str, value: object, details: str = "") -> Problem:
    """Knative's wording for a value that cannot be read."""
    return Problem(path, f"invalid value: {_cut(str(value))}{': ' + details if details else ''}", INVALID)


def disallowed(path: str, why: str = "") -> Problem:
    """Knative's wording for a field that it does not take."""
    return Problem(path, f"must not set the field(s){': ' + why if why else ''}", FORBIDDEN)


def missing(path: str) -> Problem:
    """Knative's wording for a field that it wants."""
    return Problem(path, "missing field(s)", REQUIRED)


def shown(value: object) -> str:
    """A value as JSON, cut to what fits in a message."""
    return _cut(json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True)
class _NameRule:
    pattern: re.Pattern[str]
    max_length: int
    words: str

    def faults(self, text: str) -> list[str]:
        faults = (
            [] if len(text) <= self.max_length else [f"must be no more than {self.max_length} characters"]
        )
        if not self.pattern.fullmatch(text):
            faults.append(self.words)
        return faults


_ALPHANUMERIC = "lower case alphanumeric characters"
DNS_1035_LABEL = _NameRule(
    re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII),
    63,
    f"a DNS-1035 label must consist of {_ALPHANUMERIC} or '-', start with an alphabetic character, and end with an "
    "alphanumeric character (e.g. 'my-name', or 'abc-123')",
)
DNS_1123_LABEL = _NameRule(
    re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII),
    63,
    f"a lowercase RFC 1123 label must consist of {_ALPHANUMERIC} or '-', and must start and end with an "
    "alphanumeric character (e.g. 'my-name', or '123-abc')",
)
DNS_1123_SUBDOMAIN = _NameRule(
    re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII),
    253,
    f"a lowercase RFC 1123 subdomain must consist of {_ALPHANUMERIC}, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com')",
)
_QUALIFIED_PART = _NameRule(
    re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII),
    63,
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName', or 'my.name', or '123-abc')",
)
LABEL_VALUE = _NameRule(
    re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", re.ASCII),
    63,
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue', or 'my_value', or '12345')",
)


def qualified_name_faults(text: str) -> list[str]:
    """What is wrong with a label's or annotation's key: an optional DNS prefix, a slash, a name."""
    prefix, slash, name = text.rpartition("/")
    faults = [f"prefix part {fault}" for fault in DNS_1123_SUBDOMAIN.faults(prefix)] if slash else []
    return faults + _QUALIFIED_PART.faults(name)


def metadata_problems(meta: Object, path: str = "metadata") -> Iterator[Problem]:
    """Labels, annotations and finalizers; an object's name has rules that depend on its kind."""
    field = join(path, "labels")
    for key, value in as_object(meta.get("labels")).items():
        yield from (invalid(field, key, fault) for fault in qualified_name_faults(key))
        yield from (invalid(f"{field}[{key}]", value, fault) for fault in LABEL_VALUE.faults(as_text(value)))
    field = join(path, "annotations")
    total = 0
    for key, value in as_object(meta.get("annotations")).items():
        # Kubernetes checks the lower case of annotation keys.
        yield from (invalid(field, key, fault) for fault in qualified_name_faults(key.lower()))
        total += len(key) + len(as_text(value))
    if total > _MAX_ANNOTATIONS:
        yield Problem(field, f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes", "FieldValueTooLong")
    for index, finalizer in enumerate(as_list(meta.get("finalizers"))):
        faults = qualified_name_faults(as_text(finalizer))
        yield from (invalid(join(path, f"finalizers[{index}]"), finalizer, fault) for fault in faults)


_MAX_ANNOTATIONS = 256 * 1024

"""Label and field selectors: text to values, and values against objects.

Grammar and messages follow https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ and
.../field-selectors/. An equality's value also serves as a needle in the stored bytes, so that most objects of a
big list are ruled out without being decoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glowplug.apiserver.codec import Object, encode
from glowplug.errors import BadRequest
from glowplug.spec.kinds import EVENT, JOB, NAMESPACE, POD, SECRET, Kind

_KEY = re.compile(r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_PAIR = re.compile(r"(?P<key>[^\s=!<>]+)\s*(?P<operator>==|!=|=|>|<)\s*(?P<value>[^\s=!<>]*)")
_COMMA = re.compile(r",(?![^(]*\))")

_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_FIELDS: dict[Kind, tuple[str, ...]] = {
    EVENT: (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
        "reason", "reportingComponent", "source", "type",
    ),
    POD: (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase",
        "status.podIP",
    ),
    NAMESPACE: ("status.phase",),
    SECRET: ("type",),
    JOB: ("status.successful",),
}  # fmt: skip
# Where the field's name is not its path.
_PATHS = {"source": "source.component"}


@dataclass(frozen=True)
class Requirement:
    """One condition on a label: `operator` is one of = != in notin exists !exists > <."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator in ("=", "in"):
            return value is not None and value in self.values
        if self.operator in ("!=", "notin"):
            return value is None or value not in self.values
        if self.operator in ("exists", "!exists"):
            return (value is not None) == (self.operator == "exists")
        (bound,) = self.values
        if value is None or not value.isdecimal():
            return False
        return int(value) > int(bound) if self.operator == ">" else int(value) < int(bound)


@dataclass(frozen=True)
class FieldRequirement:
    """One condition on a field: equal to `value`, or with `is_negated` not."""

    path: str
    value: str
    is_negated: bool

    def matches(self, obj: Object) -> bool:
        return (_field(obj, self.path) == self.value) != self.is_negated


@dataclass(frozen=True)
class Selector:
    """Both selectors of a request; an empty one matches everything."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldRequirement, ...] = ()
    needles: tuple[bytes, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.labels and not self.fields

    def may_match(self, raw: bytes) -> bool:
        """False only if the object in `raw` certainly does not match."""
        return all(needle in raw for needle in self.needles)

    def matches(self, obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(one.matches(labels) for one in self.labels) and all(
            one.matches(obj) for one in self.fields
        )

    @property
    def name(self) -> str | None:
        """The one name that `metadata.name=` asks for, or None."""
        for field in self.fields:
            if field.path == "metadata.name" and not field.is_negated:
                return field.value
        return None


EVERYTHING = Selector()


def parse(kind: Kind, label_selector: str, field_selector: str) -> Selector:
    """The selector of a request. Raises BadRequest that quotes the part which is wrong."""
    return build(_parse_labels(label_selector), _parse_fields(kind, field_selector))


def equal(labels: Mapping[str, str]) -> Selector:
    """The selector for exactly these label values."""
    return build([Requirement(key, "=", frozenset((value,))) for key, value in labels.items()], [])


def build(labels: Sequence[Requirement], fields: Sequence[FieldRequirement]) -> Selector:
    """A selector with the needles of its equalities."""
    values = [value for one in labels if one.operator == "=" for value in one.values]
    values += [one.value for one in fields if not one.is_negated and one.value]
    # status.successful is a number in the object; its needle would be quoted.
    needles = tuple(encode(value) for value in values if not value.isdecimal())
    return Selector(tuple(labels), tuple(fields), needles)


def _parse_labels(text: str) -> list[Requirement]:
    if not text.strip():
        return []
    return [_requirement(part.strip(), text) for part in _COMMA.split(text)]


def _requirement(part: str, text: str) -> Requirement:
    if match := _SET.fullmatch(part):
        values = frozenset(value.strip() for value in match["values"].split(","))
        return _checked(Requirement(match["key"], match["operator"], values), text)
    if match := _PAIR.fullmatch(part):
        operator = "=" if match["operator"] == "==" else match["operator"]
        return _checked(Requirement(match["key"], operator, frozenset((match["value"],))), text)
    if part.startswith("!"):
        return _checked(Requirement(part[1:].strip(), "!exists"), text)
    return _checked(Requirement(part, "exists"), text)


def _checked(one: Requirement, text: str) -> Requirement:
    if not _KEY.fullmatch(one.key):
        raise BadRequest(f"unable to parse requirement: {one.key!r} in {text!r} is not a label key")
    for value in one.values:
        if not _VALUE.fullmatch(value) or len(value) > 63:
            raise BadRequest(f"unable to parse requirement: {value!r} in {text!r} is not a label value")
        if one.operator in ("<", ">") and not value.isdecimal():
            raise BadRequest(f"unable to parse requirement: {value!r} in {text!r} must be an integer")
    return one


def _parse_fields(kind: Kind, text: str) -> list[FieldRequirement]:
    parts = [part for part in re.split(r"(?<!\\),", text) if part.strip()]
    return [_field_requirement(kind, part.strip(), text) for part in parts]


def _field_requirement(kind: Kind, part: str, text: str) -> FieldRequirement:
    match = re.fullmatch(r"(?P<path>[^=!]+)(?P<operator>==|!=|=)(?P<value>.*)", part)
    if not match:
        raise BadRequest(f"invalid selector: {text!r}; can't understand {part!r}")
    path = match["path"].strip()
    known = (*_COMMON_FIELDS, *_FIELDS.get(kind, ()))
    if path not in known:
        raise BadRequest(
            f"field label not supported: {path}", hint=f"{kind.resource} know {', '.join(known)}"
        )
    value = re.sub(r"\\([\\,=])", r"\1", match["value"])
    return FieldRequirement(_PATHS.get(path, path), value, match["operator"] == "!=")


def _field(obj: Object, path: str) -> str:
    value: object = obj
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return "" if value is None else str(value)

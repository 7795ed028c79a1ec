"""Compares an object with its schema: fields that nobody knows, values of a wrong type, what is missing.

It changes nothing: it returns a copy without the unknown fields (as the Kubernetes API prunes them), without nulls
(which mean "absent"), and with numbers where a quantity's text is wanted turned into text. What a field's value
*means* is not its business.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from glowplug.apiserver.schema import Schemas
from glowplug.apiserver.schema_build import Definition
from glowplug.apiserver.schema_overrides import INT_OR_STRING, QUANTITY
from glowplug.errors import Problem
from glowplug.spec import quantities
from glowplug.spec.kinds import Kind

Object = dict[str, Any]

_DATE_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$", re.ASCII)
_INT64 = range(-(2**63), 2**63)
_MAX_DEPTH = 100
_SIMILARITY = 0.75  # of two names, above which one may be a slip for the other
_SHOWN = 80  # characters of a wrong value that a message repeats


@dataclass(frozen=True)
class Unknown:
    """A field that the schema does not have; `hint` names the one that was probably meant, or is empty."""

    path: str
    hint: str = ""


@dataclass(frozen=True)
class Findings:
    """`object` is the pruned copy; `missing` are required fields, apart because defaulting may yet fill them."""

    object: Object
    unknown: tuple[Unknown, ...]
    problems: tuple[Problem, ...]
    missing: tuple[Problem, ...]


def check(schemas: Schemas, kind: Kind, obj: Object) -> Findings:
    """Everything about `obj` that its kind's schema can tell, at once."""
    schema = schemas.of(kind)
    if schema is None:
        return Findings(obj, (), (), ())
    walk = _Walk(schemas)
    pruned = walk.value(schema, obj, "", 0)
    return Findings(
        pruned if isinstance(pruned, dict) else {},
        tuple(walk.unknown),
        tuple(walk.problems),
        tuple(walk.missing),
    )


@dataclass
class _Walk:
    schemas: Schemas
    unknown: list[Unknown] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    missing: list[Problem] = field(default_factory=list)

    def value(self, schema: Definition, value: Any, path: str, depth: int) -> Any:
        reference = schema.get("$ref")
        if reference == QUANTITY:
            return self._quantity(value, path)
        if reference == INT_OR_STRING:
            return self._int_or_string(value, path)
        if depth > _MAX_DEPTH:
            self.problems.append(Problem(path, f"Too long: nested more than {_MAX_DEPTH} levels deep"))
            return value
        schema = self.schemas.resolve(schema)
        kind = schema.get("type", "object")
        if kind == "object":
            return self._object(schema, value, path, depth)
        if kind == "array":
            return self._array(schema, value, path, depth)
        return self._scalar(kind, schema.get("format", ""), value, path)

    def _object(self, schema: Definition, value: Any, path: str, depth: int) -> Any:
        properties: dict[str, Definition] | None = schema.get("properties")
        values: Definition | None = schema.get("additionalProperties")
        if properties is None and values is None:
            return value
        if not isinstance(value, dict):
            return self._wrong_type(value, "object", path)
        if properties is None:
            return self._map(values or {}, value, path, depth)
        pruned = {}
        for name, item in value.items():
            child = f"{path}.{name}" if path else str(name)
            if name in properties:
                if item is not None:
                    pruned[name] = self.value(properties[name], item, child, depth + 1)
            elif schema.get("x-kubernetes-preserve-unknown-fields"):
                pruned[name] = item
            else:
                self.unknown.append(Unknown(child, self._meant(str(name), schema)))
        for name in schema.get("required", ()):
            if pruned.get(name) is None:
                self.missing.append(_missing(f"{path}.{name}" if path else name))
        return pruned

    def _map(self, schema: Definition, value: Object, path: str, depth: int) -> Object:
        return {
            key: self.value(schema, item, f"{path}[{key}]", depth + 1)
            for key, item in value.items()
            if item is not None
        }

    def _array(self, schema: Definition, value: Any, path: str, depth: int) -> Any:
        if not isinstance(value, list):
            return self._wrong_type(value, "array", path)
        items = schema.get("items", {})
        return [self.value(items, item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]

    def _scalar(self, kind: str, text_format: str, value: Any, path: str) -> Any:
        if kind == "string":
            if not isinstance(value, str):
                return self._wrong_type(value, "string", path)
            self._format(text_format, value, path)
            return value
        if kind == "boolean":
            return value if isinstance(value, bool) else self._wrong_type(value, "boolean", path)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return self._wrong_type(value, kind, path)
        if kind == "integer":
            # JSON does not tell 1.0 from 1.
            if isinstance(value, float) and not value.is_integer():
                return self._wrong_type(value, kind, path)
            if int(value) not in _INT64:
                self.problems.append(Problem(path, f"Invalid value: {_shown(value)}: must fit in 64 bits"))
                return value
            return int(value)
        return value

    def _format(self, text_format: str, value: str, path: str) -> None:
        if text_format == "date-time" and not _DATE_TIME.match(value):
            self.problems.append(
                Problem(path, f"Invalid value: {_shown(value)}: must be a time like 2026-01-31T12:00:00Z")
            )
        elif text_format == "byte":
            try:
                base64.b64decode("".join(value.split()), validate=True)
            except (binascii.Error, ValueError):
                self.problems.append(Problem(path, "Invalid value: must be base64"))

    def _quantity(self, value: Any, path: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return self._wrong_type(value, "string or number", path)
        if quantities.parse(value) is None:
            self.problems.append(Problem(path, f"Invalid value: {_shown(value)}: {quantities.SYNTAX}"))
        return str(value)

    def _int_or_string(self, value: Any, path: str) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            return self._wrong_type(value, "integer or string", path)
        return value

    def _wrong_type(self, value: Any, wanted: str, path: str) -> Any:
        where, found = path or "the object", _shown(_type_name(value))
        message = f"Invalid value: {_shown(value)}: {where} in body must be of type {wanted}: {found}"
        self.problems.append(Problem(path, message, "FieldValueTypeInvalid"))
        return value

    def _meant(self, name: str, schema: Definition) -> str:
        """The name that was probably meant: a near miss here, or the same name one level below."""
        properties: dict[str, Definition] = schema.get("properties", {})
        lowered = {known.lower(): known for known in properties}
        close = difflib.get_close_matches(name.lower(), list(lowered), 1, _SIMILARITY)
        if close:
            return lowered[close[0]]
        required_first = sorted(properties, key=lambda known: known not in schema.get("required", ()))
        for known in required_first:
            if name in self.schemas.resolve(properties[known]).get("properties", {}):
                return f"{known}.{name}"
        return ""


def _missing(path: str) -> Problem:
    return Problem(path, "Required value", "FieldValueRequired")


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

"""OpenAPI v2 and v3, and the CustomResourceDefinitions, all drawn from the schemas.

kubectl reads v3: `explain` looks for the kind's schema, `apply` and `create` for the parameters `fieldValidation` and
`dryRun` and for the patch types of a kind. Python clients read v2. Documents are made when they are first asked for
and kept; making all of them takes less time than reading them back from a disk would save.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import orjson

from glowplug import __version__
from glowplug.apiserver import openapi_crds, openapi_paths
from glowplug.apiserver.schema import Schemas
from glowplug.apiserver.schema_build import Definition
from glowplug.apiserver.schema_overrides import INT_OR_STRING, QUANTITY
from glowplug.spec import kinds
from glowplug.spec.kinds import Kind

Object = dict[str, Any]

_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_INFO = {"title": "glowplug", "version": __version__}
_V3_SPECIAL: dict[str, Definition] = {
    QUANTITY: {"oneOf": [{"type": "string"}, {"type": "number"}]},
    INT_OR_STRING: {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"},
}


class OpenAPI:
    """The API's description, in the forms that clients ask for."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._v3: dict[str, bytes] = {}
        self._groups: dict[str, list[Kind]] = {}
        for kind in kinds.KINDS:
            if kind in schemas.roots:
                self._groups.setdefault(_group_path(kind), []).append(kind)

    def v2(self) -> bytes:
        """The Swagger document of everything, as JSON."""
        return self._v2

    @cached_property
    def _v2(self) -> bytes:
        definitions = {name: _rendered_v2(item) for name, item in self._schemas.definitions.items()}
        paths: Object = {}
        for kind, name in self._schemas.roots.items():
            definitions[f"{name}List"] = _rendered_v2(_list_definition(kind, name))
            paths.update(openapi_paths.v2(kind, name))
        return orjson.dumps({"swagger": "2.0", "info": _INFO, "paths": paths, "definitions": definitions})

    def v3_index(self) -> bytes:
        """The list of v3 documents; an address changes whenever its document does."""
        paths = {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={hashlib.sha256(body).hexdigest().upper()}"}
            for path in self._groups
            if (body := self.v3(path)) is not None
        }
        return orjson.dumps({"paths": paths})

    def v3(self, path: str) -> bytes | None:
        """The document of one group and version (`api/v1`, `apis/serving.kserve.io/v1beta1`), or None."""
        if path not in self._groups:
            return None
        if path not in self._v3:
            self._v3[path] = orjson.dumps(self._document_v3(self._groups[path]))
        return self._v3[path]

    def _document_v3(self, group: list[Kind]) -> Object:
        schemas: dict[str, Definition] = {}
        paths: Object = {}
        for kind in group:
            name = self._schemas.roots[kind]
            for needed in (name, _LIST_META):
                self._collect_v3(needed, schemas)
            schemas[f"{name}List"] = _rendered_v3(_list_definition(kind, name))
            paths.update(openapi_paths.v3(kind, name))
        return {"openapi": "3.0.0", "info": _INFO, "paths": paths, "components": {"schemas": schemas}}

    def _collect_v3(self, name: str, into: dict[str, Definition]) -> None:
        """The definition and all that it refers to."""
        pending = [name]
        while pending:
            current = pending.pop()
            if current in into:
                continue
            definition = self._schemas.definitions[current]
            special = _V3_SPECIAL.get(current)
            if special is not None:
                into[current] = {"description": definition["description"], **special}
            else:
                into[current] = _rendered_v3(definition)
                pending.extend(_references(definition))

    def custom_resource_definitions(self) -> list[Object]:
        """A fresh CustomResourceDefinition object for every kind that Kubernetes itself does not have."""
        return [openapi_crds.definition(kind) for kind in self._schemas.roots if openapi_crds.is_custom(kind)]


def _group_path(kind: Kind) -> str:
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"


def _list_definition(kind: Kind, name: str) -> Definition:
    return {
        "description": f"A list of {kind.name} objects.",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "items": {"type": "array", "items": {"$ref": name}},
            "kind": {"type": "string"},
            "metadata": {"$ref": _LIST_META},
        },
        "x-kubernetes-group-version-kind": [
            {"group": kind.group, "version": kind.version, "kind": f"{kind.name}List"}
        ],
    }


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [name for item in value.values() for name in _references(item)]
    return []


def _rendered_v2(schema: Definition) -> Definition:
    """A definition with v2's references; a description beside a `$ref` is allowed there."""
    return {
        key: _value_v2(key, value) for key, value in schema.items() if key != "x-kubernetes-int-or-string"
    }


def _value_v2(key: str, value: Any) -> Any:
    if key == "$ref":
        return f"#/definitions/{value}"
    if key == "properties":
        return {name: _rendered_v2(item) for name, item in value.items()}
    if key in ("items", "additionalProperties"):
        return _rendered_v2(value)
    return value


def _rendered_v3(schema: Definition) -> Definition:
    """A definition with v3's references, where whatever stands beside a `$ref` must be moved out of its way."""
    if "$ref" in schema:
        reference = {"$ref": f"#/components/schemas/{schema['$ref']}"}
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return {**beside, "allOf": [reference]} if beside else reference
    rendered: Definition = {}
    for key, value in schema.items():
        if key == "properties":
            rendered[key] = {name: _rendered_v3(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties"):
            rendered[key] = _rendered_v3(value)
        elif key != "x-kubernetes-int-or-string":
            rendered[key] = value
    return rendered

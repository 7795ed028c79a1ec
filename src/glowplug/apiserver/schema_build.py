"""Builds the definitions of every kind from the models: the transitive closure that the kinds need, no more.

A definition is an OpenAPI schema object whose `$ref`s are bare definition names; `openapi` writes them as its
version of the format wants them, `schema_check` follows them.
"""

from __future__ import annotations

import re
from typing import Any

from glowplug.apiserver.schema_knative import DECLARED
from glowplug.apiserver.schema_models import Model, ModelField, ModelLibrary
from glowplug.apiserver.schema_overrides import (
    ALIASES,
    FIELD_TYPES,
    INT_OR_STRING,
    LIST_KEYS,
    OPTIONAL,
    PATCH_KEYS,
    PATCH_RETAIN_KEYS,
    QUANTITY,
    SETS,
    definition_name,
)
from glowplug.spec import kinds
from glowplug.spec.kinds import Kind

Definition = dict[str, Any]

# Kinds whose model is not found by the rule in `_root`.
_ROOTS = {
    kinds.EVENT: "CoreV1Event",
    kinds.INFERENCE_SERVICE: "V1beta1InferenceService",
    kinds.INFERENCE_GRAPH: "V1alpha1InferenceGraph",
    kinds.SERVING_RUNTIME: "V1alpha1ServingRuntime",
    kinds.CLUSTER_SERVING_RUNTIME: "V1alpha1ClusterServingRuntime",
}
_KNATIVE_PREFIXES = {
    "serving.knative.dev": "Serving",
    "autoscaling.internal.knative.dev": "Autoscaling",
    "eventing.knative.dev": "Eventing",
    "sources.knative.dev": "Sources",
    "sinks.knative.dev": "Sinks",
}
_PLAIN: dict[str, Definition] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "bytes": {"type": "string", "format": "byte"},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "object": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "IntOrString": {"$ref": INT_OR_STRING},
    "ResourceQuantity": {"$ref": QUANTITY},
}
_SPECIAL: dict[str, Definition] = {
    INT_OR_STRING: {
        "description": "A whole number, or a string.",
        "type": "string",
        "format": "int-or-string",
        "x-kubernetes-int-or-string": True,
    },
    QUANTITY: {
        "description": "An amount with an optional suffix: 500m, 2, 1.5Gi.",
        "type": "string",
        "x-kubernetes-int-or-string": True,
    },
}
_LIST = re.compile(r"^[Ll]ist\[(.+)\]$")
_DICT = re.compile(r"^(?:dict\(str, (.+)\)|[Dd]ict\[str, (.+)\])$")


def build(library: ModelLibrary) -> tuple[dict[str, Definition], dict[Kind, str]]:
    """All definitions by name, and the definition name of each kind that has one."""
    builder = _Builder(library)
    roots = {kind: builder.require(root) for kind in kinds.KINDS if (root := _root(kind))}
    builder.require("V1ListMeta")
    builder.run()
    for kind, name in roots.items():
        _finish_root(kind, builder.definitions[name])
    return builder.definitions, roots


def _root(kind: Kind) -> str | None:
    if kind is kinds.CUSTOM_RESOURCE_DEFINITION:
        return None
    if kind in _ROOTS:
        return _ROOTS[kind]
    return f"{_KNATIVE_PREFIXES.get(kind.group, 'V1')}{kind.name}"


def _finish_root(kind: Kind, definition: Definition) -> None:
    definition["x-kubernetes-group-version-kind"] = [
        {"group": kind.group, "version": kind.version, "kind": kind.name}
    ]
    # The generated KServe models list kind and metadata first or not at all; every object has them.
    properties = definition["properties"]
    properties.setdefault("apiVersion", {"type": "string"})
    properties.setdefault("kind", {"type": "string"})


class _Builder:
    """Definitions that are done, and models that some definition refers to and that are still to be built."""

    def __init__(self, library: ModelLibrary) -> None:
        self._library = library
        self._names: dict[str, str] = {}
        self._pending: list[Model] = []
        self.definitions: dict[str, Definition] = {name: dict(item) for name, item in _SPECIAL.items()}

    def require(self, model_name: str) -> str:
        """The definition name of a model; it is built by `run`."""
        if model_name in self._names:
            return self._names[model_name]
        model = DECLARED.get(model_name) or self._library.find(model_name)
        name = definition_name(model_name, model is not None and model.package == "kserve")
        self._names[model_name] = name
        if model is not None:
            self._pending.append(model)
        else:
            # A model that this release of the libraries lacks: anything goes there.
            self.definitions[name] = dict(_PLAIN["object"])
        return name

    def run(self) -> None:
        while self._pending:
            model = self._pending.pop()
            self.definitions[self._names[model.name]] = self._definition(model)

    def _definition(self, model: Model) -> Definition:
        definition: Definition = {
            "type": "object",
            "properties": {name: self._property(model, name, field) for name, field in model.fields.items()},
        }
        if model.description:
            definition["description"] = model.description
        required = [
            name
            for name, field in model.fields.items()
            if field.is_required and (model.name, name) not in OPTIONAL
        ]
        if required:
            definition["required"] = required
        if model.package == "kserve" and model.name.endswith("InferenceServiceStatus"):
            definition["x-kubernetes-preserve-unknown-fields"] = True
        return definition

    def _property(self, model: Model, name: str, field: ModelField) -> Definition:
        schema = dict(self._type(FIELD_TYPES.get((model.name, name), field.type)))
        if field.description:
            schema["description"] = field.description
        if schema.get("type") == "array":
            schema.update(_list_extensions(name, schema["items"]))
        return schema

    def _type(self, text: str) -> Definition:
        text = ALIASES.get(text, text)
        if text in _PLAIN:
            return _PLAIN[text]
        if match := _LIST.match(text):
            return {"type": "array", "items": self._type(match.group(1))}
        if match := _DICT.match(text):
            return {"type": "object", "additionalProperties": self._type(match.group(1) or match.group(2))}
        return {"$ref": self.require(text)}


def _list_extensions(field: str, items: Definition) -> Definition:
    if field in SETS:
        return {"x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"}
    keys = LIST_KEYS.get(field)
    if (
        keys is None
        or "$ref" not in items
        or (field == "ports" and not items["$ref"].endswith("ContainerPort"))
    ):
        return {"x-kubernetes-list-type": "atomic"}
    return {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
        "x-kubernetes-patch-merge-key": PATCH_KEYS.get(field, keys[0]),
        "x-kubernetes-patch-strategy": "merge,retainKeys" if field in PATCH_RETAIN_KEYS else "merge",
    }

"""The paths of a kind and what may be asked of them, in OpenAPI v2 and v3.

Clients look for three things here: which kind an address is about (`x-kubernetes-group-version-kind`), whether the
server checks fields and dry runs (`fieldValidation`, `dryRun`), and which kinds of patch it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glowplug.spec.kinds import Kind

Object = dict[str, Any]

_JSON = "application/json"
_PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
# Groups that Kubernetes itself has: their objects take strategic merge patches, custom resources do not.
_BUILT_IN = frozenset({"", "admissionregistration.k8s.io", "batch", "coordination.k8s.io"})

_LIST_QUERY = (
    ("allowWatchBookmarks", "boolean"), ("continue", "string"), ("fieldSelector", "string"),
    ("labelSelector", "string"), ("limit", "integer"), ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"), ("timeoutSeconds", "integer"), ("watch", "boolean"),
)  # fmt: skip
_WRITE_QUERY = (("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"))
_DELETE_QUERY = (("dryRun", "string"), ("gracePeriodSeconds", "integer"), ("propagationPolicy", "string"))


@dataclass(frozen=True)
class _Operation:
    method: str
    action: str  # Kubernetes' word for it
    query: tuple[tuple[str, str], ...] = ()
    body: str = ""  # a definition's name, "patch", or empty
    answer: str = ""  # a definition's name, or empty for a Status


@dataclass(frozen=True)
class _Path:
    path: str
    operations: tuple[_Operation, ...]

    @property
    def variables(self) -> Iterator[str]:
        return (name for name in ("namespace", "name") if f"{{{name}}}" in self.path)


def v2(kind: Kind, definition: str) -> Object:
    """Path → operations, as Swagger writes them."""
    return {
        path.path: {
            "parameters": [
                {"name": name, "in": "path", "required": True, "type": "string"} for name in path.variables
            ],
            **{operation.method: _operation_v2(kind, operation) for operation in path.operations},
        }
        for path in _paths(kind, definition)
    }


def v3(kind: Kind, definition: str) -> Object:
    """Path → operations, as OpenAPI 3 writes them."""
    return {
        path.path: {
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in path.variables
            ],
            **{operation.method: _operation_v3(kind, operation) for operation in path.operations},
        }
        for path in _paths(kind, definition)
    }


def _paths(kind: Kind, definition: str) -> Iterator[_Path]:
    prefix = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    collection = (
        f"{prefix}/namespaces/{{namespace}}/{kind.plural}"
        if kind.is_namespaced
        else f"{prefix}/{kind.plural}"
    )
    listing = _Operation("get", "list", _LIST_QUERY, answer=f"{definition}List")
    if kind.is_namespaced:
        yield _Path(f"{prefix}/{kind.plural}", (listing,))
    yield _Path(
        collection,
        (
            listing,
            _Operation("post", "post", _WRITE_QUERY, definition, definition),
            _Operation("delete", "deletecollection", (*_LIST_QUERY, *_DELETE_QUERY)),
        ),
    )
    read = _Operation("get", "get", answer=definition)
    put = _Operation("put", "put", _WRITE_QUERY, definition, definition)
    patch = _Operation("patch", "patch", (*_WRITE_QUERY, ("force", "boolean")), "patch", definition)
    delete = _Operation("delete", "delete", _DELETE_QUERY)
    yield _Path(f"{collection}/{{name}}", (read, put, patch, delete))
    if kind.has_status:
        yield _Path(f"{collection}/{{name}}/status", (read, put, patch))


def _marks(kind: Kind, operation: _Operation) -> Object:
    return {
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.name},
    }


def _patch_types(kind: Kind) -> list[str]:
    return [*_PATCHES, _STRATEGIC_PATCH] if kind.group in _BUILT_IN else list(_PATCHES)


def _operation_v2(kind: Kind, operation: _Operation) -> Object:
    parameters: list[Object] = [{"name": name, "in": "query", "type": text} for name, text in operation.query]
    if operation.body:
        schema = (
            {"type": "object"} if operation.body == "patch" else {"$ref": f"#/definitions/{operation.body}"}
        )
        parameters.append({"name": "body", "in": "body", "required": True, "schema": schema})
    answer: Object = {"description": "OK"}
    if operation.answer:
        answer["schema"] = {"$ref": f"#/definitions/{operation.answer}"}
    return {
        "consumes": _patch_types(kind) if operation.body == "patch" else [_JSON, "application/yaml"],
        "produces": [_JSON],
        "parameters": parameters,
        "responses": {"200": answer},
        **_marks(kind, operation),
    }


def _operation_v3(kind: Kind, operation: _Operation) -> Object:
    rendered: Object = {
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": text}} for name, text in operation.query
        ],
        "responses": {"200": {"description": "OK", **_content(_JSON, operation.answer)}},
        **_marks(kind, operation),
    }
    if operation.body == "patch":
        content = {media_type: {"schema": {"type": "object"}} for media_type in _patch_types(kind)}
        rendered["requestBody"] = {"required": True, "content": content}
    elif operation.body:
        rendered["requestBody"] = {"required": True, **_content("*/*", operation.body)}
    return rendered


def _content(media_type: str, definition: str) -> Object:
    if not definition:
        return {}
    return {"content": {media_type: {"schema": {"$ref": f"#/components/schemas/{definition}"}}}}

"""Bodies of requests → objects: JSON or YAML, with the fields that are written twice.

A body that cannot be read is the client's mistake and is answered with line and column. What comes out can always
be stored: whole numbers fit 64 bits, texts are valid Unicode, nesting is bounded.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import orjson

from glowplug.errors import BadRequest, UnsupportedMedia
from glowplug.spec.documents import format_path
from glowplug.spec.yamltext import MAX_DEPTH, YamlProblem, documents

Object = dict[str, Any]

_JSON_TYPES = frozenset({"", "application/json", "text/json", "*/*"})
_YAML_TYPES = frozenset(
    {"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "application/apply-patch+yaml"}
)


def decode(body: bytes, content_type: str) -> tuple[Object, tuple[str, ...]]:
    """The object in `body`, and the paths of fields that are written more than once (the last one counts in JSON,
    the first one in YAML).

    Raises BadRequest for a body that is no object, UnsupportedMedia for another content type.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _YAML_TYPES:
        value, duplicates = _yaml(body)
    elif media_type in _JSON_TYPES:
        value, duplicates = _json(body)
    else:
        raise UnsupportedMedia(
            f"the body of the request is {media_type}",
            hint="the local machine reads application/json and application/yaml",
        )
    if not isinstance(value, dict):
        raise BadRequest(
            "the body of the request is not an object", hint="an object has apiVersion, kind and metadata"
        )
    return value, duplicates


def _yaml(body: bytes) -> tuple[Any, tuple[str, ...]]:
    try:
        found = list(documents(_text(body)))
    except YamlProblem as problem:
        raise BadRequest(
            f"the body of the request is not YAML: line {problem.line}, column {problem.column}: {problem.message}",
            hint=problem.hint,
        ) from problem
    if len(found) != 1:
        raise BadRequest(f"the body of the request holds {len(found)} objects, not one")
    return found[0].value, tuple(format_path(path) for path, _ in found[0].duplicates)


def _json(body: bytes) -> tuple[Any, tuple[str, ...]]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"the body of the request is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    _check_depth(value)
    return value, tuple(_duplicates(body))


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise BadRequest(f"the body of the request is not UTF-8 text: line {line}") from error


def _check_depth(value: Any) -> None:
    """Level by level and not by recursion, which deep nesting would break."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadRequest(f"the body of the request is nested more than {MAX_DEPTH} levels deep")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level = below


class _Pairs(dict[str, Any]):
    """A JSON object that remembers which of its names were written again."""

    repeated: tuple[str, ...] = ()


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    found = _Pairs(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        found.repeated = tuple(name for name, count in counts.items() if count > 1)
    return found


def _duplicates(body: bytes) -> list[str]:
    """orjson keeps the last of several and says nothing, so the text is read once more by a parser that tells."""
    found: list[str] = []
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), json.loads(body, object_pairs_hook=_pairs))]
    while pending:
        path, value = pending.pop()
        if isinstance(value, _Pairs):
            found.extend(format_path((*path, name)) for name in value.repeated)
            pending.extend(((*path, name), item) for name, item in value.items())
        elif isinstance(value, list):
            pending.extend(((*path, index), item) for index, item in enumerate(value))
    return sorted(found)

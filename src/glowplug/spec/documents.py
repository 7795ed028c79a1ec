"""Files of YAML for the command line: the objects in them, and the line that each field is on.

The line is what turns `spec.predictor.minReplicas: must be 0 or more` into a message that an editor can jump to,
whether a check on this computer found the problem or the API did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from glowplug.errors import ManifestError, Problem
from glowplug.spec.yamltext import Path, YamlDocument, YamlProblem, documents

Object = dict[str, Any]


@dataclass(frozen=True)
class Document:
    """One object of a file. `problems` are keys written twice: the first one counts, but nobody meant that."""

    object: Object
    source: str
    line: int
    lines: Mapping[Path, int]
    problems: tuple[Problem, ...] = ()

    def line_of(self, field: str) -> int:
        """The line of a field path as Kubernetes writes it, or of its nearest parent that is written in the file."""
        path = _path(self.object, field)
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.line)

    def describe(self, problem: Problem) -> str:
        """`fraud.yaml:14 spec.predictor.minReplicas: Invalid value: -1: ...`"""
        return f"{self.source}:{self.line_of(problem.field)} {problem.field}: {problem.message}"


def load(text: str, source: str) -> list[Document]:
    """Every object of `text`, lists of objects opened up. `source` is the file's name, for messages.

    Raises ManifestError, with file, line and column, where the text is no YAML or holds something else than objects.
    """
    loaded: list[Document] = []
    try:
        for document in documents(text):
            loaded.extend(_objects(document, source))
    except YamlProblem as problem:
        where = f"{source}:{problem.line}:{problem.column}"
        raise ManifestError(f"{where} {problem.message}", hint=problem.hint) from problem
    return loaded


def _objects(document: YamlDocument, source: str) -> Iterator[Document]:
    value = document.value
    if isinstance(value, dict) and _is_list(value):
        for index, item in enumerate(value["items"]):
            yield _object(document, item, ("items", index), source)
    else:
        yield _object(document, value, (), source)


def _is_list(value: Object) -> bool:
    kind = value.get("kind")
    return isinstance(kind, str) and kind.endswith("List") and isinstance(value.get("items"), list)


def _object(document: YamlDocument, value: Any, root: Path, source: str) -> Document:
    line = document.lines.get(root, document.line)
    if not isinstance(value, dict):
        raise ManifestError(
            f"{source}:{line} holds {_named(value)}, not an object",
            hint="an object has apiVersion, kind and metadata",
        )
    for name in ("apiVersion", "kind"):
        if not isinstance(value.get(name), str) or not value[name]:
            raise ManifestError(
                f"{source}:{line} the object has no {name}", hint="every object needs apiVersion and kind"
            )
    depth = len(root)
    lines = {path[depth:]: at for path, at in document.lines.items() if path[:depth] == root}
    problems = tuple(
        Problem(
            format_path(path[depth:]), f"Duplicate value: written again on line {at}", "FieldValueDuplicate"
        )
        for path, at in document.duplicates
        if path[:depth] == root
    )
    return Document(value, source, line, lines, problems)


def _named(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return f"the text {value[:40]!r}" if isinstance(value, str) else str(value)


def format_path(path: Path) -> str:
    """`("spec", "containers", 0, "name")` as `spec.containers[0].name`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _path(obj: Any, field: str) -> Path:
    """The keys that a field path names in `obj`, as far as they exist; keys may themselves hold dots and slashes."""
    path: list[str | int] = []
    rest = field
    while rest:
        step = _step(obj, rest)
        if step is None:
            break
        key, length = step
        obj = obj[key]
        path.append(key)
        rest = rest[length:].lstrip(".")
    return tuple(path)


def _step(obj: Any, rest: str) -> tuple[str | int, int] | None:
    """The key that `rest` begins with, and how much of `rest` it takes."""
    if isinstance(obj, list):
        index, bracket, _ = rest[1:].partition("]")
        if rest.startswith("[") and bracket and index.isdecimal() and int(index) < len(obj):
            return int(index), len(index) + 2
        return None
    if not isinstance(obj, dict):
        return None
    for key in sorted(obj, key=len, reverse=True):
        for written in (f"[{key}]", key):
            after = rest[len(written) : len(written) + 1]
            if rest.startswith(written) and after in ("", ".", "["):
                return key, len(written)
    return None

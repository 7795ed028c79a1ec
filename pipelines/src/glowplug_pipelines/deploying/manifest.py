"""The one value in a manifest that says which model is served: found, and replaced as text. Pure.

YAML is parsed to find where the value stands and to check what came out, never to be written again: comments, order,
quotes and line ends stay what they are, so that the commit shows one changed line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from .errors import EditedMeanwhile, Unambiguous

_GROUP = "serving.kserve.io/"
_KIND = "InferenceService"
_FIELD = "storageUri"
# An address or a path, which stands in YAML without quotes wherever a value may stand.
_PLAIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/|)/[A-Za-z0-9/._@+=~:%-]*[A-Za-z0-9/_=+~-]")
_TEXT = "tag:yaml.org,2002:str"
Scalar = yaml.ScalarNode


@dataclass(frozen=True)
class Target:
    """Whose `storageUri` it is; `namespace` is compared only where the manifest writes one."""

    inference_service: str
    namespace: str
    component: str

    def __str__(self) -> str:
        return f"InferenceService {self.inference_service}: spec.{self.component}…{_FIELD}"


def current(text: str, target: Target, where: str) -> str:
    """The value that is there. Raises Unambiguous, which names `where`."""
    return str(_found(text, target, where).value)


def edit(text: str, target: Target, previous: str | None, value: str, where: str) -> str:
    """`text` with `value` in place; the same text where it is there already.

    Raises EditedMeanwhile where neither it nor `previous` is there (None: anything may be), Unambiguous where there is
    not one place to write it to.
    """
    node = _found(text, target, where)
    if node.value == value:
        return text
    if previous is not None and node.value != previous:
        raise EditedMeanwhile(
            f"{where}:{node.start_mark.line + 1} {target} is {node.value}, expected {previous}",
            hint="somebody has changed it since the run began; start another run to replace that version",
        )
    edited = text[: node.start_mark.index] + _written(value, node.style) + text[node.end_mark.index :]
    if not _differs_only(text, edited, node.value, value):
        raise Unambiguous(
            f"{where}:{node.start_mark.line + 1} {target} cannot be changed by itself",
            hint="write it on a line of its own, without anchors",
        )
    return edited


def _found(text: str, target: Target, where: str) -> Scalar:
    try:
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        raise Unambiguous(f"{where} is no YAML: {error}") from error
    nodes = [node for document in documents if document for node in _places(document, target)]
    if len(nodes) != 1:
        lines = ", ".join(str(node.start_mark.line + 1) for node in nodes)
        shown = f"{len(nodes)} places, on the lines {lines}" if nodes else "no place"
        raise Unambiguous(
            f"{where} has {shown} for {target}, expected one",
            hint=f"deploying.git.path must be the file with the {_KIND} itself, not a patch of it or a template",
        )
    (node,) = nodes
    if not isinstance(node, Scalar) or node.style in ("|", ">") or "\n" in node.value:
        raise Unambiguous(
            f"{where}:{node.start_mark.line + 1} {target} is no text on one line", hint="write it on one line"
        )
    if text[node.start_mark.index : node.start_mark.index + 1] in ("&", "*", "!"):
        raise Unambiguous(
            f"{where}:{node.start_mark.line + 1} {target} has an anchor or a tag, which other places may use",
            hint="write the value out",
        )
    return node


def _places(document: yaml.Node, target: Target) -> Iterator[yaml.Node]:
    """Where the value stands, in an InferenceService that is the target; its `List`s are looked through."""
    (kind,), (group,) = _texts(document, "kind"), _texts(document, "apiVersion")
    if kind == "List" or kind.endswith("List"):
        for items in _below(document, "items"):
            for item in items.value if isinstance(items, yaml.SequenceNode) else ():
                yield from _places(item, target)
        return
    if kind != _KIND or not group.startswith(_GROUP):
        return
    metadata = next(_below(document, "metadata"), None)
    (name,), (space,) = _texts(metadata, "name"), _texts(metadata, "namespace")
    if name != target.inference_service or space not in ("", target.namespace):
        return
    for spec in _below(document, "spec"):
        for component in _below(spec, target.component):
            yield from _below(component, _FIELD)
            # `model:`, or the older forms that are named after the framework.
            for _, implementation in _pairs(component):
                yield from _below(implementation, _FIELD)


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _below(node: yaml.Node | None, key: str) -> Iterator[yaml.Node]:
    return (value for name, value in _pairs(node) if isinstance(name, Scalar) and name.value == key)


def _texts(node: yaml.Node | None, key: str) -> tuple[str]:
    found = next(_below(node, key), None)
    return (str(found.value) if isinstance(found, Scalar) else "",)


def _written(value: str, style: str | None) -> str:
    if style == "'":
        return "'" + value.replace("'", "''") + "'"
    if style is None and _PLAIN.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _differs_only(before: str, after: str, old: str, new: str) -> bool:
    """Whether exactly one `storageUri` differs, `old` there and `new` here."""
    try:
        pairs = list(zip(_leaves(before), _leaves(after), strict=True))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    changed = [(was, now) for was, now in pairs if was != now]
    if len(changed) != 1:
        return False
    (was, now) = changed[0]
    return (was[1], now[1], now[2]) == (old, new, _TEXT)


def _leaves(text: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []

    def walk(node: yaml.Node, path: tuple[Any, ...]) -> None:
        if isinstance(node, Scalar):
            found.append((path, node.value, node.tag))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                walk(item, (*path, index))
        else:
            for name, value in _pairs(node):
                walk(value, (*path, str(name.value)))

    for number, document in enumerate(yaml.compose_all(text, Loader=yaml.SafeLoader)):
        if document is not None:
            walk(document, (number,))
    return found

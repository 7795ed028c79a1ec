"""Sets of fields, as `metadata.managedFields` keeps them.

A path is a tuple of elements written as in `fieldsV1`: `f:spec` a field, `k:{"name":"a"}` an item of a keyed list,
`v:"x"` a member of a set. A field set is a frozenset of such paths, so union, intersection and difference are
Python's own. Owning a path says nothing about what lies below it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from glowplug.apiserver.listkeys import Shape, canonical_json

Path = tuple[str, ...]
FieldSet = frozenset[Path]
# A `fieldsV1` object: element -> subtree, with "." for the element itself where it is owned and has a subtree too.
Tree = dict[str, Any]

EMPTY: FieldSet = frozenset()


def decode(fields_v1: object) -> FieldSet:
    """The paths of a `fieldsV1` object; ValueError if it is none."""
    paths: set[Path] = set()
    _decode_into(paths, (), fields_v1)
    return frozenset(paths)


def _decode_into(paths: set[Path], prefix: Path, tree: object) -> None:
    if not isinstance(tree, dict):
        raise ValueError(f"a set of fields is an object, found {canonical_json(tree)}")
    for name, subtree in tree.items():
        if name == ".":
            paths.add(prefix)
            continue
        path = (*prefix, _canonical_element(name))
        if subtree == {}:
            paths.add(path)
        else:
            _decode_into(paths, path, subtree)


def _canonical_element(name: str) -> str:
    kind, colon, rest = name.partition(":")
    if not colon or kind not in ("f", "k", "v", "i"):
        raise ValueError(f"unknown path element {name!r}, expected f:, k:, v: or i:")
    if kind == "f":
        return name
    try:
        return f"{kind}:{canonical_json(orjson.loads(rest))}"
    except orjson.JSONDecodeError as broken:
        raise ValueError(f"path element {name!r} does not hold JSON: {broken}") from broken


def encode(paths: Iterable[Path]) -> Tree:
    """The `fieldsV1` object of these paths, its elements sorted."""
    tree: Tree = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _without_lone_dots(tree)


def _without_lone_dots(tree: Tree) -> Tree:
    for name, subtree in tree.items():
        if name != ".":
            tree[name] = {} if len(subtree) == 1 and "." in subtree else _without_lone_dots(subtree)
    return tree


def owns_root(tree: Tree) -> bool:
    """Whether the element that this subtree hangs on is itself in the set."""
    return not tree or "." in tree


def path_text(path: Path) -> str:
    """The path as conflicts and causes name it: `.spec.containers[name="a"].image`."""
    return "".join(_element_text(element) for element in path)


def _element_text(element: str) -> str:
    kind, _, rest = element.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "v":
        return f"[={rest}]"
    if kind == "i":
        return f"[{rest}]"
    named = orjson.loads(rest)
    return "[" + ",".join(f"{key}={canonical_json(value)}" for key, value in named.items()) + "]"


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted as Kubernetes lists the fields of a conflict: members of a level before what lies below them."""
    return sorted(paths, key=_order)


def _order(path: Path) -> tuple[tuple[int, str], ...]:
    last = len(path) - 1
    return tuple((0 if index == last else 1, element) for index, element in enumerate(path))


def with_records(paths: FieldSet, shape: Shape) -> FieldSet:
    """The paths, and every record on the way to them.

    Nobody owns `spec` in itself, yet whoever owns a field of it keeps it in being: what is removed from or kept in
    an object is decided on sets that include them.
    """
    found: set[Path] = set(paths)
    visited: set[Path] = set()
    for path in paths:
        here = shape
        for depth, element in enumerate(path[:-1], start=1):
            prefix = path[:depth]
            if prefix not in visited and element.startswith("f:") and here.has_field(element[2:]):
                found.add(prefix)
            visited.add(prefix)
            here = here.below(element)
    return frozenset(found)

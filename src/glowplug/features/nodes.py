"""Reads a YAML document with the place of every value, and collects every problem instead of stopping at the first.

PyYAML's composer keeps each node's line; its constructor throws it away. So this walks the node tree. It knows
nothing of feature views: `parse` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

_SCALARS: dict[str, type | tuple[type, ...]] = {
    "a string": str,
    "a number": (int, float),
    "an integer": int,
}


@dataclass
class Problems:
    """What is wrong with one file, each as `file:line path = value, must be …`, in the file's order."""

    file: str
    _found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, node: yaml.Node, path: str, message: str) -> None:
        line = node.start_mark.line + 1
        self._found.append((line, f"{self.file}:{line} {path}{message}"))

    def __bool__(self) -> bool:
        return bool(self._found)

    def messages(self) -> list[str]:
        return [message for _, message in sorted(self._found, key=lambda found: found[0])]


class StrictLoader(yaml.SafeLoader):
    """Only for constructing scalars; documents are composed, not loaded."""


# libyaml's, where PyYAML was built with it: a view takes 2 ms of a transformer's start, not 18.
_COMPOSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def compose(text: str) -> yaml.Node | None:
    """The node tree of the one document in `text`. Raises `yaml.YAMLError`."""
    return yaml.compose(text, Loader=_COMPOSER)


def scalar(node: yaml.Node) -> Any:
    """The Python value of a node. Raises `ValueError` or `yaml.YAMLError` where YAML's own resolver would."""
    loader = StrictLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


@dataclass
class Mapping:
    """A YAML mapping being read: fields are taken by name, and what nobody took is a problem."""

    problems: Problems
    node: yaml.MappingNode
    path: str
    _fields: dict[str, yaml.Node] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, problems: Problems, node: yaml.Node, path: str) -> Mapping | None:
        if not isinstance(node, yaml.MappingNode):
            problems.add(node, path, f" = {_show(node)}, must be a mapping")
            return None
        mapping = cls(problems, node, path)
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not name:
                problems.add(key, path, " has a key that is not a name")
            elif name in mapping._fields:
                problems.add(key, mapping.at(name), " is given twice")
            else:
                mapping._fields[name] = value
        return mapping

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str, *, required: bool = True) -> yaml.Node | None:
        self._taken.add(name)
        node = self._fields.get(name)
        if node is None and required:
            self.problems.add(self.node, self.at(name), " is missing")
        return node

    def text(self, name: str, *, required: bool = True) -> str | None:
        value: str | None = self._scalar(name, "a string", required=required)
        if value == "":
            self.problems.add(self._fields[name], self.at(name), " is empty")
            return None
        return value

    def number(self, name: str) -> float | None:
        value = self._scalar(name, "a number", required=False)
        return None if value is None else float(value)

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        # Raw text, since YAML reads `null` as no value and it is one of our words.
        node = self.take(name, required=False)
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode) or node.value not in choices:
            self.problems.add(node, self.at(name), f" = {_show(node)}, must be one of {', '.join(choices)}")
            return default
        return str(node.value)

    def mapping(self, name: str) -> Mapping | None:
        node = self.take(name)
        return None if node is None else Mapping.read(self.problems, node, self.at(name))

    def items(self, name: str) -> Iterator[tuple[yaml.Node, str]]:
        """Nodes and paths of a list that must have at least one item."""
        node = self.take(name)
        if node is None:
            return
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.problems.add(node, self.at(name), f" = {_show(node)}, must be a list of at least one")
            return
        for index, item in enumerate(node.value):
            yield item, f"{self.at(name)}[{index}]"

    def strings(self, name: str) -> list[tuple[yaml.Node, str, str]]:
        """(node, path, value) of a list of non-empty strings."""
        found: list[tuple[yaml.Node, str, str]] = []
        for item, path in self.items(name):
            if isinstance(item, yaml.ScalarNode) and item.tag == "tag:yaml.org,2002:str" and item.value:
                found.append((item, path, str(item.value)))
            else:
                self.problems.add(item, path, f" = {_show(item)}, must be a string")
        return found

    def done(self) -> None:
        """Call last: every field that nobody took is unknown."""
        known = ", ".join(sorted(self._taken))
        for key, _ in self.node.value:
            if isinstance(key, yaml.ScalarNode) and key.value and key.value not in self._taken:
                self.problems.add(key, self.at(key.value), f" is unknown; known: {known}")

    def _scalar(self, name: str, kind: str, *, required: bool) -> Any:
        node = self.take(name, required=required)
        if node is None:
            return None
        try:
            value = scalar(node) if isinstance(node, yaml.ScalarNode) else node
        except (ValueError, yaml.YAMLError):
            value = node
        if isinstance(value, bool) or not isinstance(value, _SCALARS[kind]):
            self.problems.add(node, self.at(name), f" = {_show(node)}, must be {kind}")
            return None
        return value


def _show(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        text = node.value if len(node.value) <= 60 else node.value[:57] + "..."
        return repr(text) if node.style in ("'", '"') else (text or "nothing")
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"

"""YAML text → JSON-shaped values, with the line of every field and every key that is written twice.

YAML is read as Kubernetes reads it: what JSON has, with `yes`/`on` as booleans, no timestamps, no tags, keys as
strings. It is built from the parser's events and not from a constructed tree, so that nesting, size and the
multiplication of aliases are bounded before memory is spent, and so that a line is known for each path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

MAX_TEXT = 8 * 1024 * 1024  # characters of one text
MAX_DEPTH = 100
MAX_VALUES = 500_000  # values of one text, each use of an alias counted anew

Path = tuple[str | int, ...]

# libyaml's parser where the wheel has it: ten times as fast, the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR = "tag:yaml.org,2002:str"
_MERGE = "<<"
_INT = re.compile(
    r"^[-+]?(0b_*[01][01_]*|0(o_*[0-7])?[0-7_]*|0x_*[0-9a-fA-F][0-9a-fA-F_]*|[1-9][0-9_]*)$", re.ASCII
)
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$", re.ASCII)
_NOT_FINITE = re.compile(r"^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")
_BOOLS = {
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class YamlProblem(Exception):
    """A text that is no YAML, or YAML that no object can be; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.hint = hint


@dataclass(frozen=True)
class YamlDocument:
    """`value` as JSON has it; `lines` path → line; `duplicates` paths of keys written again, with that line."""

    value: Any
    line: int
    lines: Mapping[Path, int]
    duplicates: tuple[tuple[Path, int], ...]


def documents(text: str) -> Iterator[YamlDocument]:
    """The documents of `text`, one by one; empty ones are left out. Raises YamlProblem."""
    if len(text) > MAX_TEXT:
        raise YamlProblem(f"{len(text)} characters, at most {MAX_TEXT} are read", 1, 1)
    events = _events(text)
    budget = _Budget()
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            reader = _Reader(events, budget)
            root = reader.node(next(events), 0)
            if not (isinstance(root, _Scalar) and root.value is None):
                yield reader.document(root)


def _events(text: str) -> Iterator[Any]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise YamlProblem(message or "not YAML", line, column, _hint(text, line, message)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        raise YamlProblem(f"character #x{ord(_character(error)):04x} is not allowed", line, column) from error
    except UnicodeEncodeError as error:
        raise YamlProblem("half of a surrogate pair is not a character", 1, 1) from error


def _character(error: yaml.reader.ReaderError) -> str:
    character: Any = error.character
    return chr(character) if isinstance(character, int) else str(character)[:1] or "\0"


def _hint(text: str, line: int, message: str) -> str:
    lines = text.split("\n")
    around = lines[max(0, line - 2) : line]
    if any("\t" in row[: len(row) - len(row.lstrip())] for row in around):
        return "indent with spaces, YAML allows no tabs"
    if "mapping values are not allowed" in message:
        return "indentation of this line, or a missing quote around a text with a colon"
    if "found unhashable key" in message or "{{" in "".join(around):
        return "quote a text that begins with {"
    if "expected <block end>" in message or "did not find expected" in message:
        return "check that this line is indented like its neighbours"
    return ""


@dataclass
class _Scalar:
    value: Any
    line: int
    text: str  # as written, for keys
    is_merge: bool = False


@dataclass
class _Sequence:
    items: list[Any]
    line: int


@dataclass
class _Mapping:
    items: list[tuple[_Scalar, Any]]
    line: int


@dataclass
class _Budget:
    values: int = 0

    def spend(self, line: int, column: int = 1) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise YamlProblem(f"more than {MAX_VALUES} values", line, column, "an alias repeats too much")


@dataclass
class _Reader:
    """One document: `node` builds a tree that shares aliased parts, `document` unfolds it into values and lines."""

    events: Iterator[Any]
    budget: _Budget
    anchors: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    duplicates: list[tuple[Path, int]] = field(default_factory=list)

    def node(self, event: Any, depth: int) -> Any:
        node: Any
        line: int = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            _fail(event, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            # An anchor is known only once its node is complete, so a node can't contain itself.
            if event.anchor not in self.anchors:
                _fail(event, f"alias *{event.anchor} has no anchor before it")
            return self.anchors[event.anchor]
        if isinstance(event, yaml.ScalarEvent):
            is_merge = event.value == _MERGE and event.implicit[0]
            node = _Scalar(_scalar(event), line, event.value, is_merge)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = _Sequence(self._items(depth), line)
        else:
            node = _Mapping(self._pairs(depth), line)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _items(self, depth: int) -> list[Any]:
        items = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, depth + 1))
        return items

    def _pairs(self, depth: int) -> list[tuple[_Scalar, Any]]:
        pairs = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            if not isinstance(key, _Scalar):
                hint = "quote a text that begins with {" if isinstance(key, _Mapping) else ""
                _fail(event, "a key must be plain text", hint)
            pairs.append((key, self.node(next(self.events), depth + 1)))
        return pairs

    def document(self, root: Any) -> YamlDocument:
        value = self._value(root, (), 0)
        return YamlDocument(value, root.line, self.lines, tuple(self.duplicates))

    def _value(self, node: Any, path: Path, depth: int) -> Any:
        self.budget.spend(node.line)
        if depth > MAX_DEPTH:
            raise YamlProblem(f"nested more than {MAX_DEPTH} levels deep", node.line, 1)
        self.lines.setdefault(path, node.line)
        if isinstance(node, _Scalar):
            return node.value
        if isinstance(node, _Sequence):
            return [self._value(item, (*path, index), depth + 1) for index, item in enumerate(node.items)]
        return self._mapping(node, path, depth)

    def _mapping(self, node: _Mapping, path: Path, depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for key, item in node.items:
            if key.is_merge:
                continue
            name = _key(key)
            child = (*path, name)
            if name in value:
                self.duplicates.append((child, key.line))
                continue
            self.lines[child] = key.line
            value[name] = self._value(item, child, depth + 1)
        for merged in self._merged(node):
            for name, item in self._mapping(merged, path, depth + 1).items():
                value.setdefault(name, item)
        return value

    def _merged(self, node: _Mapping) -> Iterator[_Mapping]:
        """What `<<` brings in; keys that are written out win, then the earlier of several."""
        for key, item in node.items:
            if not key.is_merge:
                continue
            for source in item.items if isinstance(item, _Sequence) else [item]:
                self.budget.spend(key.line)
                if not isinstance(source, _Mapping):
                    raise YamlProblem("<< wants a mapping, or a list of mappings", key.line, 1)
                yield source


def _key(key: _Scalar) -> str:
    if isinstance(key.value, str):
        return key.value
    if isinstance(key.value, bool):
        return "true" if key.value else "false"
    return key.text if key.value is not None else "null"


def _scalar(event: Any) -> Any:
    text: str = event.value
    tag = event.tag
    if tag == _STR or tag == "!" or (tag is None and not event.implicit[0]):
        return text
    if tag is not None and not event.implicit[0]:
        _fail(event, f"tag {tag} is not allowed", "objects hold plain texts, numbers and booleans only")
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.match(text):
        return _int(event, text.replace("_", ""))
    if _NOT_FINITE.match(text):
        _fail(event, f"{text} is not a number that JSON can hold", "quote it if it is meant as text")
    if _FLOAT.match(text):
        number = float(text.replace("_", ""))
        if math.isinf(number):
            _fail(event, f"{text[:40]} is too large a number")
        return number
    return text


def _int(event: Any, text: str) -> int:
    if len(text) > 70:
        _fail(event, "too large a number")
    digits = text.lstrip("+-")
    if re.match(r"^0o?[0-7]+$", digits):
        number = int(digits.replace("o", ""), 8)
    else:
        number = int(digits, 0)
    number = -number if text.startswith("-") else number
    if not -(2**63) <= number < 2**64:
        _fail(event, f"{text} is too large a number")
    return number


def _fail(event: Any, message: str, hint: str = "") -> NoReturn:
    raise YamlProblem(message, event.start_mark.line + 1, event.start_mark.column + 1, hint)

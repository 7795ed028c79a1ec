"""The JSON paths of printer columns: the small part of kubectl's language that CRDs use.

`.a.b`, `['quoted\\.key']`, `[3]`, `[*]`, `[?(@.key=='text')]` and the same with a number, `true` or `false`.
A path is compiled once; what it yields is the first value that it finds, as the API server prints it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import orjson

Step = Callable[[Any], Iterable[Any]]

_STEP = re.compile(
    r"""\.(?P<field>[\w-]+)
      | \['(?P<quoted>(?:[^'\\]|\\.)+)'\]
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \[\?\(@(?P<filter>(?:\.[\w-]+)+)\s*==\s*(?P<literal>'[^']*'|"[^"]*"|true|false|-?\d+)\)\]""",
    re.VERBOSE,
)


def json_path(text: str) -> Callable[[Any], Any]:
    """A function that finds the first value at `text` in an object, None where there is none.

    ValueError if the path uses more of the language than this.
    """
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            raise ValueError(f"JSON path {text!r} cannot be read from {text[at:]!r}")
        steps.append(_step(found))
        at = found.end()
    return lambda value: _first(value, steps, 0)


def _first(value: Any, steps: list[Step], at: int) -> Any:
    if at == len(steps):
        return value
    for child in steps[at](value):
        found = _first(child, steps, at + 1)
        if found is not None:
            return found
    return None


def _step(found: re.Match[str]) -> Step:
    if found["field"] is not None:
        return _field(found["field"])
    if found["quoted"] is not None:
        return _field(re.sub(r"\\(.)", r"\1", found["quoted"]))
    if found["index"] is not None:
        return _item(int(found["index"]))
    if found["all"] is not None:
        return _children
    return _matching(found["filter"][1:].split("."), _literal(found["literal"]))


def _literal(text: str) -> object:
    return text[1:-1] if text[0] in "'\"" else orjson.loads(text)


def _field(name: str) -> Step:
    def step(value: Any) -> Iterable[Any]:
        return (value[name],) if isinstance(value, dict) and name in value else ()

    return step


def _item(index: int) -> Step:
    def step(value: Any) -> Iterable[Any]:
        return (value[index],) if isinstance(value, list) and -len(value) <= index < len(value) else ()

    return step


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, list):
        return value
    return value.values() if isinstance(value, dict) else ()


def _matching(keys: list[str], wanted: object) -> Step:
    def is_match(item: Any) -> bool:
        for key in keys:
            if not isinstance(item, dict) or key not in item:
                return False
            item = item[key]
        return type(item) is type(wanted) and bool(item == wanted)

    def step(value: Any) -> Iterable[Any]:
        return [item for item in value if is_match(item)] if isinstance(value, list) else ()

    return step

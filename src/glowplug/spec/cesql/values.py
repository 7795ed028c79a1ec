"""Values of CloudEvents SQL: text, 32-bit numbers and booleans, their casts, operators and functions. Pure.

An operation that errs raises Undefined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Value = str | int | bool
_LEAST, _LARGEST = -(2**31), 2**31 - 1
_NUMBER = re.compile(r"[+-]?[0-9]+")


class Undefined(Exception):
    """There is no value: a cast, a division, a missing attribute, an argument out of range."""


def to_bool(value: Value) -> bool:
    if isinstance(value, str):
        lowered = value.lower()
        if lowered not in ("true", "false"):
            raise Undefined(f"{value!r} is no boolean")
        return lowered == "true"
    return bool(value)


def to_int(value: Value) -> int:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise Undefined(f"{value!r} is no number")
        # Longer ones are out of range, and expensive to convert.
        return bounded(int(value) if len(value) < 20 else _LARGEST + 1)
    return int(value)


def to_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def bounded(value: int) -> int:
    if not _LEAST <= value <= _LARGEST:
        raise Undefined(f"{value} is out of the range of 32 bits")
    return value


def cast_like(value: Value, example: Value) -> Value:
    """`value` as the type that `example` has."""
    if isinstance(example, bool):
        return to_bool(value)
    return to_int(value) if isinstance(example, int) else to_text(value)


def is_equal(left: Value, right: Value) -> bool:
    """The type of the right side decides."""
    return cast_like(left, right) == right


def quotient(left: int, right: int) -> int:
    """Rounded towards zero."""
    if right == 0:
        raise Undefined("division by zero")
    size = abs(left) // abs(right)
    return bounded(size if (left < 0) == (right < 0) else -size)


def remainder(left: int, right: int) -> int:
    """With the sign of `left`."""
    if right == 0:
        raise Undefined("division by zero")
    size = abs(left) % abs(right)
    return -size if left < 0 else size


ARITHMETIC: Mapping[str, Callable[[int, int], int]] = {
    "+": lambda left, right: bounded(left + right),
    "-": lambda left, right: bounded(left - right),
    "*": lambda left, right: bounded(left * right),
    "/": quotient,
    "%": remainder,
}
COMPARISON: Mapping[str, Callable[[int, int], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


@dataclass(frozen=True)
class _Part:
    """What stands between two `%` of a pattern: `size` characters."""

    expression: re.Pattern[str]
    size: int


def like(pattern: str) -> Callable[[str], bool]:
    """Whether a text is of a LIKE pattern: `%` any characters, `_` one, a backslash before either is that one.

    Each part is looked for once, from where the one before it ends: as one expression, the parts would be tried in
    every combination of places that there is.
    """
    head, *others = _parts(pattern)
    if not others:
        return lambda text: head.expression.fullmatch(text) is not None
    *middle, tail = others

    def matches(text: str) -> bool:
        found = head.expression.match(text)
        for part in middle:
            if found is None:
                return False
            found = part.expression.search(text, found.end())
        start = len(text) - tail.size
        return found is not None and found.end() <= start and tail.expression.match(text, start) is not None

    return matches


def _parts(pattern: str) -> list[_Part]:
    parts: list[list[str]] = [[]]
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if char == "\\" and pattern[index + 1 : index + 2] in ("%", "_"):
            index += 1
            parts[-1].append(re.escape(pattern[index]))
        elif char == "%":
            parts.append([])
        else:
            parts[-1].append("." if char == "_" else re.escape(char))
        index += 1
    return [_Part(re.compile("".join(part), re.DOTALL), len(part)) for part in parts]


def _left(text: str, count: int) -> str:
    if count < 0:
        raise Undefined("LEFT of less than nothing")
    return text[:count]


def _right(text: str, count: int) -> str:
    if count < 0:
        raise Undefined("RIGHT of less than nothing")
    return text[-count:] if 0 < count <= len(text) else text if count else ""


def _substring(text: str, start: int, length: int | None = None) -> str:
    if start == 0:
        return ""
    if abs(start) > len(text) or (length is not None and length < 0):
        raise Undefined("SUBSTRING beyond its text")
    rest = text[start - 1 :] if start > 0 else text[start:]
    return rest if length is None else rest[:length]


def _concat_with(delimiter: str, *texts: str) -> str:
    return delimiter.join(texts)


_TEXT, _INT, _BOOL, _ANY = to_text, to_int, to_bool, lambda value: value
_Cast = Callable[[Any], Any]

# By name: for each arity the casts of its arguments, and what is computed.
FUNCTIONS: Mapping[str, Mapping[int, tuple[tuple[_Cast, ...], Callable[..., Value]]]] = {
    "LENGTH": {1: ((_TEXT,), len)},
    "LOWER": {1: ((_TEXT,), str.lower)},
    "UPPER": {1: ((_TEXT,), str.upper)},
    "TRIM": {1: ((_TEXT,), str.strip)},
    "LEFT": {2: ((_TEXT, _INT), _left)},
    "RIGHT": {2: ((_TEXT, _INT), _right)},
    "SUBSTRING": {2: ((_TEXT, _INT), _substring), 3: ((_TEXT, _INT, _INT), _substring)},
    "ABS": {1: ((_INT,), lambda value: bounded(abs(value)))},
    "INT": {1: ((_INT,), int)},
    "BOOL": {1: ((_BOOL,), bool)},
    "STRING": {1: ((_TEXT,), str)},
    "IS_INT": {1: ((_ANY,), lambda value: _casts(to_int, value))},
    "IS_BOOL": {1: ((_ANY,), lambda value: _casts(to_bool, value))},
}
# Of any number of texts.
VARIADIC: Mapping[str, tuple[int, Callable[..., str]]] = {
    "CONCAT": (0, lambda *texts: "".join(texts)),
    "CONCAT_WS": (1, _concat_with),
}


def _casts(cast: _Cast, value: Value) -> bool:
    try:
        cast(value)
    except Undefined:
        return False
    return True

"""The members of a JSON object with the text that each value was, so that it can be handed on as it came. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")


class JsonProblem(ValueError):
    """What does not parse; the message says where."""


def object_members(text: str) -> Iterator[tuple[str, Any, str]]:
    """Name, value and the value's own text, of each member of an object. Raises JsonProblem."""
    position = _after(text, 0, "{", "an object")
    if _is(text, position, "}"):
        _end(text, position)
        return
    while True:
        name, position = _value(text, position)
        if not isinstance(name, str):
            raise _unexpected(text, position, "a name in quotes")
        start = _after(text, position, ":", "':'")
        value, end = _value(text, start)
        yield name, value, text[start:end]
        position = _skip(text, end)
        if _is(text, position, "}"):
            _end(text, position)
            return
        position = _after(text, position, ",", "',' or '}'")


def array_elements(text: str) -> Iterator[str]:
    """The text of each element of an array. Raises JsonProblem."""
    position = _after(text, 0, "[", "an array")
    if _is(text, position, "]"):
        _end(text, position)
        return
    while True:
        _, end = _value(text, position)
        yield text[position:end]
        position = _skip(text, end)
        if _is(text, position, "]"):
            _end(text, position)
            return
        position = _after(text, position, ",", "',' or ']'")


def _refuse(constant: str) -> Any:
    raise JsonProblem(f"not JSON: {constant}")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _value(text: str, position: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except RecursionError:
        raise JsonProblem("nested too deeply") from None
    except JsonProblem:
        raise
    # Beside what is no JSON: integers of more digits than Python converts.
    except ValueError as error:
        raise JsonProblem(f"not JSON: {error}") from None


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _is(text: str, position: int, sign: str) -> bool:
    return text.startswith(sign, position)


def _after(text: str, position: int, sign: str, expected: str) -> int:
    """Behind `sign` and the spaces around it."""
    position = _skip(text, position)
    if not _is(text, position, sign):
        raise _unexpected(text, position, expected)
    return _skip(text, position + 1)


def _end(text: str, position: int) -> None:
    position = _skip(text, position + 1)
    if position != len(text):
        raise _unexpected(text, position, "the end")


def _unexpected(text: str, position: int, expected: str) -> JsonProblem:
    found = repr(text[position]) if position < len(text) else "the end"
    return JsonProblem(f"found {found} at character {position + 1}, expected {expected}")

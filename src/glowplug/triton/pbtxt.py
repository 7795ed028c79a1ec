"""Protobuf's text form, as far as `config.pbtxt` uses it: a writer, and a parser for what anybody may have written.

A message is a dict from field name to the list of its values, in order of appearance: the text form cannot tell a
repeated field with one entry from a single one, and what is read has to be written again as it was.
Source: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import math
import re
from typing import Union

from glowplug.errors import ConfigError


class Word(str):
    """An enum's name, written without quotes: KIND_GPU."""

    __slots__ = ()


Message = dict[str, list["Value"]]
Value = Union[str, int, float, bool, Message]  # noqa: UP007 - evaluated at run time, with a name that comes later

MAX_DEPTH = 32
_TOKEN = re.compile(
    r"""(?P<space>[\s]+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?)(?![\w.]))
      | (?P<word>-?[A-Za-z_][A-Za-z0-9_]*)
      | (?P<mark>[{}\[\]<>:,;])""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))", re.S)
_OPEN = {"{": "}", "<": ">"}
_FLOAT_WORDS = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}


def write(message: Message) -> str:
    """The text of a message, two spaces a level, one line a field."""
    return "".join(_lines(message, ""))


def _lines(message: Message, indent: str) -> list[str]:
    lines: list[str] = []
    for name, values in message.items():
        if len(values) > 1 and not any(isinstance(value, dict) for value in values):
            lines.append(f"{indent}{name}: [ {', '.join(map(_scalar, values))} ]\n")
            continue
        for value in values:
            if isinstance(value, dict):
                lines += [f"{indent}{name} {{\n", *_lines(value, indent + "  "), f"{indent}}}\n"]
            else:
                lines.append(f"{indent}{name}: {_scalar(value)}\n")
    return lines


def _scalar(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    return repr(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogatepass"))


def without_empty(message: Message) -> Message:
    """A field without values is not written, and so is not read back."""
    return {
        name: [without_empty(value) if isinstance(value, dict) else value for value in values]
        for name, values in message.items()
        if values
    }


def parse(text: str, where: str) -> Message:
    """The message that `text` says. Raises ConfigError that begins with `where` and the line."""
    return _Parser(text, where).fields("", 0)


class _Parser:
    """One pass over the tokens: (kind, text, line)."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._tokens: list[tuple[str, str, int]] = []
        self._next = 0
        offset, line = 0, 1
        while offset < len(text):
            found = _TOKEN.match(text, offset)
            if found is None:
                raise self._wrong(line, f"unexpected {text[offset : offset + 20]!r}")
            if found.lastgroup != "space":
                self._tokens.append((str(found.lastgroup), found[0], line))
            line += found[0].count("\n")
            offset = found.end()
        self._tokens.append(("end", "the end of the text", line))

    def fields(self, closing: str, depth: int) -> Message:
        """Fields up to `closing` (the end of the text where it is empty)."""
        message: Message = {}
        while True:
            kind, text, line = self._take()
            if text == closing or (kind == "end" and not closing):
                return message
            if text in (",", ";"):
                continue
            if kind != "word":
                raise self._wrong(line, f"found {text}, expected a field's name")
            message.setdefault(text, []).extend(self._values(text, depth))

    def _values(self, name: str, depth: int) -> list[Value]:
        if depth >= MAX_DEPTH:
            raise self._wrong(self._peek()[2], f"nested deeper than {MAX_DEPTH}")
        has_colon = self._peek()[1] == ":"
        if has_colon:
            self._take()
        kind, text, line = self._peek()
        if text == "[" and kind == "mark":
            return self._list(depth)
        if text not in _OPEN and not has_colon:
            raise self._wrong(line, f"found {text}, expected : or {{ after {name}")
        return [self._value(depth)]

    def _list(self, depth: int) -> list[Value]:
        self._take()
        values: list[Value] = []
        if self._peek()[1] == "]":
            self._take()
            return values
        while True:
            values.append(self._value(depth))
            _, text, line = self._take()
            if text == "]":
                return values
            if text != ",":
                raise self._wrong(line, f"found {text}, expected , or ] in a list")

    def _value(self, depth: int) -> Value:
        kind, text, line = self._take()
        if kind == "mark" and text in _OPEN:
            return self.fields(_OPEN[text], depth + 1)
        if kind == "string":
            return self._string(text, line)
        if kind == "number":
            return _number(text)
        if kind == "word":
            return _word(text)
        raise self._wrong(line, f"found {text}, expected a value")

    def _string(self, text: str, line: int) -> str:
        parts = [text]
        while self._peek()[0] == "string":  # strings side by side are one
            parts.append(self._take()[1])
        raw = b"".join(_unescaped(part[1:-1]) for part in parts)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._wrong(line, "a string is not UTF-8") from None

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next]

    def _take(self) -> tuple[str, str, int]:
        token = self._tokens[self._next]
        if token[0] == "end" and self._next and self._open_at(self._next):
            raise self._wrong(token[2], "it ends inside a message or a list")
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _open_at(self, index: int) -> bool:
        marks = [text for kind, text, _ in self._tokens[:index] if kind == "mark"]
        return sum(marks.count(mark) for mark in "{[<") > sum(marks.count(mark) for mark in "}]>")

    def _wrong(self, line: int, what: str) -> ConfigError:
        return ConfigError(f"{self._where}:{line} {what}")


def _number(text: str) -> int | float:
    plain = text.rstrip("fF") if "x" not in text.lower() else text
    unsigned = plain.lstrip("+-")
    if "x" in unsigned.lower():
        return int(plain, 16)
    if unsigned.isdigit() and plain == text:
        is_octal = len(unsigned) > 1 and unsigned[0] == "0" and not set(unsigned) - set("01234567")
        return int(plain, 8 if is_octal else 10)
    return float(plain)


def _word(text: str) -> Value:
    if text in ("true", "True", "t"):
        return True
    if text in ("false", "False", "f"):
        return False
    if (number := _FLOAT_WORDS.get(text.lstrip("-").lower())) is not None:
        return -number if text.startswith("-") else number
    return Word(text)


def _unescaped(text: str) -> bytes:
    def one(found: re.Match[bytes]) -> bytes:
        if found[1]:
            return bytes((int(found[1], 8) & 0xFF,))
        if found[2]:
            return bytes((int(found[2], 16),))
        letter = found[3].decode("utf-8", "surrogateescape")
        return _ESCAPES.get(letter, letter).encode("utf-8", "surrogateescape")

    return _ESCAPE.sub(one, text.encode("utf-8", "surrogatepass"))

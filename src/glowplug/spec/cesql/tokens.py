"""The words of an expression. Keywords and names are in any case."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

KEYWORDS = frozenset({"AND", "OR", "XOR", "NOT", "LIKE", "EXISTS", "IN", "TRUE", "FALSE"})
NAME, TEXT, NUMBER, SIGN, KEYWORD, END = "name", "text", "number", "sign", "keyword", "end"
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | (?P<name>[A-Za-z0-9][A-Za-z0-9_]*)
      | (?P<sign><>|!=|<=|>=|[-+*/%=<>(),])
      | (?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)


class SqlProblem(Exception):
    """What does not parse, and where: `position` counts characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"at character {position + 1}: {message}")
        self.position = position


@dataclass(frozen=True)
class Token:
    """`value` is a keyword in capitals, a string without its quotes, or else what stands there."""

    kind: str
    value: str
    position: int


def tokens(text: str) -> Iterator[Token]:
    """All of them, with one of kind `END` last. Raises SqlProblem."""
    position = 0
    while True:
        found = _TOKEN.match(text, position)
        if found is None:
            start = len(text) - len(text[position:].lstrip())
            what = (
                "a string without an end" if text[start] in "\"'" else f"{text[start]!r} means nothing here"
            )
            raise SqlProblem(what, start)
        kind = str(found.lastgroup)
        start, position = found.start(kind), found.end()
        yield _token(kind, found[kind], start)
        if kind == END:
            return


def _token(kind: str, value: str, position: int) -> Token:
    if kind == TEXT:
        return Token(TEXT, _unquoted(value), position)
    if kind == NAME and value.upper() in KEYWORDS:
        return Token(KEYWORD, value.upper(), position)
    if kind == NAME and value.isascii() and value.isdecimal():
        return Token(NUMBER, value, position)
    return Token(kind, value, position)


def _unquoted(literal: str) -> str:
    """Only the quote is unescaped: what else a backslash precedes is LIKE's to read."""
    quote = literal[0]
    return literal[1:-1].replace("\\" + quote, quote)

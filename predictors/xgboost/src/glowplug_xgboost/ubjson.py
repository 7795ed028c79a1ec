"""Reads UBJSON, the binary form of JSON in which XGBoost writes a booster.

Arrays of one number type come as NumPy arrays that are read in one step: the trees of a booster are hardly anything
else. Source: https://ubjson.org (draft 12), and https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

# Numbers by their marker; all are big-endian.
_NUMBERS = {
    marker: (np.dtype(code), struct.Struct(f">{letter}"))
    for marker, code, letter in (
        (ord("i"), ">i1", "b"),
        (ord("U"), ">u1", "B"),
        (ord("I"), ">i2", "h"),
        (ord("l"), ">i4", "i"),
        (ord("L"), ">i8", "q"),
        (ord("d"), ">f4", "f"),
        (ord("D"), ">f8", "d"),
    )
}
_WORDS = {ord("Z"): None, ord("T"): True, ord("F"): False}
_NO_OP, _TYPE, _COUNT = ord("N"), ord("$"), ord("#")
_STRING, _CHARACTER = ord("S"), ord("C")
_ARRAY, _ARRAY_END, _OBJECT, _OBJECT_END = ord("["), ord("]"), ord("{"), ord("}")
MAX_DEPTH = 64


def decode(data: bytes) -> Any:
    """The value that `data` is: dicts, lists, NumPy arrays (typed), strings and numbers.

    Raises ValueError for what is no UBJSON or is cut off.
    """
    try:
        return _Reader(data).value()
    except (IndexError, struct.error) as error:
        raise ValueError("the UBJSON is cut off") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._depth = 0

    def value(self) -> Any:
        return self._of(self._marker())

    def _marker(self) -> int:
        while True:
            marker = self._data[self._at]
            self._at += 1
            if marker != _NO_OP:
                return marker

    def _of(self, marker: int) -> Any:
        if marker in _NUMBERS:
            return self._number(marker)
        if marker == _STRING:
            return self._text()
        if marker in (_ARRAY, _OBJECT):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise ValueError("the UBJSON is nested too deep")
            found = self._array() if marker == _ARRAY else self._object()
            self._depth -= 1
            return found
        if marker in _WORDS:
            return _WORDS[marker]
        if marker == _CHARACTER:
            self._at += 1
            return chr(self._data[self._at - 1])
        raise ValueError(f"UBJSON has no type {chr(marker)!r}")

    def _number(self, marker: int) -> Any:
        number = _NUMBERS[marker][1]
        (value,) = number.unpack_from(self._data, self._at)
        self._at += number.size
        return value

    def _length(self) -> int:
        marker = self._marker()
        if marker not in _NUMBERS:
            raise ValueError(f"a UBJSON length has type {chr(marker)!r}")
        length = self._number(marker)
        if not isinstance(length, int) or not 0 <= length <= len(self._data) - self._at:
            raise ValueError(f"a UBJSON length is {length}, {len(self._data) - self._at} bytes are left")
        return length

    def _text(self) -> str:
        length = self._length()
        start, self._at = self._at, self._at + length
        return self._data[start : self._at].decode("utf-8", "replace")

    def _header(self) -> tuple[int | None, int | None]:
        """A container's element type and count, where it says them."""
        kind = None
        if self._data[self._at] == _TYPE:
            kind = self._data[self._at + 1]
            self._at += 2
        if self._data[self._at] == _COUNT:
            self._at += 1
            return kind, self._length()
        if kind is not None:
            raise ValueError("a typed UBJSON container has no count")
        return None, None

    def _array(self) -> Any:
        kind, count = self._header()
        if count is None:
            found = []
            while (marker := self._marker()) != _ARRAY_END:
                found.append(self._of(marker))
            return found
        if kind not in _NUMBERS:
            return [self.value() if kind is None else self._of(kind) for _ in range(count)]
        dtype = _NUMBERS[kind][0]
        if count * dtype.itemsize > len(self._data) - self._at:
            raise ValueError(
                f"a UBJSON array has {count} elements, {len(self._data) - self._at} bytes are left"
            )
        values = np.frombuffer(self._data, dtype, count, self._at)
        self._at += values.nbytes
        return values

    def _object(self) -> dict[str, Any]:
        kind, count = self._header()
        found: dict[str, Any] = {}
        while count is None or len(found) < count:
            if count is None and self._data[self._at] == _OBJECT_END:
                self._at += 1
                break
            key = self._text()
            found[key] = self.value() if kind is None else self._of(kind)
        return found

"""The patch formats of the Kubernetes API: JSON patch, merge patch and strategic merge patch.

Pure: an object and a patch in, a new object out, nothing shared and nothing changed in place. What cannot be
understood is BadRequest; what can, but does not fit the object, is Invalid. Apply patches are `apply.py`'s.
"""

from __future__ import annotations

import copy
from typing import Any

from glowplug.apiserver.codec import encode
from glowplug.apiserver.fieldsets_typed import same
from glowplug.apiserver.patch_strategic import strategic_merge_patch
from glowplug.errors import BadRequest, Invalid, Problem, TooLarge

__all__ = ["json_patch", "merge_patch", "strategic_merge_patch"]

Object = dict[str, Any]

# Kubernetes' own limits. Without the second, copies of copies double what there is with each operation.
_MOST_OPERATIONS = 10_000
_MOST_COPIED_BYTES = 3 * 2**20
# A list is not that long, and Python converts no number that is much longer.
_MOST_DIGITS = 18


class _Unfit(Exception):
    """An operation that can be understood and cannot be done on this object."""


def json_patch(obj: Object, ops: object) -> Object:
    """`obj` with the operations of an RFC 6902 patch done in order, all or none.

    Negative list indices count from the end, as in Kubernetes. Raises BadRequest if `ops` is no such patch, Invalid
    (with the failing operation as its cause) if a path does not exist or a test fails, TooLarge past 10,000
    operations.
    """
    if not isinstance(ops, list):
        raise BadRequest(f"a JSON patch is a list of operations, found {_json_type(ops)}")
    if len(ops) > _MOST_OPERATIONS:
        raise TooLarge(
            f"The allowed maximum operations in a JSON patch is {_MOST_OPERATIONS}, got {len(ops)}"
        )
    steps = [_Step(index, op) for index, op in enumerate(ops)]
    root: Any = copy.deepcopy(obj)
    copied = 0
    for step in steps:
        try:
            copied += step.copied_bytes(root)
            if copied > _MOST_COPIED_BYTES:
                raise _Unfit(f"all copies together are {copied} bytes, must be at most {_MOST_COPIED_BYTES}")
            root = step.done(root)
        except _Unfit as unfit:
            cause = Problem(f"patch[{step.index}]", f"{step.op} {step.path}: {unfit}")
            raise Invalid(
                f"the JSON patch cannot be done: {cause.field}: {cause.message}", causes=[cause]
            ) from unfit
    if not isinstance(root, dict):
        raise Invalid(f"the JSON patch leaves {_json_type(root)}, an object must be an object")
    return root


class _Step:
    """One operation, checked as far as it can be without an object."""

    def __init__(self, index: int, raw: object) -> None:
        where = f"operation {index} of the JSON patch"
        if not isinstance(raw, dict):
            raise BadRequest(f"{where} must be an object, found {_json_type(raw)}")
        self.index = index
        self.op = raw.get("op")
        if self.op not in _OPERATIONS:
            raise BadRequest(f"{where} has op {self.op!r}, must be one of {', '.join(_OPERATIONS)}")
        self.path = _pointer_text(raw, "path", where)
        self._tokens = _tokens(self.path, where)
        self._from: list[str] = []
        if self.op in ("move", "copy"):
            self._from = _tokens(_pointer_text(raw, "from", where), where)
        elif self.op != "remove" and "value" not in raw:
            raise BadRequest(f"{where} ({self.op} {self.path}) lacks a value")
        self._value = raw.get("value")

    def copied_bytes(self, root: Any) -> int:
        """The size of what this operation would copy, as JSON; `_Unfit` if it is not there."""
        return len(encode(_found(root, self._from))) if self.op == "copy" else 0

    def done(self, root: Any) -> Any:
        """The document after this operation; `_Unfit` if it cannot be done."""
        if self.op == "remove":
            return _removed(root, self._tokens)
        if self.op == "replace":
            _found(root, self._tokens)
            return _replaced(root, self._tokens, copy.deepcopy(self._value))
        if self.op == "test":
            self._test(root)
            return root
        if self.op == "add":
            return _added(root, self._tokens, copy.deepcopy(self._value))
        source = _found(root, self._from)
        if self.op == "copy":
            return _added(root, self._tokens, copy.deepcopy(source))
        if self._tokens == self._from:
            return root
        if self._tokens[: len(self._from)] == self._from:
            raise _Unfit("a value cannot be moved into itself")
        return _added(_removed(root, self._from), self._tokens, source)

    def _test(self, root: Any) -> None:
        try:
            found = _found(root, self._tokens)
        except _Unfit:
            # Kubernetes' library: what is absent passes a test for null.
            if self._value is None:
                return
            raise
        if not same(found, self._value):
            raise _Unfit("the value there is not the one tested for")


_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")


def _pointer_text(raw: Object, name: str, where: str) -> str:
    pointer = raw.get(name)
    if not isinstance(pointer, str):
        raise BadRequest(f"{where} lacks a {name}")
    return pointer


def _tokens(pointer: str, where: str) -> list[str]:
    """The steps of an RFC 6901 pointer."""
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        raise BadRequest(f"{where} has the pointer {pointer!r}, which must be empty or start with /")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/")]


def _found(root: Any, tokens: list[str]) -> Any:
    here = root
    for token in tokens:
        if isinstance(here, dict):
            if token not in here:
                raise _Unfit(f"there is no {token!r}")
            here = here[token]
        elif isinstance(here, list):
            here = here[_index(token, len(here))]
        else:
            raise _Unfit(f"there is no {token!r} in {_json_type(here)}")
    return here


def _index(token: str, length: int) -> int:
    """A position of the list; RFC 6901 allows no leading zeros."""
    digits = token[1:] if token.startswith("-") else token
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS
    if not is_number or (len(digits) > 1 and digits[0] == "0"):
        raise _Unfit(f"{token!r} is no index of a list")
    index = int(token)
    if not -length <= index < length:
        raise _Unfit(f"index {token} is outside of the list, which has {length}")
    return index % length


def _added(root: Any, tokens: list[str], value: Any) -> Any:
    if not tokens:
        return value
    parent, last = _found(root, tokens[:-1]), tokens[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        # One more place than there are items: the end.
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)
    else:
        raise _Unfit(f"{_json_type(parent)} cannot hold {last!r}")
    return root


def _replaced(root: Any, tokens: list[str], value: Any) -> Any:
    if not tokens:
        return value
    parent, last = _found(root, tokens[:-1]), tokens[-1]
    parent[last if isinstance(parent, dict) else _index(last, len(parent))] = value
    return root


def _removed(root: Any, tokens: list[str]) -> Any:
    if not tokens:
        raise _Unfit("the whole object cannot be removed by a patch")
    _found(root, tokens)
    parent, last = _found(root, tokens[:-1]), tokens[-1]
    del parent[last if isinstance(parent, dict) else _index(last, len(parent))]
    return root


def merge_patch(obj: Object, patch: object) -> Object:
    """`obj` with an RFC 7386 patch merged in: null removes, maps merge, everything else replaces.

    BadRequest if the patch is not a JSON object: it would replace the whole object by something else.
    """
    if not isinstance(patch, dict):
        raise BadRequest(f"a merge patch is an object, found {_json_type(patch)}")
    merged: Object = _merged(obj, patch)
    return merged


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    base = value if isinstance(value, dict) else {}
    merged = {key: copy.deepcopy(child) for key, child in base.items() if key not in patch}
    for key, child in patch.items():
        if child is not None:
            merged[key] = _merged(base.get(key), child)
    return merged


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")

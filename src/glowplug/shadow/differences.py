"""How far two values of an answer are apart, pure: tensors, and any JSON.

Numbers are close where `|a - b| <= absolute + relative * |a|`, as in numpy.allclose; NaN is close to NaN. Everything
else is equal or it is not. The distance of two arrays is `max |a - b| / max(|a|, |b|)`, over all their elements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glowplug.wire.tensors import Tensor

_SHOWN = 60


@dataclass(frozen=True)
class Tolerance:
    """What still counts as close."""

    relative: float
    absolute: float


@dataclass(frozen=True)
class Apart:
    """`distance` of the numbers, 0 for equal ones; `what` differs beyond the tolerance, empty if nothing does."""

    distance: float = 0.0
    what: str = ""


def between_tensors(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: Tolerance) -> Apart:
    """Outputs are matched by name; their order is no difference."""
    names, other_names = sorted(t.name for t in ours), sorted(t.name for t in theirs)
    if names != other_names:
        return Apart(math.inf, f"outputs {_short(names)} and {_short(other_names)}")
    by_name = {tensor.name: tensor for tensor in theirs}
    return _worst([_tensor(tensor, by_name[tensor.name], tolerance) for tensor in ours])


def between_json(
    ours: Any, theirs: Any, tolerance: Tolerance, ignored: frozenset[str] = frozenset()
) -> Apart:
    """Any two documents; fields in `ignored` are left out at the top."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        ours = {key: value for key, value in ours.items() if key not in ignored}
        theirs = {key: value for key, value in theirs.items() if key not in ignored}
    return _value(ours, theirs, tolerance, "")


def _tensor(a: Tensor, b: Tensor, tolerance: Tolerance) -> Apart:
    where = f"output {a.name}"
    if (a.datatype, a.shape) != (b.datatype, b.shape):
        return Apart(math.inf, f"{where}: {a.datatype}{list(a.shape)} and {b.datatype}{list(b.shape)}")
    if a.datatype == "BYTES":
        unequal = [n for n, (x, y) in enumerate(zip(a.data, b.data, strict=True)) if x != y]
        return Apart(math.inf, f"{where}[{unequal[0]}] is another text") if unequal else Apart()
    return _numbers(a.as_numpy().ravel(), b.as_numpy().ravel(), tolerance, where)


def _numbers(a: Any, b: Any, tolerance: Tolerance, where: str) -> Apart:
    if np.array_equal(a, b):
        return Apart()
    is_float = a.dtype.kind == "f" or b.dtype.kind == "f"
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        # As they are: past 2**53 neighbours are one float.
        is_same = (a == b) | (np.isnan(x) & np.isnan(y))
        gap = np.where(is_same, 0.0, np.abs(x - y))
        gap[np.isnan(gap)] = np.inf
        is_close = is_same
        if is_float:
            is_close = is_same | (
                np.isfinite(gap) & (gap <= tolerance.absolute + tolerance.relative * np.abs(x))
            )
    finite = [float(np.max(np.abs(v), initial=0.0, where=np.isfinite(v))) for v in (x, y)]
    largest = float(gap.max(initial=0.0))
    distance = largest / max(finite) if max(finite) > 0 else largest
    if is_close.all():
        return Apart(distance)
    index = int(np.argmax(np.where(is_close, -1.0, gap)))
    return Apart(distance, f"{where}[{index}]: {a[index]} and {b[index]}")


def _value(a: Any, b: Any, tolerance: Tolerance, where: str) -> Apart:
    if isinstance(a, dict) and isinstance(b, dict):
        return _object(a, b, tolerance, where)
    if isinstance(a, list) and isinstance(b, list):
        return _array(a, b, tolerance, where)
    if _is_number(a) and _is_number(b):
        # A JSON writer may leave the point out of a whole float, so that these are floats whatever they look like.
        return _numbers(
            np.array([a], np.float64), np.array([b], np.float64), tolerance, where or "the answer"
        )
    if type(a) is type(b) and a == b:
        return Apart()
    if isinstance(a, str) and isinstance(b, str):
        # Never what it says: it may be anything that a caller was told.
        return Apart(math.inf, f"{where or 'the answer'} is another text")
    return Apart(math.inf, f"{where or 'the answer'}: {_kind(a)} and {_kind(b)}")


def _object(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: Tolerance, where: str) -> Apart:
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        return Apart(math.inf, f"{where or 'the answer'}: only one has {_short(odd)}")
    return _worst([_value(a[key], b[key], tolerance, f"{where}.{key}".lstrip(".")) for key in a])


def _array(a: list[Any], b: list[Any], tolerance: Tolerance, where: str) -> Apart:
    if len(a) != len(b):
        return Apart(math.inf, f"{where}: {len(a)} and {len(b)} elements")
    if a and all(map(_is_number, a)) and all(map(_is_number, b)):
        return _numbers(np.array(a, np.float64), np.array(b, np.float64), tolerance, where)
    return _worst(
        [_value(x, y, tolerance, f"{where}[{n}]") for n, (x, y) in enumerate(zip(a, b, strict=True))]
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _worst(found: Sequence[Apart]) -> Apart:
    beyond = [apart for apart in found if apart.what]
    distance = max((apart.distance for apart in found), default=0.0)
    return Apart(distance, max(beyond, key=lambda apart: apart.distance).what if beyond else "")


def _short(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    kinds = {str: "a text", list: "an array", dict: "an object"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "a number")

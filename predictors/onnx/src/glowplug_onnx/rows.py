"""Whether rows of several requests may be computed at once, and whether that is faster: found out at the start.

A first axis of any size is often a batch, but not always (it may be a sequence), and a graph does not say whether its
rows know of each other. So rows are computed together and apart, and compared: answers must never depend on who else
asked at the same moment. And most of the larger models gain nothing: their rows keep every core busy one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from glowplug.errors import InferenceError
from glowplug.wire.datatypes import DATATYPES
from glowplug_onnx.signature import Signature

Compute = Callable[[dict[str, Any]], Sequence[Any]]

# Together four rows must take this much less a row than one: below that company is not worth its wait, and a request
# that is queued, stacked and cut costs the time of the second.
LEAST_SHARE, LEAST_S = 0.2, 0.0001
TOGETHER = 4
ROUNDS = 3
# A model that takes longer is not timed further: the start would wait for it.
SLOW_S = 0.03
# What axes of any size other than the first are tried with; not every model computes both.
SIZES = (32, 1)
# Of the largest number of an output. Sums are added in another order for another number of rows.
TOLERANCE = 1e-3
TOLERANCE_FP16 = 2e-2


@dataclass(frozen=True)
class Verdict:
    """Whether rows are batched, and why or why not."""

    is_batched: bool
    reason: str


def examine(takes: Sequence[Signature], gives: Sequence[Signature], compute: Compute) -> Verdict:
    """The verdict on a model that has computed before. `compute` maps input arrays to all outputs."""
    if refused := first_axis(takes, gives):
        return Verdict(False, refused)
    for size in SIZES:
        try:
            return _examined(takes, size, compute)
        except InferenceError as error:
            refused = error.message
    return Verdict(False, f"rows for a trial are refused: {refused}")


def first_axis(takes: Sequence[Signature], gives: Sequence[Signature]) -> str:
    """Why the first axes cannot be that of a batch; empty where they can. Pure."""
    for each in (*takes, *gives):
        if not each.shape or each.shape[0] >= 0:
            return f"the first axis of {each.name!r} is not of any size"
    names = {each.axis for each in takes}
    if len(takes) > 1 and (len(names) > 1 or "" in names):
        return "the inputs' first axes have different names"
    return ""


def _examined(takes: Sequence[Signature], size: int, compute: Compute) -> Verdict:
    rows = [trial(takes, size, seed) for seed in range(TOGETHER)]
    together = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    one_s = _seconds(compute, rows[0])
    if one_s > SLOW_S:
        return Verdict(False, f"a row takes {one_s * 1e3:.0f} ms by itself")
    found = compute(together)
    many_s = float("inf")
    for _ in range(ROUNDS):
        one_s, many_s = min(one_s, _seconds(compute, rows[0])), min(many_s, _seconds(compute, together))
    verdict = worth(one_s, many_s / TOGETHER)
    if verdict.is_batched and (refused := dependence([compute(row) for row in rows], found)):
        return Verdict(False, refused)
    return verdict


def _seconds(compute: Compute, feeds: dict[str, Any]) -> float:
    started = perf_counter()
    compute(feeds)
    return perf_counter() - started


def worth(alone_s: float, together_s: float) -> Verdict:
    """From the seconds a row takes by itself and among others. Pure."""
    said = f"a row takes {alone_s * 1e6:.0f} µs by itself, {together_s * 1e6:.0f} µs among {TOGETHER}"
    return Verdict(alone_s - together_s >= max(LEAST_SHARE * alone_s, LEAST_S), said)


def trial(takes: Sequence[Signature], size: int, seed: int) -> dict[str, Any]:
    """One row of each input, another one for another seed: numbers from 0 to 1, whole ones 0 or 1, texts."""
    random = np.random.default_rng(seed)
    return {each.name: _filled(each, size, random) for each in takes}


def _filled(each: Signature, size: int, random: np.random.Generator) -> Any:
    shape = (1, *(size if axis < 0 else axis for axis in each.shape[1:]))
    if each.datatype == "BYTES":
        return random.choice(np.array(["", "a", "b c"], dtype=object), shape)
    dtype = DATATYPES[each.datatype].dtype
    if np.issubdtype(dtype, np.floating):
        return random.random(shape).astype(dtype)
    return random.integers(2, size=shape).astype(dtype)


def dependence(apart: Sequence[Sequence[Any]], together: Sequence[Any]) -> str:
    """Why outputs of rows computed together are not those of the rows apart; empty where they are. Pure."""
    for index, found in enumerate(together):
        parts = [np.asarray(row[index]) for row in apart]
        if any(part.shape[:1] != (1,) for part in parts) or np.shape(found)[:1] != (len(parts),):
            return "the outputs don't have a row for each row of the inputs"
        if not close(np.concatenate(parts), np.asarray(found)):
            return "rows that are computed together come out differently"
    return ""


def close(expected: Any, found: Any) -> bool:
    """Whether two outputs are the same but for rounding."""
    if expected.shape != found.shape or not np.issubdtype(expected.dtype, np.floating):
        return bool(np.array_equal(expected, found))
    tolerance = TOLERANCE_FP16 if expected.dtype == np.float16 else TOLERANCE
    finite = np.abs(expected[np.isfinite(expected)]).astype(np.float64)
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(expected, found, rtol=0, atol=tolerance * scale, equal_nan=True))
